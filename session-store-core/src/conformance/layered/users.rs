//! Users: revoke-all, changes, and the log.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::super::checks;
use super::super::harness::Deed;
use super::super::report::{Violation, ensure, expect};
use super::super::runner::Outcome;
use super::super::sample::{NOW, guest, new, user_id};
use super::super::wire::{Op, Wire};
use super::{DONE, Node, PairBench};
use crate::layered::{LayeredConfig, NoCache, Topology, Visibility};
use crate::policy::Policy;
use crate::primary::{CacheName, CacheRegistration, CacheScope, LogPromise, Selection};
use crate::session::{Metadata, Reason, SessionLimit};
use crate::sessions::{Login, Sessions};
use crate::time::Ttl;
use crate::user::{Role, UserChange};

checks! { ($) layered_users: PairBench;
    "K6-A02 L-25 X8-L-09" revoke_all_reaches_every_entry
        "Revoke-all removes the entries of all sessions on all nodes, in batches.",
    "L-23" every_change_shows "Limit, user changes, deletion: the next read anywhere sees the truth.",
    "X8-L-28" a_promotion_ends_what_it_evicts
        "What a promotion ends for the limit is refused everywhere, also when its reply was lost.",
    "K6-A05 L-27" hand_typed_changes_reach_the_cache
        "A change typed by hand reaches the cache by a drain.",
    "X8-G-04" others_are_reckoned_with "A cache that another handle registered bounds a revocation.",
    "X8-G-10" a_cache_is_known_as_it_is
        "A cache is registered also where another one is, and again when its entries live longer.",
    "X8-G-12" near_caches_of_others_are_reckoned_with
        "A near cache that only other nodes have bounds a logout as long as it is registered.",
    "X8-G-13" an_unknown_list_is_reckoned_by_the_last
        "While nobody can say which caches there are, those known before count, and no user is deleted.",
    "X8-G-09" an_unknown_cache_is_not_used
        "A cache that could not be registered is not asked; one that is known needs no writing.",
    "X8-G-11" a_drain_empties_the_log "A drain ends when nothing is left, however long the log is.",
    "X8-G-05" a_failed_drain_acknowledges_nothing "What a drain could not remove is drained again.",
    "L-58" lists_come_from_the_truth "Lists and counts ask the primary and never the cache.",
}

async fn revoke_all_reaches_every_entry(on: &PairBench) -> Outcome {
    let nodes = [on.node()?, on.node()?, on.node()?];
    let mut tokens = Vec::new();
    for number in 0..120 {
        tokens.push(on.log_in_warm(&nodes[number % 3]).await?);
    }
    nodes[0].cache.reset();
    let done = nodes[0].app.revoke_all(&user_id(1)?, Reason::LogoutEverywhere).await?;
    expect((done.count, done.visibility), (120, Visibility::Immediate))?;
    let batch = on.secondary.promise().max_batch.clamp(1, 1000);
    expect(nodes[0].cache.count(Op::Remove), 120usize.div_ceil(batch))?;
    // What is named need not be looked for in the log.
    expect(nodes[0].db.count(Op::Drain), 0)?;
    for (number, token) in tokens.iter().enumerate() {
        ensure(!nodes[(number + 1) % 3].accepts(token).await, "accepted after a revoke-all")?;
    }
    DONE
}

async fn every_change_shows(on: &PairBench) -> Outcome {
    let policy = crate::policy::Policy {
        max_sessions: Some(SessionLimit { max: 1, evict: true }),
        ..Default::default()
    };
    let (one, other) = (on.node_with(PairBench::config(), policy)?, on.node()?);
    let first = on.log_in_warm(&one).await?;
    let second = on.log_in(&one).await?;
    expect((second.evicted, second.visibility), (vec![first.id()], Visibility::Immediate))?;
    ensure(!other.accepts(&first).await, "an evicted session was accepted")?;
    let token = second.token;
    ensure(other.accepts(&token).await, "not accepted")?;
    on.runtime.settle().await;
    let change = UserChange { role: Some(Role::new("admin")?), ..UserChange::default() };
    let done = one.app.update_user(&user_id(1)?, 1, change).await?;
    expect(done.visibility, Visibility::Immediate)?;
    let live = other.app.authenticate(&token).await.live();
    let role = live.and_then(|live| live.user().map(|user| user.role.as_str().to_owned()));
    expect(role.as_deref(), Some("admin"))
}

async fn a_promotion_ends_what_it_evicts(on: &PairBench) -> Outcome {
    let limit = Some(SessionLimit { max: 1, evict: true });
    let policy = crate::policy::Policy { max_sessions: limit, ..Default::default() };
    let (one, other) = (on.node_with(PairBench::config(), policy)?, on.node()?);
    for loses_reply in [false, true] {
        let first = on.log_in_warm(&one).await?;
        let data = crate::json::Json::default();
        let guest = one.app.create_guest(Metadata::default(), data).await?.token;
        let Some(account) = one.app.find_user(&user_id(1)?).await? else {
            return ensure(false, "no user");
        };
        if loses_reply {
            one.db.lose_reply(Op::Update);
        }
        let promoted = one.app.promote(&guest, Login::of(&account)).await;
        expect(promoted.is_err(), loses_reply)?;
        let stored = on.primary.find(&first.id()).await?.snapshot;
        ensure(
            stored.is_some_and(|stored| stored.session.revoked.is_some()),
            "nobody was evicted",
        )?;
        ensure(!other.accepts(&first).await, "a session that was evicted is accepted")?;
        on.runtime.advance(Duration::from_secs(1));
    }
    DONE
}

async fn hand_typed_changes_reach_the_cache(on: &PairBench) -> Outcome {
    let node = on.node()?;
    node.app.store().register().await?;
    let (one, two) = (on.log_in_warm(&node).await?, on.log_in_warm(&node).await?);
    if !on.by_hand(&Deed::DeleteSession(one.id())).await? {
        return DONE;
    }
    ensure(reached(on, &node).await? > 0, "nothing to drain")?;
    ensure(!node.accepts(&one).await, "a session deleted by hand was accepted")?;
    on.by_hand(&Deed::SetRole(user_id(1)?, "admin")).await?;
    reached(on, &node).await?;
    let live = node.app.authenticate(&two).await.live();
    let role = live.and_then(|live| live.user().map(|user| user.role.as_str().to_owned()));
    expect(role.as_deref(), Some("admin"))?;
    on.runtime.settle().await;
    on.by_hand(&Deed::DeleteUser(user_id(1)?)).await?;
    reached(on, &node).await?;
    ensure(!node.accepts(&two).await, "a user deleted by hand was accepted")
}

/// Lets the cache learn what was done by hand: from the log, or where there is none by the end of its
/// entries. How many entries of the log there were, or one.
async fn reached(on: &PairBench, node: &Node) -> Result<u64, Violation> {
    if on.primary.promise().log != LogPromise::None {
        return Ok(node.app.store().drain().await?);
    }
    let bound = node.app.store().guarantee().cache_failure;
    on.weakness.note("no log", bound);
    on.runtime.advance(bound);
    Ok(1)
}

async fn others_are_reckoned_with(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in_warm(&node).await?;
    let bound = Duration::from_secs(77);
    let other = CacheRegistration {
        name: CacheName::new("another")?,
        scope: CacheScope::Process,
        ttl: Ttl::new(bound).unwrap_or(Ttl::MIN),
    };
    on.primary.register(&other).await?;
    let done = node.app.admin_revoke(token.id(), Reason::Admin).await?;
    expect(done.visibility, Visibility::Within(bound))?;
    let many = LayeredConfig { topology: Topology::ManyProcesses, ..PairBench::config() };
    let lonely = on.node_with(many.clone(), Policy::default())?;
    let guarantee = lonely.app.store().guarantee();
    let is_shared = on.secondary.promise().scope == CacheScope::Shared;
    expect(guarantee.healthy == Visibility::Immediate, is_shared)?;
    // A handle without a cache, of the same name, knows the bounds of all others.
    on.primary.unregister(&other.name).await?;
    let (db, cache) = (Wire::default(), Wire::default());
    let bare = on.layered_over(Arc::new(NoCache::new()), many, (&db, &cache), on.host())?;
    let bare = Sessions::new(bare, Policy::default())?;
    let token = on.log_in_warm(&node).await?;
    let known = on.primary.caches().await?;
    let done = bare.admin_revoke(token.id(), Reason::Admin).await?;
    bare.store().register().await?;
    expect(on.primary.caches().await?, known)?;
    let is_wrong = done.visibility == Visibility::Immediate && node.accepts(&token).await;
    ensure(!is_wrong, "accepted after a handle without a cache said Immediate")
}

async fn a_cache_is_known_as_it_is(on: &PairBench) -> Outcome {
    let name = CacheName::new("second")?;
    let minutes = |minutes| Ttl::new(Duration::from_mins(minutes));
    let plain = PairBench::config();
    let long = LayeredConfig { cache_ttl: minutes(10), ..plain.clone() };
    let second = LayeredConfig { cache_name: name, cache_ttl: minutes(1), ..plain.clone() };
    let (mut known, mut owns) = (Vec::new(), Vec::new());
    for (config, caches) in [(plain.clone(), 1), (long, 1), (second, 2), (plain, 2)] {
        let node = on.node_with(config, Policy::default())?;
        node.app.store().register().await?;
        let own = node.app.store().guarantee().cache_failure;
        known = on.primary.caches().await?;
        expect(known.len(), caches)?;
        let is_reckoned_with = known.iter().any(|cache| cache.ttl.as_duration() >= own);
        ensure(is_reckoned_with, "a cache is registered with a shorter bound than its own")?;
        owns.push(own);
    }
    known.sort_by_key(|cache| cache.ttl);
    let bounds: Vec<_> = known.iter().map(|cache| cache.ttl.as_duration()).collect();
    expect(bounds, vec![owns[2], owns[1]])?;
    // Whoever still has the longer TTL goes on believing what it has put, or puts it late.
    let node = on.node()?;
    for is_lost in [true, false] {
        let token = on.log_in_warm(&node).await?;
        if is_lost {
            node.cache.fail(Op::Remove);
        }
        let done = node.app.admin_revoke(token.id(), Reason::Admin).await?;
        let is_unreached = is_lost || !on.is_linearizable();
        let wanted = if is_unreached { owns[1] } else { owns[2] };
        expect(done.visibility, Visibility::Within(wanted))?;
    }
    DONE
}

async fn near_caches_of_others_are_reckoned_with(on: &PairBench) -> Outcome {
    let near = Duration::from_secs(30);
    let many = LayeredConfig { topology: Topology::ManyProcesses, ..PairBench::config() };
    let plain = on.node_with(many.clone(), Policy::default())?;
    let fast =
        on.node_with(LayeredConfig { near_ttl: Ttl::new(near), ..many }, Policy::default())?;
    let token = on.log_in_warm(&plain).await?;
    let before = plain.app.admin_revoke(token.id(), Reason::Admin).await?;
    expect(before.visibility, plain.app.store().guarantee().healthy)?;
    let token = on.log_in_warm(&plain).await?;
    ensure(fast.accepts(&token).await, "not accepted")?;
    let done = plain.app.admin_revoke(token.id(), Reason::Admin).await?;
    if before.visibility == Visibility::Immediate {
        expect(done.visibility, Visibility::Within(near))?;
    }
    on.runtime.advance(done.visibility.bound());
    ensure(!fast.accepts(&token).await, "accepted after the bound")
}

async fn an_unknown_list_is_reckoned_by_the_last(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let hour = Duration::from_hours(1);
    let ttl = Ttl::new(hour).unwrap_or(Ttl::MIN);
    let name = CacheName::new("another")?;
    on.primary.register(&CacheRegistration { name, scope: CacheScope::Process, ttl }).await?;
    let token = on.log_in_warm(&node).await?;
    node.db.fail(Op::Other);
    let done = node.app.admin_revoke(token.id(), Reason::Admin).await?;
    expect(done.visibility, Visibility::Within(hour))?;
    let token = on.log_in_warm(&node).await?;
    node.db.fail(Op::Other);
    let (store, now) = (node.app.store(), node.app.now());
    ensure(store.delete_user(&user_id(1)?, now).await.is_err(), "held for nobody knows how long")?;
    ensure(node.accepts(&token).await, "an error has deleted the user")
}

async fn an_unknown_cache_is_not_used(on: &PairBench) -> Outcome {
    let known = on.node()?;
    let token = on.log_in_warm(&known).await?;
    // One that may only read: the cache is known already, so that it may be used.
    let reader = on.node()?;
    reader.db.fail(Op::Register);
    ensure(reader.accepts(&token).await, "not accepted")?;
    // Where clocks matter, the time is asked for once.
    let probes = usize::from(!on.is_linearizable());
    expect(reader.db.count(Op::Find), probes)?;
    // One like those of before, made for a single request.
    let brief = on.node()?;
    brief.app.store().registered_before();
    ensure(brief.accepts(&token).await, "not accepted")?;
    expect((brief.db.total(), brief.cache.total()), (0, 1))?;
    for cache in on.primary.caches().await? {
        on.primary.unregister(&cache.name).await?;
    }
    let node = on.node()?;
    node.db.fail(Op::Register);
    for _ in 0..3 {
        ensure(node.accepts(&token).await, "not accepted past the cache")?;
    }
    expect((node.cache.total(), node.db.count(Op::Find)), (0, 3 + probes))?;
    expect(node.db.count(Op::Register), 1)?;
    on.runtime.advance(node.app.store().config().breaker_pause);
    ensure(node.accepts(&token).await, "not accepted")?;
    ensure(node.cache.total() > 0, "the cache is never used")
}

async fn a_drain_empties_the_log(on: &PairBench) -> Outcome {
    let node = on.node()?;
    node.app.store().register().await?;
    let sessions: Vec<_> = (1..=1010).map(|number| new(guest(number))).collect();
    for done in join_all(sessions.iter().map(|new| on.primary.insert(new, NOW))).await {
        done?;
    }
    let ids = sessions.iter().map(|new| new.session.id).collect();
    on.primary.revoke(&Selection::Ids(ids), Reason::Admin, NOW).await?;
    let drained = node.app.store().drain().await?;
    let has_log = on.primary.promise().log != LogPromise::None;
    expect(drained > 0, has_log)?;
    for cache in on.primary.caches().await? {
        expect(on.primary.drain(&cache.name, 9).await?.entries, vec![])?;
    }
    DONE
}

async fn a_failed_drain_acknowledges_nothing(on: &PairBench) -> Outcome {
    if on.primary.promise().log == LogPromise::None {
        on.weakness.note("no log", Duration::ZERO);
        return DONE;
    }
    let node = on.node()?;
    node.app.store().register().await?;
    let token = on.log_in_warm(&node).await?;
    node.cache.fail(Op::Remove);
    let _ = node.app.admin_revoke(token.id(), Reason::Admin).await?;
    ensure(on.is_cached(token.id()).await?, "the removal did not fail")?;
    node.cache.fail(Op::Remove);
    ensure(node.app.store().drain().await.is_err(), "a failed drain succeeded")?;
    expect(node.app.store().drain().await?, 1)?;
    ensure(!on.is_cached(token.id()).await?, "the entry was never removed")?;
    expect(node.app.store().drain().await?, 0)
}

async fn lists_come_from_the_truth(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in_warm(&node).await?;
    on.log_in_warm(&node).await?;
    node.cache.reset();
    let page = crate::primary::Page::first(10);
    let devices = node.app.list(&user_id(1)?, Some(token.id()), &page).await?.items;
    expect(devices.len(), 2)?;
    let current: Vec<_> = devices.iter().filter(|device| device.is_current).collect();
    expect(current.iter().map(|device| device.id).collect::<Vec<_>>(), vec![token.id()])?;
    expect(node.app.census(None).await?.active, 2)?;
    expect((node.cache.total(), node.app.now()), (0, NOW))
}
