//! For how long a location may accept a session after its end: what a clock ahead and a clock behind add.

use std::sync::Arc;
use std::time::Duration;

use session_store_core::conformance::{Op, TestClock, Violation};
use session_store_core::{Reason, Visibility};

use super::locations::{ENTRY, NOW, SKEW, World, ensure};

/// How a bound is tried: by the entry of a location, read in another one.
#[derive(Clone, Copy)]
pub(super) struct Trial {
    /// How far the writer's clock is ahead.
    ahead: Duration,
    /// How far the reader's clock is late.
    late: Duration,
    is_time_told: bool,
    is_removal_lost: bool,
    /// For how long the reader accepts what was put, by the true time.
    served: Duration,
}

pub(super) const REMOVED: Trial = Trial {
    ahead: Duration::ZERO,
    late: SKEW,
    is_time_told: true,
    is_removal_lost: false,
    served: Duration::from_secs(90),
};
pub(super) const LOST: Trial = Trial { is_removal_lost: true, ..REMOVED };
pub(super) const AHEAD: Trial = Trial { ahead: SKEW, ..LOST };
/// Nothing measures the clocks then; they differ from each other by no more than is declared.
pub(super) const TIMELESS: Trial = Trial { is_time_told: false, late: Duration::ZERO, ..AHEAD };

impl World<'_> {
    /// Returns the bound that was kept.
    pub(super) async fn bounded(&self, trial: Trial) -> std::result::Result<Duration, Violation> {
        let told = trial.is_time_told.then(|| Arc::clone(&self.time));
        let near = self.place(TestClock::at(NOW.plus(trial.ahead)), told.clone())?;
        let far = self.place(TestClock::at(NOW.minus(trial.late)), told)?;
        let pass = |length| {
            self.time.advance(length);
            near.clock.advance(length);
            far.clock.advance(length);
        };
        let token = near.log_in(None).await?;
        ensure(near.accepts(&token).await?, "a new session is not accepted")?;
        // Nobody believes an entry from the future.
        let wait = trial.ahead + trial.late;
        if !trial.is_removal_lost {
            pass(wait);
            ensure(far.accepts(&token).await?, "a new session is not accepted elsewhere")?;
        }
        let request = near.request().await?;
        if trial.is_removal_lost {
            request.cache.fail(Op::Remove);
        }
        let revoke = request.app.admin_revoke(token.id(), Reason::Admin);
        let done = request.run(revoke).await?;
        let declared = ENTRY + SKEW;
        ensure(done.visibility == Visibility::Within(declared), "another bound than declared")?;
        if trial.is_removal_lost {
            pass(wait);
        }
        // The edge of the other location has it still, and it is believed: or this would show nothing.
        ensure(far.accepts(&token).await?, "the old entry is not served")?;
        let moment = Duration::from_millis(1);
        pass(trial.served.saturating_sub(wait + moment));
        ensure(far.accepts(&token).await?, "it is not served for as long as it may be")?;
        pass(moment);
        for location in [&near, &far] {
            ensure(!location.accepts(&token).await?, "accepted after the bound")?;
        }
        let since =
            if trial.is_removal_lost { trial.served } else { trial.served.saturating_sub(wait) };
        ensure(since <= declared, "the bound is not the declared one")?;
        Ok(declared)
    }
}
