//! What was begun and is not finished, so that a crash in the middle is finished by the next call or
//! the next sweep.
//!
//! The entries of a deleted user outlive the sessions: as long as they are there, a repeated deletion
//! names every session that a cache may still hold.

use std::collections::BTreeSet;

use session_store_core::{Deleted, Result, SessionIds, Timestamp, UserId};

use super::call::Outcome;
use super::error::{corrupt, uncertain};
use super::key::{JOBS, Key};
use super::look::Entry;
use super::query::Query;
use super::row::{Item, Row, item, number, text};
use super::step::Terms;
use super::store::DynamoStore;
use super::stored::{Depth, Stored};

/// How many sessions are read before they are removed.
const CHUNK: usize = 500;

/// One thing begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    user: UserId,
    /// The user's barrier when it was begun; a later one takes its place.
    barrier: u64,
    work: Work,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Write down what a revoke-all meant.
    End,
    /// Remove the sessions of a deleted user. Until `until` their names are kept.
    Remove { until: Timestamp },
    /// The sessions are gone; their names may go too.
    Forget,
}

impl Job {
    pub(super) fn end(user: &UserId, barrier: u64) -> Self {
        Self { user: user.clone(), barrier, work: Work::End }
    }

    pub(super) fn remove(user: &UserId, barrier: u64, until: Timestamp) -> Self {
        Self { user: user.clone(), barrier, work: Work::Remove { until } }
    }

    fn read(item: &Item) -> Result<Self> {
        let row = Row::of(item)?;
        let user = UserId::new(row.text("user")?).map_err(|_| corrupt())?;
        let work = match row.text("work")? {
            "end" => Work::End,
            "remove" => Work::Remove { until: row.time("until")? },
            "forget" => Work::Forget,
            _ => return Err(corrupt()),
        };
        Ok(Self { user, barrier: row.number("barrier")?, work })
    }

    pub(super) fn item(&self) -> Item {
        let mut item = item(Key::job(&self.user), "job");
        let mut put = |name: &str, value| _ = item.insert(name.to_owned(), value);
        put("user", text(self.user.as_str()));
        put("barrier", number(self.barrier));
        put("work", text(self.work.name()));
        if let Work::Remove { until } = self.work {
            put("until", number(until.as_millis()));
        }
        item
    }

    /// It is still the one that was begun.
    fn unchanged(&self) -> Terms {
        Terms::when("#barrier = :barrier AND #work = :work")
            .with(":barrier", number(self.barrier))
            .with(":work", text(self.work.name()))
    }
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Remove { .. } => "remove",
            Self::Forget => "forget",
        }
    }
}

impl DynamoStore {
    /// Goes on with the deletion of a user who is gone, if one was begun and is not finished.
    pub(super) async fn resume_deletion(&self, id: &UserId) -> Result<Option<Deleted>> {
        match self.job(id).await? {
            Some(job) if matches!(job.work, Work::Remove { .. }) => self.finish_removal(&job).await,
            Some(job) if job.work == Work::Forget => {
                self.forget_names(&job).await.map_err(uncertain)?;
                // Some names may be missing already. Who asks must not believe that he has them all.
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Removes what is left of a deleted user. `None`: somebody else has finished it meanwhile, and
    /// not every name is known.
    pub(super) async fn finish_removal(&self, job: &Job) -> Result<Option<Deleted>> {
        self.remove_and_name(job).await.map_err(uncertain)
    }

    /// The sessions of a deletion that was begun and is not finished: a cache may hold them. They are
    /// removed; their names stay, for whoever repeats the deletion.
    pub(super) async fn left_by_deletion(&self, user: &UserId) -> Result<SessionIds> {
        let Some(job) = self.job(user).await? else { return Ok(SessionIds::new()) };
        if job.work == Work::End {
            return Ok(SessionIds::new());
        }
        let entries = self.entries_behind(&job).await?;
        self.remove(user, &entries).await?;
        Ok(entries.iter().map(|entry| entry.id).collect())
    }

    async fn remove_and_name(&self, job: &Job) -> Result<Option<Deleted>> {
        let Some(entries) = self.entries_if(job).await? else { return Ok(None) };
        self.remove(&job.user, &entries).await?;
        let next = Job { work: Work::Forget, ..job.clone() };
        let step = self.calls.put_if(next.item(), &job.unchanged())?;
        if self.calls.transact(&[step]).await? == Outcome::Done {
            self.forget_names(&next).await?;
        }
        let sessions: SessionIds = entries.iter().map(|entry| entry.id).collect();
        Ok(Some(Deleted { sessions }))
    }

    async fn forget_names(&self, job: &Job) -> Result<()> {
        let Some(entries) = self.entries_if(job).await? else { return Ok(()) };
        self.remove_entries(&job.user, &entries).await?;
        self.forget_job(job).await
    }

    /// Finishes what others began. Names of deleted sessions stay until their quarantine is over, since
    /// the deletion may be repeated by whoever saw it fail.
    pub(super) async fn finish_jobs(&self, now: Timestamp) -> Result<()> {
        let mut failed = None;
        for item in self.calls.query_all(Query::all(JOBS)).await? {
            let done = match Job::read(&item) {
                Ok(job) => self.finish_job(&job, now).await,
                Err(unreadable) => Err(unreadable),
            };
            match done {
                Ok(()) => {}
                // Nothing else will go better now.
                Err(error) if error.is_retryable() => return Err(error),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn finish_job(&self, job: &Job, now: Timestamp) -> Result<()> {
        match job.work {
            Work::End => {
                let owner = self.owner(&job.user).await?;
                // In this order: a deletion that has come since has put its own in the place, and
                // needs the names.
                if self.job(&job.user).await?.as_ref() != Some(job) {
                    return Ok(());
                }
                if let Some(owner) = owner {
                    self.end_behind(&owner).await?;
                }
                self.forget_job(job).await
            }
            Work::Remove { until } if now < until => match self.entries_if(job).await? {
                None => Ok(()),
                Some(entries) => self.remove(&job.user, &entries).await,
            },
            Work::Remove { .. } => self.remove_and_name(job).await.map(drop),
            Work::Forget => self.forget_names(job).await,
        }
    }

    pub(super) async fn forget_job(&self, job: &Job) -> Result<()> {
        let step = self.calls.delete_if(Key::job(&job.user), &job.unchanged())?;
        // Refused: a later one has taken its place.
        self.calls.transact(&[step]).await.map(drop)
    }

    async fn job(&self, user: &UserId) -> Result<Option<Job>> {
        let item = self.calls.get(&Key::job(user)).await?;
        item.map(|item| Job::read(&item)).transpose()
    }

    /// The same, as long as this is what is to be done: a user who registers anew, after somebody has
    /// taken the item of the one before away, leaves nothing of theirs to do.
    async fn entries_if(&self, job: &Job) -> Result<Option<Vec<Entry>>> {
        let entries = self.entries_behind(job).await?;
        let is_still = self.job(&job.user).await?.as_ref() == Some(job);
        Ok(is_still.then_some(entries))
    }

    async fn entries_behind(&self, job: &Job) -> Result<Vec<Entry>> {
        let mut entries = match self.owner(&job.user).await? {
            Some(owner) => self.entries(&owner).await?,
            None => self.visible_entries(&job.user).await?,
        };
        entries.retain(|entry| entry.stamp < job.barrier);
        Ok(entries)
    }

    /// Removes the sessions that `entries` name, readable or not, from everywhere but the entries.
    pub(super) async fn remove(&self, user: &UserId, entries: &[Entry]) -> Result<()> {
        for chunk in entries.chunks(CHUNK) {
            let keys = chunk.iter().map(|entry| Key::session(&entry.id)).collect();
            let items = self.calls.get_all(keys).await?;
            let mut places = Vec::new();
            let mut sessions: BTreeSet<_> =
                chunk.iter().map(|entry| Key::session(&entry.id)).collect();
            for stored in items.iter().filter_map(|item| Stored::read(item, Depth::Head).ok()) {
                if stored.session.user_id.as_ref() == Some(user) {
                    places.extend(stored.places());
                } else {
                    // Somebody else's: the entry was put there by hand.
                    sessions.remove(&stored.key());
                }
            }
            self.calls.delete_all(places).await?;
            // Last, so that whoever goes on after a crash still finds the way to the places.
            self.calls.delete_all(sessions.into_iter().collect()).await?;
        }
        Ok(())
    }

    pub(super) async fn remove_entries(&self, user: &UserId, entries: &[Entry]) -> Result<()> {
        self.calls.delete_all(entries.iter().map(|entry| entry.key(user)).collect()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_survives_the_item() {
        let user = UserId::new("ada").unwrap();
        let until = Timestamp::from_millis(7);
        let forget = Job { work: Work::Forget, ..Job::end(&user, 3) };
        for job in [Job::end(&user, 1), Job::remove(&user, 2, until), forget] {
            assert_eq!(Job::read(&job.item()).unwrap(), job);
        }
    }
}
