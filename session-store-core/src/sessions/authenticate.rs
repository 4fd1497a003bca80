//! From a token to "who is this?".

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Sessions;
use super::judge::{Presented, Refusal, judge};
use crate::error::{Error, ErrorKind, Result};
use crate::layered::{Answer, Source};
use crate::observer::Event;
use crate::primary::{PrimaryStore, SessionChange};
use crate::secondary::{Record, SecondaryStore};
use crate::session::{Previous, Session, Snapshot};
use crate::time::Timestamp;
use crate::token::{SessionId, Token};
use crate::user::Projection;

/// Why there is no verdict.
#[derive(Debug)]
struct WrongClock;

impl fmt::Display for WrongClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the verdict depends on the time, and this host's clock differs from the server's by more \
             than max_skew",
        )
    }
}

impl std::error::Error for WrongClock {}

/// The answer to a presented token.
#[derive(Clone, Debug)]
#[must_use]
pub enum Authentication {
    /// Accepted.
    Live(Box<Live>),
    /// Not accepted; the reason is for logs.
    Absent(Refusal),
    /// Nobody knows: the stores can't be asked. Not a logout.
    Unavailable(Error),
}

impl Authentication {
    /// The session, if the token was accepted.
    pub fn live(self) -> Option<Live> {
        match self {
            Self::Live(live) => Some(*live),
            Self::Absent(_) | Self::Unavailable(_) => None,
        }
    }
}

/// An accepted token.
#[derive(Clone, Debug)]
pub struct Live {
    /// The session and its user.
    pub snapshot: Arc<Snapshot>,
    /// Where the answer came from.
    pub source: Source,
    /// How long it took.
    pub elapsed: Duration,
    /// Which secret was presented.
    pub presented: Presented,
    /// Whether the secret is old enough to be rotated.
    pub rotation_due: bool,
    /// Whether the cache was in trouble and the primary answered instead.
    pub degraded: bool,
    pub(super) seen: Option<Record>,
}

impl Live {
    /// The session's public id.
    pub fn id(&self) -> SessionId {
        self.snapshot.session.id
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.snapshot.session
    }

    /// The user; `None` for a guest.
    pub fn user(&self) -> Option<&Projection> {
        self.snapshot.user.as_ref()
    }
}

/// What a lookup under a token came to.
pub(super) struct Checked {
    pub(super) answer: Answer,
    pub(super) verdict: Result<Presented, Refusal>,
}

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Sessions<P, S> {
    /// Who presented `token`?
    ///
    /// # Contract
    /// - The token of an active session is accepted, from either store \[L-01 L-02\].
    /// - A missing, expired or revoked session, or another secret, is `Absent`
    ///   \[P-10 P-11 P-13 X8-Y-02\].
    /// - A token whose id can't exist is refused without asking a store \[P-08\].
    /// - A stored hash presented as a secret is refused \[T-03\].
    /// - Where this host's clock is further from the server's than `max_skew`, and the verdict of a read
    ///   depends on which of them is right, it is `Unavailable`: a wrong clock ends no session that lives,
    ///   and prolongs none that has ended \[P-96\].
    /// - During the grace after a rotation the previous secret is accepted, and refused from then on
    ///   \[P-46\].
    /// - Stores that can't answer are `Unavailable`, never `Absent` \[L-15\].
    /// - The answer says when another secret is due, and not while one settles \[X8-Y-16\].
    /// - A clock that is set back logs nobody out and makes nothing immortal \[P-97\].
    /// - The first use of a new secret, however late, starts the grace of the old one, during which
    ///   no other is due; if that could not be written, the next use does \[X8-Y-20 X8-Y-21\].
    pub async fn authenticate(&self, token: &Token) -> Authentication {
        self.authenticate_with(token, false).await
    }

    /// The same for the text that a client sent.
    ///
    /// # Contract
    /// - What is no token is refused without asking a store \[P-08 K6-N04\].
    pub async fn authenticate_text(&self, text: &str) -> Authentication {
        match Token::parse(text) {
            Some(token) => self.authenticate(&token).await,
            None => Authentication::Absent(Refusal::Malformed),
        }
    }

    /// The same, from the primary itself: for steps that must not trust any cache.
    ///
    /// # Contract
    /// - The answer is that of the primary at some moment after the call \[X8-L-14\].
    pub async fn authenticate_fresh(&self, token: &Token) -> Authentication {
        self.authenticate_with(token, true).await
    }

    async fn authenticate_with(&self, token: &Token, fresh: bool) -> Authentication {
        let began = self.host().clock.monotonic();
        let now = self.host().now();
        match self.check(token, now, fresh).await {
            Ok(checked) => self.conclude(token, checked, (now, began)),
            Err(error) => Authentication::Unavailable(error),
        }
    }

    /// Looks the session up and judges the secret, without acting on the verdict.
    pub(super) async fn check(
        &self,
        token: &Token,
        now: Timestamp,
        fresh: bool,
    ) -> Result<Checked> {
        let (id, hash) = (token.id(), token.secret_hash());
        let store = self.store();
        let grace = self.policy().rotation_grace;
        if !id.is_plausible(now, store.config().max_skew) {
            let (source, verdict) = (Source::Near, Err(Refusal::Implausible));
            let answer = Answer { snapshot: None, source, seen: None, degraded: false };
            return Ok(Checked { answer, verdict });
        }
        let answer = if fresh {
            store.find_fresh(&id).await?
        } else {
            let accept = |found: Option<&Snapshot>| judge(found, &hash, now, grace).is_ok();
            store.lookup(&id, now, &accept).await?
        };
        let found = answer.snapshot.as_deref();
        let verdict = judge(found, &hash, now, grace);
        // An entry of a cache was put, and ends, by the server's time, so a hit asks nobody.
        let was_read = matches!(answer.source, Source::Primary | Source::Joined);
        if was_read
            && let Some(moment) = store.by_the_server(now)
            && judge(found, &hash, moment, grace) != verdict
        {
            return Err(Error::new(ErrorKind::Unavailable, "core").caused_by(WrongClock));
        }
        Ok(Checked { answer, verdict })
    }

    fn conclude(
        &self,
        token: &Token,
        checked: Checked,
        (now, began): (Timestamp, Duration),
    ) -> Authentication {
        let Checked { answer, verdict } = checked;
        let id = token.id();
        if answer.degraded {
            self.tell(&Event::CacheBypassed { id });
        }
        let presented = match (verdict, &answer.snapshot) {
            (Ok(presented), Some(_)) => presented,
            (Err(refusal), found) => {
                self.tell_refusal(id, refusal, found.as_deref());
                return Authentication::Absent(refusal);
            }
            (Ok(_), None) => return Authentication::Absent(Refusal::Unknown),
        };
        let Some(snapshot) = answer.snapshot else {
            return Authentication::Absent(Refusal::Unknown);
        };
        self.tell(&Event::Authenticated { id, source: answer.source });
        let rotation_due = self.is_rotation_due(&snapshot.session, presented, now);
        if !self.shared.is_read_only {
            self.note_use(&snapshot.session, now);
            if presented == Presented::Current {
                self.start_grace(&snapshot.session, now);
            }
        }
        Authentication::Live(Box::new(Live {
            snapshot,
            source: answer.source,
            elapsed: self.host().clock.monotonic().saturating_sub(began),
            presented,
            rotation_due,
            degraded: answer.degraded,
            seen: answer.seen,
        }))
    }

    fn tell_refusal(&self, id: SessionId, refusal: Refusal, found: Option<&Snapshot>) {
        match refusal {
            Refusal::Replaced { is_suspicious: true } => {
                let user = found.and_then(|snapshot| snapshot.session.user_id.as_ref());
                self.tell(&Event::TheftSuspected { id, user });
            }
            Refusal::Expired => self.tell(&Event::Expired { id }),
            _ => {}
        }
    }

    /// The first use of a new secret ends the time of the one before, beside the request.
    fn start_grace(&self, session: &Session, now: Timestamp) {
        let Some(Previous { until: None, .. }) = session.previous else {
            return;
        };
        if !self.shared.starting.lock().insert(session.id) {
            return;
        }
        let (this, id, version) = (self.clone(), session.id, session.version);
        // Released also when the task is lost.
        let claim = Starting(Arc::clone(&self.shared.starting), id);
        let until = now.plus(self.policy().rotation_grace);
        self.host().runtime.spawn(Box::pin(async move {
            let _claim = claim;
            let change = SessionChange { previous_until: Some(until), ..SessionChange::default() };
            if let Err(error) = this.store().update((id, version), change, None, now).await {
                // The next use of the new secret tries again.
                tracing::warn!(session.id = %id, %error, "grace of a rotation not started");
            }
        }));
    }
}

/// Sessions whose grace is being started.
pub(super) type Graces = Arc<Mutex<HashSet<SessionId>>>;

struct Starting(Graces, SessionId);

impl Drop for Starting {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}
