//! The primary's side of a link.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use session_store_core::{
    Error, ErrorKind, Found, Inserted, Listing, NewSession, Page, Reason, Result, RevokedSessions,
    Selection, Session, SessionChange, SessionId, Snapshot, State, SwapTtl, Timestamp, Touch,
    Touched, Ttl, Update, UserId, Which,
};

use super::super::cache::put_blindly;
use super::encode::encode;
use super::link::guest;
use super::{Link, Quirk};

impl Link {
    pub(in super::super) async fn insert(
        &self,
        new: &NewSession,
        now: Timestamp,
    ) -> Result<Inserted> {
        let done = self.primary.insert(new, now).await?;
        match self.quirk {
            Quirk::CreationsKeepAbsences => self.skip(),
            Quirk::CreationsFill => {
                let snapshot = Snapshot { session: new.session.clone(), user: None };
                if let Some(key) = self.key_of(&new.session.id)
                    && let Some(record) = encode(&guest(snapshot), &key)
                {
                    let ttl = Ttl::new(Duration::from_mins(1)).unwrap_or(Ttl::MIN);
                    put_blindly(&*self.secondary, &key, Some(&record), SwapTtl::Set(ttl)).await?;
                    self.skip();
                }
            }
            _ => {}
        }
        Ok(done)
    }

    pub(in super::super) async fn find(&self, id: &SessionId) -> Result<Found> {
        if self.quirk == Quirk::CountsTheOwnerToo && self.count.fetch_add(1, Ordering::Relaxed) > 20
        {
            return Err(Error::new(ErrorKind::Unavailable, "mutant"));
        }
        let early = self.read.lock().take();
        let mut found = match (self.quirk, early) {
            (Quirk::ReadsBeforeTheLease, Some(found)) => found,
            (Quirk::FreshAsksTheCache, _) => {
                if let Some(key) = self.key_of(id) {
                    self.secondary.get(&key).await?;
                }
                self.primary.find(id).await?
            }
            (Quirk::OutagesAreAbsences, _) => self.primary.find(id).await.unwrap_or_default(),
            _ => self.primary.find(id).await?,
        };
        if let Some(Snapshot { session, .. }) = &found.snapshot {
            match self.quirk {
                Quirk::EndsTheExpired if session.state(self.host.now()) == State::Expired => {
                    let one = Selection::One { id: *id, owner: None };
                    self.primary.revoke(&one, Reason::Admin, self.host.now()).await?;
                }
                Quirk::ExpiredAreUnknown if session.state(self.host.now()) == State::Expired => {
                    return Ok(Found::default());
                }
                Quirk::WritesOnReading => {
                    let touch = Touch {
                        id: *id,
                        seen_at: session.last_seen_at,
                        expires_at: session.expires_at,
                    };
                    self.primary.touch(&[touch]).await?;
                }
                _ => {}
            }
        }
        match self.quirk {
            Quirk::DropsTheServersTime => found.server_time = None,
            Quirk::ReadsLag => {
                let last = self.last.lock().insert(*id, found.clone());
                found = last.unwrap_or(found);
            }
            _ => {}
        }
        self.found.lock().clone_from(&found.snapshot);
        Ok(found)
    }

    pub(in super::super) async fn update(
        &self,
        (id, version): (&SessionId, u64),
        change: &SessionChange,
        now: Timestamp,
    ) -> Result<Update> {
        let done = self.primary.update(id, version, change, now).await;
        match (&done, self.quirk) {
            (Ok(Update::Missing), Quirk::MissingKeepsTheEntry)
            | (Err(_), Quirk::ErrorsKeepTheEntry) => self.skip(),
            _ => {}
        }
        done
    }

    pub(in super::super) async fn touch(&self, touches: &[Touch]) -> Result<Vec<Touched>> {
        let mut touches = touches.to_vec();
        match self.quirk {
            Quirk::TouchesTwice => _ = self.primary.touch(&touches).await?,
            Quirk::TouchesFromTheFuture => {
                for touch in &mut touches {
                    touch.expires_at = touch.expires_at.plus(Duration::from_hours(5));
                }
            }
            Quirk::TouchesRemove => {
                let keys: Vec<_> =
                    touches.iter().filter_map(|touch| self.key_of(&touch.id)).collect();
                self.secondary.remove(&keys).await?;
            }
            _ => {}
        }
        match self.primary.touch(&touches).await {
            Err(_) if self.quirk == Quirk::SwallowsTouchErrors => {
                Ok(vec![Touched::Missing; touches.len()])
            }
            done => done,
        }
    }

    pub(in super::super) async fn revoke(
        &self,
        selection: &Selection,
        reason: Reason,
        now: Timestamp,
    ) -> Result<RevokedSessions> {
        let commit = self.primary.revoke(selection, reason, now);
        match self.quirk {
            Quirk::RemovesBeforeCommit | Quirk::RemovesBesideCommit => {
                let ids = self.ids(selection).await?;
                let keys: Vec<_> = ids.iter().filter_map(|id| self.key_of(id)).collect();
                let done = if self.quirk == Quirk::RemovesBeforeCommit {
                    self.secondary.remove(&keys).await?;
                    commit.await
                } else {
                    beside(self.secondary.remove(&keys), commit).await
                };
                self.skip();
                done
            }
            Quirk::RemovesOnlyWhatItEnded => {
                let done = commit.await?;
                if done.revoked.is_empty() {
                    self.skip();
                }
                Ok(done)
            }
            Quirk::LostRepliesKeepTheEntry => commit.await.inspect_err(|_| self.skip()),
            _ => commit.await,
        }
    }

    pub(in super::super) async fn list(
        &self,
        user: &UserId,
        which: Which,
        page: &Page,
    ) -> Result<Listing<Session>> {
        let mut listing = self.primary.list(user, which, page).await?;
        if self.quirk == Quirk::ListsTheCached {
            let mut cached = Vec::new();
            for session in listing.items {
                if let Some(key) = self.key_of(&session.id)
                    && self.secondary.get(&key).await?.is_some()
                {
                    cached.push(session);
                }
            }
            listing.items = cached;
        }
        Ok(listing)
    }
}

/// Runs both, and returns what the second comes to.
async fn beside<T>(first: impl Future<Output = Result<()>>, second: impl Future<Output = T>) -> T {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let mut is_done = false;
    let mut output = None;
    std::future::poll_fn(|cx| {
        is_done = is_done || first.as_mut().poll(cx).is_ready();
        if output.is_none()
            && let Poll::Ready(value) = second.as_mut().poll(cx)
        {
            output = Some(value);
        }
        if is_done && let Some(value) = output.take() { Poll::Ready(value) } else { Poll::Pending }
    })
    .await
}
