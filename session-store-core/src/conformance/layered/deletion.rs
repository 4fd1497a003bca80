//! Users who are deleted, and whoever takes their id.

use std::time::Duration;

use futures_util::future::join;

use super::super::checks;
use super::super::report::{Violation, ensure, expect};
use super::super::runner::Outcome;
use super::super::sample::user_id;
use super::super::wire::{Op, Point};
use super::{DONE, PairBench};
use crate::layered::Visibility;
use crate::primary::LogPromise;
use crate::user::User;

checks! { ($) layered_deletion: PairBench;
    "K6-A01 L-26 L-36" a_deletion_takes_every_login_along
        "After a deletion returned, no session of the user is accepted, not one logged in meanwhile.",
    "K6-A03" nobody_inherits_an_entry "A user created again under a deleted id inherits no session.",
    "X8-L-41" a_slow_deletion_lets_nobody_inherit
        "An entry that was put while a deletion waited logs nobody into a later account.",
}

async fn a_deletion_takes_every_login_along(on: &PairBench) -> Outcome {
    let (one, other) = (on.node()?, on.node()?);
    let before = on.log_in_warm(&one).await?;
    let mut held = one.db.hold(Op::Insert, Point::After);
    let login = on.log_in(&one);
    let deletion = async {
        held.reached().await;
        let done = other.app.delete_user(&user_id(1)?).await?;
        held.release();
        Ok::<_, Violation>(done)
    };
    let (login, deleted) = join(login, deletion).await;
    let Some(done) = deleted? else {
        return Err(Violation::new("nobody was deleted"));
    };
    expect((done.count, done.visibility), (2, Visibility::Immediate))?;
    for node in [&one, &other] {
        ensure(!node.accepts(&before).await, "a deleted user's session was accepted")?;
        if let Ok(login) = &login {
            ensure(!node.accepts(&login.token).await, "a login survived the deletion")?;
        }
    }
    // Nobody is left, and a log shows that nothing of them is.
    let has_log = on.primary.promise().log != LogPromise::None;
    expect(other.app.delete_user(&user_id(1)?).await?.is_none(), has_log)
}

async fn nobody_inherits_an_entry(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in_warm(&node).await?;
    node.cache.fail(Op::Remove);
    let Some(done) = node.app.delete_user(&user_id(1)?).await? else {
        return Err(Violation::new("nobody was deleted"));
    };
    let bound = done.visibility.bound();
    ensure(bound > Duration::ZERO, "a failed removal was immediate")?;
    let again = User::new(user_id(1)?, node.app.now());
    ensure(node.app.register_user(&again).await.is_err(), "the id was free at once")?;
    on.runtime.advance(bound);
    node.app.register_user(&again).await?;
    ensure(!node.accepts(&token).await, "an old entry logged into a new account")
}

async fn a_slow_deletion_lets_nobody_inherit(on: &PairBench) -> Outcome {
    let (node, reader) = (on.node()?, on.node()?);
    let bound = node.app.store().guarantee().cache_failure;
    // For a lock, or its machine stands still: the clock goes on, or jumps when it is awake again.
    for (wait, jumps) in [(bound, false), (Duration::from_hours(2), false), (bound, true)] {
        let token = on.log_in_warm(&node).await?;
        let mut held = node.db.hold(Op::DeleteUser, Point::Before);
        node.cache.fail(Op::Remove);
        let id = user_id(1)?;
        let deletion = node.app.delete_user(&id);
        let waiting = async {
            held.reached().await;
            if jumps {
                on.clock.jump(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
            } else {
                on.runtime.advance(wait);
            }
            on.evict(token.id()).await?;
            let is_accepted = reader.accepts(&token).await;
            on.runtime.settle_but(1).await;
            held.release();
            ensure(is_accepted, "not accepted before it was deleted")
        };
        let (done, waited) = join(deletion, waiting).await;
        waited?;
        let Some(done) = done? else { return Err(Violation::new("nobody was deleted")) };
        let again = User::new(user_id(1)?, node.app.now());
        let (most, moment) = (done.visibility.bound(), Duration::from_millis(1));
        on.runtime.advance(most.saturating_sub(moment));
        let early = reader.app.register_user(&again).await;
        ensure(early.is_err(), "the id was free while an entry could be left")?;
        on.runtime.advance(moment);
        reader.app.register_user(&again).await?;
        ensure(!reader.accepts(&token).await, "an old entry logged into a new account")?;
    }
    DONE
}
