//! Caches of class Eventual: whatever old version they serve, and however late, a revocation holds
//! after the declared bound.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join;
use parking_lot::Mutex;

use super::super::checks;
use super::super::host::TestClock;
use super::super::report::{Violation, ensure, expect};
use super::super::runner::Outcome;
use super::super::sample::{NOW, guest, new};
use super::super::wire::{Op, Point, Wire};
use super::{Node, PairBench};
use crate::error::Result;
use crate::host::{Clock, Host};
use crate::layered::{LayeredConfig, Topology, Visibility};
use crate::policy::Policy;
use crate::primary::CacheScope;
use crate::secondary::{
    CacheClass, CacheKey, Record, Reservation, SecondaryPromise, SecondaryStore, SwapTtl,
};
use crate::session::{Reason, Session};
use crate::sessions::{Authentication, Sessions};
use crate::time::Ttl;
use crate::token::Token;

checks! { ($) layered_eventual: PairBench;
    "K6-K01 S-42" an_old_version_is_refused_after_the_bound
        "A cache that serves an old version for ever is not believed after the declared bound.",
    "K6-K02" a_fill_of_long_ago_is_stale "A fill that arrives long after its read is never accepted.",
    "K6-K03" a_wrong_clock_asks_no_cache
        "A host whose clock is wrong by more than max_skew goes past the cache, from its first lookup \
         until the clock is right, and counts it.",
    "X8-L-32" a_start_without_the_primary_serves_hits
        "A node that starts while the primary is down serves hits, and fills nothing.",
    "X8-L-36" a_start_with_a_hanging_primary_serves_hits
        "A primary that hangs at the start, and callers that go away, keep hits from nobody for long.",
    "X8-L-23" requests_share_no_read
        "On a cache of class Eventual each request reads for itself: nothing tells old from new.",
    "K6-K04" a_cached_absence_hides_no_login
        "A miss that the cache remembers goes to the primary, and a login asks it to forget none.",
}

/// What a key is to hold.
type Put = (CacheKey, Option<Record>);

/// The worst cache there may be: it serves any old version, remembers what was not there, and
/// applies what it was given whenever it likes.
#[derive(Debug, Default)]
struct Edge {
    versions: Mutex<HashMap<CacheKey, Vec<Option<Record>>>>,
    /// Nothing that comes later is served.
    is_frozen: Mutex<bool>,
    /// Puts wait here while the cache is slow.
    late: Mutex<Option<Vec<Put>>>,
}

impl Edge {
    fn freeze(&self) {
        *self.is_frozen.lock() = true;
    }

    /// How often something was put or removed.
    fn changes(&self) -> usize {
        self.versions.lock().values().map(Vec::len).sum()
    }

    fn delay(&self) {
        *self.late.lock() = Some(Vec::new());
    }

    /// Everything that was delayed arrives, after whatever came meanwhile.
    fn arrive(&self) {
        for (key, record) in self.late.lock().take().unwrap_or_default() {
            self.put(&key, record);
        }
    }

    fn put(&self, key: &CacheKey, record: Option<Record>) {
        if !*self.is_frozen.lock() {
            self.versions.lock().entry(key.clone()).or_default().push(record);
        }
    }
}

#[async_trait]
impl SecondaryStore for Edge {
    fn promise(&self) -> SecondaryPromise {
        SecondaryPromise {
            name: "edge",
            class: CacheClass::Eventual,
            scope: CacheScope::Shared,
            may_roll_back: true,
            min_ttl: Duration::from_mins(1),
            ttl_granularity: Duration::from_secs(1),
            overrun: Duration::ZERO,
            rollback_slack: Duration::ZERO,
            max_record_bytes: 1 << 20,
            max_batch: 1,
        }
    }

    fn epoch(&self) -> u64 {
        0
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Record>> {
        Ok(self.versions.lock().get(key).and_then(|versions| versions.last().cloned()).flatten())
    }

    async fn reserve(&self, _key: &CacheKey, _ttl: Ttl) -> Result<Reservation> {
        Ok(Reservation::Granted(Record::lease(b"blind")))
    }

    async fn swap(
        &self,
        key: &CacheKey,
        _expected: &Record,
        new: Option<&Record>,
        _ttl: SwapTtl,
    ) -> Result<bool> {
        match &mut *self.late.lock() {
            Some(late) => late.push((key.clone(), new.cloned())),
            None => self.put(key, new.cloned()),
        }
        Ok(true)
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        for key in keys {
            self.put(key, None);
        }
        Ok(())
    }
}

fn node(on: &PairBench, edge: &Arc<Edge>) -> std::result::Result<Node, Violation> {
    let (db, cache) = (Wire::default(), Wire::default());
    let config = LayeredConfig { topology: Topology::ManyProcesses, ..PairBench::config() };
    let store = on.layered_over(edge.clone(), config, (&db, &cache), on.host())?;
    Ok(Node { app: Sessions::new(store, Policy::default())?, db, cache })
}

async fn an_old_version_is_refused_after_the_bound(on: &PairBench) -> Outcome {
    let edge = Arc::new(Edge::default());
    let (one, other) = (node(on, &edge)?, node(on, &edge)?);
    let token = on.log_in_warm(&one).await?;
    on.runtime.advance(Duration::from_secs(10));
    edge.freeze();
    let done = one.app.admin_revoke(token.id(), Reason::Admin).await?;
    let Visibility::Within(bound) = done.visibility else {
        return expect(done.visibility, Visibility::Within(Duration::ZERO));
    };
    expect(done.visibility, one.app.store().guarantee().healthy)?;
    // Until then the old version may be believed; here it is, or the case would show nothing.
    ensure(other.accepts(&token).await, "the old version is not served")?;
    on.runtime.advance(bound);
    for node in [&one, &other] {
        ensure(!node.accepts(&token).await, "accepted after the bound")?;
    }
    let near_ttl = Ttl::new(Duration::from_secs(1));
    let near = LayeredConfig { near_ttl, ..PairBench::config() };
    let (db, cache) = Default::default();
    let near = on.layered_over(edge.clone(), near, (&db, &cache), on.host())?;
    // Entry, skew and near cache.
    expect(near.guarantee().cache_failure, Duration::from_secs(300 + 60 + 1))?;
    let strict = LayeredConfig { require_immediate: true, ..PairBench::config() };
    let (db, cache) = Default::default();
    let refused = on.layered_over(edge, strict, (&db, &cache), on.host());
    ensure(refused.is_err(), "an eventual cache passed for immediate")
}

async fn a_fill_of_long_ago_is_stale(on: &PairBench) -> Outcome {
    let edge = Arc::new(Edge::default());
    let (one, other) = (node(on, &edge)?, node(on, &edge)?);
    edge.delay();
    let token = on.log_in_warm(&one).await?;
    let done = other.app.admin_revoke(token.id(), Reason::Admin).await?;
    on.runtime.advance(10 * done.visibility.bound());
    edge.arrive();
    let key = PairBench::key(token.id());
    ensure(edge.get(&key).await?.is_some(), "the fill did not arrive")?;
    for node in [&one, &other] {
        ensure(!node.accepts(&token).await, "a fill of long ago was believed")?;
    }
    super::DONE
}

async fn a_wrong_clock_asks_no_cache(on: &PairBench) -> Outcome {
    let edge = Arc::new(Edge::default());
    // Two stores of one host, as a Worker makes one for each request.
    let (node, next) = (node(on, &edge)?, node(on, &edge)?);
    let token = on.log_in(&node).await?.token;
    let skew = node.app.store().config().max_skew;
    node.db.set_server_time(NOW.plus(skew));
    ensure(node.accepts(&token).await, "a clock that is nearly right logged somebody out")?;
    on.runtime.settle().await;
    expect(node.app.store().stats().skewed, 0)?;
    edge.versions.lock().clear();
    node.db.set_server_time(NOW.plus(skew + Duration::from_millis(1)));
    ensure(node.accepts(&token).await, "a wrong clock logged somebody out")?;
    on.runtime.settle().await;
    expect(node.app.store().stats().skewed, 1)?;
    node.cache.reset();
    ensure(node.accepts(&token).await, "not accepted past the cache")?;
    expect(node.cache.total(), 0)?;
    ensure(next.accepts(&token).await, "not accepted by the next store")?;
    expect(next.cache.total(), 0)?;
    // A quiet while sets no clock right.
    on.runtime.advance(Duration::from_mins(10));
    for node in [&node, &next] {
        node.db.set_server_time(node.app.now().plus(skew + Duration::from_millis(1)));
        ensure(node.accepts(&token).await, "not accepted past the cache")?;
        expect((node.cache.total(), node.app.store().is_registered()), (0, false))?;
    }
    // Set right again, and after a while the cache is asked again.
    for node in [&node, &next] {
        node.db.set_server_time(NOW.plus(Duration::from_mins(20)));
    }
    on.runtime.advance(Duration::from_mins(10));
    ensure(node.accepts(&token).await, "not accepted")?;
    ensure(node.cache.total() > 0, "the cache is never asked again")?;
    edge.versions.lock().clear();
    let token = on.log_in_warm(&next).await?;
    a_first_hit_is_not_believed(on, &edge, &token).await?;
    if !on.is_linearizable() {
        return super::DONE;
    }
    // A linearizable cache needs no clock to be right.
    let node = on.node()?;
    node.db.set_server_time(node.app.now().plus(skew * 9));
    let token = on.log_in_warm(&node).await?;
    ensure(node.accepts(&token).await, "not accepted")?;
    let stats = node.app.store().stats();
    expect((stats.hits, stats.skewed), (1, 0))
}

/// A host that has only had hits has asked the primary for the time, which is enough.
async fn a_first_hit_is_not_believed(on: &PairBench, edge: &Arc<Edge>, token: &Token) -> Outcome {
    let host = Host::new(TestClock::at(on.clock.now()), on.runtime.clone());
    for wrong in [true, false] {
        let (db, cache) = (Wire::default(), Wire::default());
        let config = LayeredConfig { topology: Topology::ManyProcesses, ..PairBench::config() };
        if wrong {
            let skew = config.max_skew + Duration::from_millis(1);
            db.set_server_time(on.clock.now().plus(skew));
        }
        let store = on.layered_over(edge.clone(), config, (&db, &cache), host.clone())?;
        let app = Sessions::new(store, Policy::default())?;
        let node = Node { app, db, cache };
        ensure(node.accepts(token).await, "a wrong clock logged somebody out")?;
        // The second store is made by the next request of the same host.
        expect(node.cache.total(), 0)?;
    }
    super::DONE
}

async fn a_start_without_the_primary_serves_hits(on: &PairBench) -> Outcome {
    let edge = Arc::new(Edge::default());
    let known = node(on, &edge)?;
    let token = on.log_in_warm(&known).await?;
    let late = node(on, &edge)?;
    late.db.set_down(true);
    ensure(late.accepts(&token).await, "an outage at the start logged somebody out")?;
    expect(late.app.store().stats().hits, 1)?;
    let unknown = late.app.authenticate(&Token::generate(NOW)?).await;
    let is_told = matches!(unknown, Authentication::Unavailable(_));
    ensure(is_told, "an outage at the start passes for an absence")?;
    late.db.set_down(false);
    on.runtime.advance(late.app.store().config().breaker_pause);
    late.db.reset();
    ensure(late.accepts(&token).await && late.accepts(&token).await, "not accepted")?;
    // The list of caches, and the time.
    expect((late.db.count(Op::Other), late.db.count(Op::Find)), (1, 1))?;
    // Nobody reckons with what is put by one that may be unknown.
    let early = node(on, &edge)?;
    early.db.fail(Op::Other);
    ensure(!early.accepts(&Token::for_session(token.id())?).await, "accepted a thief")?;
    let other = on.log_in(&known).await?.token;
    ensure(early.accepts(&other).await, "not accepted")?;
    on.runtime.settle().await;
    expect((early.cache.count(Op::Swap), early.cache.count(Op::Reserve)), (0, 0))
}

async fn a_start_with_a_hanging_primary_serves_hits(on: &PairBench) -> Outcome {
    let edge = Arc::new(Edge::default());
    let known = node(on, &edge)?;
    let token = on.log_in_warm(&known).await?;
    let late = node(on, &edge)?;
    late.db.hang(Op::Other);
    {
        let mut impatient = pin!(late.accepts(&token));
        ensure(futures_util::poll!(impatient.as_mut()).is_pending(), "nothing hangs")?;
        on.runtime.settle_but(1).await;
    }
    on.runtime.advance(late.app.store().config().read_deadline);
    on.runtime.settle().await;
    let before = late.db.count(Op::Other);
    ensure(late.accepts(&token).await, "an outage at the start logged somebody out")?;
    expect((late.app.store().stats().hits, late.db.count(Op::Other) - before), (1, 0))?;
    // The next attempt hangs too, and only who makes it waits.
    on.runtime.advance(late.app.store().config().breaker_pause);
    late.db.hang(Op::Other);
    let mut patient = pin!(late.accepts(&token));
    ensure(futures_util::poll!(patient.as_mut()).is_pending(), "nobody tries again")?;
    ensure(late.accepts(&token).await, "all wait for one")?;
    on.runtime.settle_but(1).await;
    on.runtime.advance(late.app.store().config().read_deadline);
    ensure(patient.await, "not accepted in the end")
}

async fn requests_share_no_read(on: &PairBench) -> Outcome {
    let edge = Arc::new(Edge::default());
    let node = node(on, &edge)?;
    let token = on.log_in(&node).await?.token;
    node.db.reset();
    let mut held = node.db.hold(Op::Find, Point::After);
    let early = node.accepts(&token);
    let late = async {
        held.reached().await;
        let done = node.app.admin_revoke(token.id(), Reason::Admin).await;
        let accepted = node.accepts(&token).await;
        held.release();
        (done, accepted)
    };
    let (_, (done, accepted)) = join(early, late).await;
    expect(done?.count, 1)?;
    ensure(!accepted, "a request joined a read from before a revocation")?;
    expect(node.db.count(Op::Find), 2)
}

async fn a_cached_absence_hides_no_login(on: &PairBench) -> Outcome {
    let edge = Arc::new(Edge::default());
    let node = node(on, &edge)?;
    let token = Token::generate(NOW)?;
    ensure(!node.accepts(&token).await, "nobody was accepted")?;
    on.runtime.settle().await;
    // From now on the cache says what it said then: nothing is there.
    edge.freeze();
    let login = Session { id: token.id(), secret_hash: token.secret_hash(), ..guest(1) };
    let before = edge.changes();
    node.app.store().insert(new(login), NOW).await?;
    // Such caches take few writes.
    expect(edge.changes(), before)?;
    ensure(node.accepts(&token).await, "a remembered absence hid a login")
}
