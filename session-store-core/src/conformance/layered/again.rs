//! Calls that are repeated because the first one failed, or said that it might take a while.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};

use super::super::checks;
use super::super::report::{Violation, ensure, expect};
use super::super::runner::Outcome;
use super::super::sample::user_id;
use super::super::wire::Op;
use super::{DONE, Node, PairBench};
use crate::layered::{LayeredConfig, OnCacheFailure, Visibility};
use crate::policy::Policy;
use crate::primary::LogPromise;
use crate::session::{Reason, SessionLimit};
use crate::sessions::Login;
use crate::token::Token;
use crate::user::{Role, UserChange};

const SOON: Duration = Duration::from_millis(100);

checks! { ($) layered_again: PairBench;
    "X8-L-17" a_repeated_revocation_holds
        "A repeated revocation or deletion is Immediate only if what the first one ended is refused.",
    "X8-L-20" a_repeated_change_is_seen
        "A change or a login whose reply was lost leaves nothing of before once it is repeated.",
    "X8-L-21" waiting_proves_something
        "A wait for the log is ended neither by one that says nothing nor by one that still says it.",
    "X8-L-30" a_wait_ends_with_the_removal
        "Whoever waits for the log goes on as soon as another node has removed the entry.",
}

/// Ways to end a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Everyone,
    AllOf,
    DeleteUser,
}

/// Whether the deed was done, and then how far.
async fn end(node: &Node, deed: Deed) -> Result<Option<Visibility>, Violation> {
    let user = user_id(1)?;
    let done = match deed {
        Deed::Everyone => node.app.revoke_everyone(9, Reason::Admin).await.ok(),
        Deed::AllOf => node.app.revoke_all(&user, Reason::Admin).await.ok(),
        Deed::DeleteUser => match node.app.delete_user(&user).await {
            // As good as a healthy removal.
            Ok(None) => return Ok(Some(node.app.store().guarantee().healthy)),
            Ok(done) => done,
            Err(_) => None,
        },
    };
    Ok(done.map(|done| done.visibility))
}

async fn a_repeated_revocation_holds(on: &PairBench) -> Outcome {
    let deeds = [Deed::Everyone, Deed::AllOf, Deed::DeleteUser];
    for (is_logless, loses_reply) in [(false, false), (false, true), (true, false), (true, true)] {
        for first in deeds {
            for second in [first, Deed::AllOf] {
                let node = on.node()?;
                node.db.set_logless(is_logless);
                let token = on.log_in_warm(&node).await?;
                if loses_reply {
                    let op = if first == Deed::DeleteUser { Op::DeleteUser } else { Op::Revoke };
                    node.db.lose_reply(op);
                } else {
                    node.cache.fail(Op::Remove);
                }
                let before = end(&node, first).await?;
                ensure(before != Some(Visibility::Immediate), "a failure was Immediate")?;
                let done = end(&node, second).await?;
                let is_live = node.accepts(&token).await;
                let is_wrong = done == Some(Visibility::Immediate) && is_live;
                ensure(!is_wrong, "accepted after a repetition that was Immediate")?;
                // The user's id rests, for an hour more if a reply was lost; the next round needs it.
                on.runtime.advance(Duration::from_hours(2));
            }
        }
    }
    DONE
}

async fn a_repeated_change_is_seen(on: &PairBench) -> Outcome {
    let limit = Some(SessionLimit { max: 1, evict: true });
    let policy = Policy { max_sessions: limit, ..Policy::default() };
    let node = on.node_with(PairBench::config(), policy)?;
    let first = on.log_in_warm(&node).await?;
    let role = async |token: &Token| {
        let live = node.app.authenticate(token).await.live();
        live.and_then(|live| live.user().map(|user| user.role.as_str().to_owned()))
    };
    let change = UserChange { role: Some(Role::new("banned")?), ..UserChange::default() };
    node.db.lose_reply(Op::UpdateUser);
    let _ = node.app.update_user(&user_id(1)?, 1, change.clone()).await;
    let _ = node.app.update_user(&user_id(1)?, 1, change).await?;
    ensure(role(&first).await.as_deref() == Some("banned"), "the old role is shown")?;
    on.runtime.settle().await;
    on.runtime.advance(Duration::from_secs(1));
    let Some(account) = node.app.find_user(&user_id(1)?).await? else {
        return ensure(false, "no user");
    };
    node.db.lose_reply(Op::Insert);
    ensure(node.app.create(Login::of(&account)).await.is_err(), "no reply was lost")?;
    on.runtime.advance(Duration::from_secs(1));
    node.app.create(Login::of(&account)).await?;
    ensure(!node.accepts(&first).await, "a session that was evicted before is accepted")
}

async fn waiting_proves_something(on: &PairBench) -> Outcome {
    let on_cache_failure = OnCacheFailure::WaitDrain(Duration::from_secs(1));
    let config = LayeredConfig { on_cache_failure, ..PairBench::config() };
    for is_acknowledged in [true, false] {
        let node = on.node_with(config.clone(), Policy::default())?;
        let token = on.log_in_warm(&node).await?;
        if is_acknowledged {
            end_elsewhere(on, &token).await?;
        }
        for _ in 0..50 {
            node.cache.fail(Op::Remove);
        }
        let time = async {
            loop {
                on.runtime.settle().await;
                on.runtime.advance(SOON);
            }
        };
        let revoke = node.app.admin_revoke(token.id(), Reason::Admin);
        let done = match select(pin!(revoke), pin!(time)).await {
            Either::Left((done, _)) => done?,
            Either::Right((never, _)) => never,
        };
        let is_wrong = done.visibility == Visibility::Immediate && node.accepts(&token).await;
        ensure(!is_wrong, "accepted after a wait that proved nothing")?;
    }
    DONE
}

/// Another node ends the session, and acknowledges an entry of the log that it never removed.
async fn end_elsewhere(on: &PairBench, token: &Token) -> Outcome {
    let other = on.node()?;
    other.cache.fail(Op::Remove);
    let _ = other.app.admin_revoke(token.id(), Reason::Admin).await?;
    for cache in on.primary.caches().await? {
        let entries = on.primary.drain(&cache.name, 9).await?.entries;
        let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
        on.primary.acknowledge(&cache.name, &ids).await?;
    }
    DONE
}

async fn a_wait_ends_with_the_removal(on: &PairBench) -> Outcome {
    let patience = Duration::from_secs(5);
    let on_cache_failure = OnCacheFailure::WaitDrain(patience);
    let config = LayeredConfig { on_cache_failure, ..PairBench::config() };
    let (node, other) = (on.node_with(config, Policy::default())?, on.node()?);
    let token = on.log_in_warm(&node).await?;
    // This node does not reach the cache, and the other one does.
    for _ in 0..200 {
        node.cache.fail(Op::Remove);
    }
    let began = node.app.now();
    let time = async {
        for _ in 0..5 {
            on.runtime.settle().await;
            on.runtime.advance(SOON);
        }
        on.runtime.settle().await;
        other.app.store().drain().await?;
        loop {
            on.runtime.advance(SOON);
            on.runtime.settle().await;
        }
    };
    let revoke = node.app.admin_revoke(token.id(), Reason::Admin);
    let done = match select(pin!(revoke), pin!(time)).await {
        Either::Left((done, _)) => done?,
        Either::Right((end, _)) => return end,
    };
    // Without a log nobody is told.
    let has_log = on.primary.promise().log != LogPromise::None;
    expect(done.visibility == Visibility::Immediate, has_log)?;
    expect(node.app.now().since(began) < patience, has_log)?;
    ensure(!has_log || !node.accepts(&token).await, "accepted after Immediate")
}
