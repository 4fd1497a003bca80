//! The invalidation log.

use std::time::Duration;

use super::super::checks;
use super::super::harness::Deed;
use super::super::report::{Violation, ensure, expect};
use super::super::runner::Outcome;
use super::super::sample::{HOUR, NOW, at, guest, id, json, new, session, user_id};
use super::PrimaryBench;
use crate::primary::{
    CacheName, CacheRegistration, CacheScope, LogPromise, Selection, SessionChange, SweepBounds,
};
use crate::session::{Reason, Session, SessionIds};
use crate::time::Ttl;
use crate::user::{Role, UserChange};

checks! { ($) primary_log: PrimaryBench;
    "X8-G-01" a_registration_is_replaced "Registering again replaces the entry, keeping the longer TTL.",
    "X8-G-08" a_cache_that_is_gone_is_forgotten
        "A cache that was taken off the list is not listed, and the log does not wait for it.",
    "X8-G-02" every_change_is_logged_for_every_cache
        "Updates, revocations, deletions and user changes are drained by every shared cache.",
    "X8-G-03" exactly_the_named_entries_are_acknowledged
        "Acknowledging takes exactly the named entries away, from this cache only.",
    "X8-G-07" hand_typed_changes_are_logged "SQL typed by hand reaches the log.",
    "X8-G-06" dead_rows_are_swept_silently "A sweep of dead sessions writes nothing to the log.",
}

fn cache(name: &str, scope: CacheScope, seconds: u64) -> Result<CacheRegistration, Violation> {
    let ttl = Ttl::new(Duration::from_secs(seconds)).unwrap_or(Ttl::MIN);
    Ok(CacheRegistration { name: CacheName::new(name)?, scope, ttl })
}

/// Everything that `name` has not acknowledged, without repetition.
async fn pending(on: &PrimaryBench, name: &str) -> Result<SessionIds, Violation> {
    let drained = on.store.drain(&CacheName::new(name)?, 1000).await?;
    let mut ids: SessionIds =
        drained.entries.into_iter().flat_map(|entry| entry.sessions).collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// A store that says it keeps none has nothing to drain, whatever was done before.
async fn has_log(on: &PrimaryBench) -> Result<bool, Violation> {
    if on.store.promise().log != LogPromise::None {
        return Ok(true);
    }
    on.weakness.note("no log", Duration::ZERO);
    on.store.register(&cache("logless", CacheScope::Shared, 300)?).await?;
    for number in [8, 9] {
        on.store.insert(&new(guest(number)), NOW).await?;
    }
    on.store.revoke(&Selection::Ids(vec![id(9)]), Reason::Logout, NOW).await?;
    on.by_hand(&Deed::DeleteSession(id(8))).await?;
    expect(pending(on, "logless").await?, vec![])?;
    Ok(false)
}

async fn a_registration_is_replaced(on: &PrimaryBench) -> Outcome {
    on.store.register(&cache("a", CacheScope::Process, 5)?).await?;
    on.second.register(&cache("b", CacheScope::Shared, 300)?).await?;
    on.store.register(&cache("a", CacheScope::Shared, 3)?).await?;
    let mut all = on.second.caches().await?;
    all.sort_by(|one, other| one.name.cmp(&other.name));
    let wanted = vec![cache("a", CacheScope::Shared, 5)?, cache("b", CacheScope::Shared, 300)?];
    expect(all, wanted)
}

async fn a_cache_that_is_gone_is_forgotten(on: &PrimaryBench) -> Outcome {
    for name in ["a", "b"] {
        on.store.register(&cache(name, CacheScope::Shared, 300)?).await?;
    }
    on.log_in(1).await?;
    on.store.revoke(&Selection::Ids(vec![id(1)]), Reason::Logout, NOW).await?;
    on.second.unregister(&CacheName::new("a")?).await?;
    on.store.unregister(&CacheName::new("never")?).await?;
    expect(on.store.caches().await?, vec![cache("b", CacheScope::Shared, 300)?])?;
    if !has_log(on).await? {
        return Ok(());
    }
    expect(pending(on, "b").await?, vec![id(1)])?;
    on.store.unregister(&CacheName::new("b")?).await?;
    // Nobody is left who would need the entry, and a newcomer never saw the session.
    on.store.register(&cache("c", CacheScope::Shared, 300)?).await?;
    expect(pending(on, "c").await?, vec![])
}

async fn every_change_is_logged_for_every_cache(on: &PrimaryBench) -> Outcome {
    if !has_log(on).await? {
        return Ok(());
    }
    for name in ["a", "b"] {
        on.store.register(&cache(name, CacheScope::Shared, 300)?).await?;
    }
    on.log_in(3).await?;
    expect(pending(on, "a").await?, vec![])?;
    let change = SessionChange { data: Some(json("1")?), ..SessionChange::default() };
    on.store.update(&id(1), 1, &change, NOW).await?;
    on.second.revoke(&Selection::Ids(vec![id(2)]), Reason::Logout, NOW).await?;
    for name in ["a", "b"] {
        expect(pending(on, name).await?, vec![id(1), id(2)])?;
    }
    let change = UserChange { role: Some(Role::new("admin")?), ..UserChange::default() };
    on.store.update_user(&user_id(1)?, 1, &change).await?;
    expect(pending(on, "a").await?, vec![id(1), id(2), id(3)])?;
    on.store.touch(&[super::super::sample::touch(3, 1, 2 * HOUR)]).await?;
    on.store.delete_user(&user_id(1)?, NOW).await?;
    expect(pending(on, "b").await?, vec![id(1), id(2), id(3)])
}

async fn exactly_the_named_entries_are_acknowledged(on: &PrimaryBench) -> Outcome {
    if !has_log(on).await? {
        return Ok(());
    }
    let (a, b) = (CacheName::new("a")?, CacheName::new("b")?);
    for name in ["a", "b"] {
        on.store.register(&cache(name, CacheScope::Shared, 300)?).await?;
    }
    on.log_in(3).await?;
    for number in 1..=3 {
        on.store.revoke(&Selection::Ids(vec![id(number)]), Reason::Logout, NOW).await?;
    }
    let entries = on.store.drain(&a, 100).await?.entries;
    expect(entries.len(), 3)?;
    // The youngest first: whatever is older stays to be drained.
    on.second.acknowledge(&a, &[entries[2].id]).await?;
    expect(pending(on, "a").await?, vec![id(1), id(2)])?;
    expect(pending(on, "b").await?, vec![id(1), id(2), id(3)])?;
    let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
    on.store.acknowledge(&a, &ids).await?;
    on.store.acknowledge(&b, &ids).await?;
    on.store.acknowledge(&b, &ids).await?;
    expect((pending(on, "a").await?, pending(on, "b").await?), (vec![], vec![]))?;
    let short = on.store.drain(&a, 1).await?;
    ensure(!short.more, "an empty log claims to have more")
}

async fn hand_typed_changes_are_logged(on: &PrimaryBench) -> Outcome {
    if !has_log(on).await? {
        return Ok(());
    }
    on.store.register(&cache("a", CacheScope::Shared, 300)?).await?;
    on.log_in(3).await?;
    if !on.by_hand(&Deed::DeleteSession(id(1))).await? {
        return Ok(());
    }
    expect(pending(on, "a").await?, vec![id(1)])?;
    on.by_hand(&Deed::SetRole(user_id(1)?, "admin")).await?;
    expect(pending(on, "a").await?, vec![id(1), id(2), id(3)])?;
    let entries = on.store.drain(&CacheName::new("a")?, 100).await?.entries;
    let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
    on.store.acknowledge(&CacheName::new("a")?, &ids).await?;
    on.by_hand(&Deed::DeleteUser(user_id(1)?)).await?;
    expect(pending(on, "a").await?, vec![id(2), id(3)])?;
    expect(on.store.find(&id(2)).await?.snapshot, None)
}

async fn dead_rows_are_swept_silently(on: &PrimaryBench) -> Outcome {
    if !has_log(on).await? {
        return Ok(());
    }
    on.store.register(&cache("a", CacheScope::Shared, 300)?).await?;
    on.register(1).await?;
    on.store.insert(&new(Session { expires_at: at(1), ..session(1, 1)? }), NOW).await?;
    let bounds = SweepBounds { expired_before: at(5), revoked_before: NOW };
    expect(on.store.sweep(&bounds, 10).await?.removed, 1)?;
    expect(pending(on, "a").await?, vec![])?;
    // The silence ends with the sweep.
    on.store.insert(&new(session(2, 1)?), NOW).await?;
    on.store.delete_user(&user_id(1)?, NOW).await?;
    expect(pending(on, "a").await?, vec![id(2)])
}
