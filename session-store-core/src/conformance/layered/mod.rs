//! The cases of [`Layered`](crate::Layered) and [`Sessions`](crate::Sessions), over any pair.

mod read;
mod flight;
mod revoke;
mod update;
mod absent;
mod users;
mod deletion;
mod policy;
mod touch;
mod cached;
mod near;
mod late;
mod lost;
mod again;
mod numbers;
mod in_use;
mod background;
mod clocks;
mod eventual;
mod entries;
mod rollback;
mod refused;
mod drained;
mod shared;
mod twins;
mod rotation;
mod alone;

use std::sync::Arc;
use std::time::Duration;

use super::harness::{Guard, NodeParts, PrimaryHarness, SecondaryHarness, Twist};
use super::host::{TestClock, TestRuntime};
use super::report::{AdapterReport, Violation};
use super::runner::{Case, Filter, Outcome, Weakness, judge, unopened};
use super::sample::{NOW, user};
use super::watched::{WatchedPrimary, WatchedSecondary};
use super::wire::Wire;
use crate::error::Result;
use crate::host::Host;
use crate::layered::{Answer, Layered, LayeredConfig, Topology};
use crate::policy::Policy;
use crate::primary::PrimaryStore;
use crate::secondary::{CacheClass, CacheKey, SecondaryStore};
use crate::sessions::{Created, Login, Refusal, Sessions};
use crate::token::{SessionId, Token};

/// What a case works with: a pair of stores, and as many nodes on them as it likes.
#[derive(Debug)]
pub(in crate::conformance) struct PairBench {
    pub(super) primary: Arc<dyn PrimaryStore>,
    pub(super) secondary: Arc<dyn SecondaryStore>,
    pub(super) clock: Arc<TestClock>,
    pub(super) runtime: Arc<TestRuntime>,
    pub(super) weakness: Weakness,
    hands: Hands,
    namespace: String,
}

struct Hands(&'static dyn PrimaryHarness, &'static dyn SecondaryHarness, Twist);

impl std::fmt::Debug for Hands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{}", self.0.name(), self.1.name())
    }
}

pub(super) type App = Sessions<Arc<dyn PrimaryStore>, Arc<dyn SecondaryStore>>;

/// One process: a policy and a layered store over the shared pair, on wires of its own.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) app: App,
    pub(super) db: Wire,
    pub(super) cache: Wire,
}

impl Node {
    /// Registers its cache, and counts from here on: a first lookup would do so.
    pub(super) async fn begin(&self) -> Result<()> {
        self.app.store().register().await?;
        self.db.reset();
        Ok(())
    }

    pub(super) async fn accepts(&self, token: &Token) -> bool {
        self.app.authenticate(token).await.live().is_some()
    }

    pub(super) async fn refusal(&self, token: &Token) -> Option<Refusal> {
        match self.app.authenticate(token).await {
            crate::sessions::Authentication::Absent(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// A lookup without a policy: any session that is there will do.
    pub(super) async fn look(&self, id: SessionId) -> Result<Answer> {
        let store = self.app.store();
        store.lookup(&id, self.app.now(), &|found| found.is_some()).await
    }
}

impl PairBench {
    pub(super) fn config() -> LayeredConfig {
        // All nodes of a case share one cache object, which is what the topology promises.
        LayeredConfig { topology: Topology::SingleProcess, ..LayeredConfig::default() }
    }

    pub(super) fn node(&self) -> std::result::Result<Node, Violation> {
        self.node_with(Self::config(), Policy::default())
    }

    pub(super) fn node_with(
        &self,
        config: LayeredConfig,
        policy: Policy,
    ) -> std::result::Result<Node, Violation> {
        let (db, cache) = (Wire::default(), Wire::default());
        let layered = self.layered(config, &db, &cache)?;
        Ok(Node { app: Sessions::new(layered, policy)?, db, cache })
    }

    pub(super) fn layered(
        &self,
        config: LayeredConfig,
        db: &Wire,
        cache: &Wire,
    ) -> Result<Layered<Arc<dyn PrimaryStore>, Arc<dyn SecondaryStore>>> {
        self.layered_over(Arc::clone(&self.secondary), config, (db, cache), self.host())
    }

    fn layered_over(
        &self,
        secondary: Arc<dyn SecondaryStore>,
        config: LayeredConfig,
        (db, cache): (&Wire, &Wire),
        host: Host,
    ) -> Result<Layered<Arc<dyn PrimaryStore>, Arc<dyn SecondaryStore>>> {
        let is_shared = config.topology == Topology::ManyProcesses && config.near_ttl.is_some();
        let parts = self.parts((secondary, is_shared), (db, cache), host);
        Layered::new(parts.primary, parts.secondary, config, parts.host)
    }

    /// The pair's primary and `secondary` as one node sees them.
    pub(super) fn parts(
        &self,
        (secondary, is_shared): (Arc<dyn SecondaryStore>, bool),
        (db, cache): (&Wire, &Wire),
        host: Host,
    ) -> NodeParts {
        let primary = WatchedPrimary { store: Arc::clone(&self.primary), wire: db.clone() };
        let secondary = WatchedSecondary { store: secondary, wire: cache.clone(), is_shared };
        let (primary, secondary) = (Arc::new(primary), Arc::new(secondary));
        (self.hands.2)(NodeParts { primary, secondary, host })
    }

    pub(super) fn host(&self) -> Host {
        Host::new(self.clock.clone(), self.runtime.clone())
    }

    /// Registers user 1 if need be and logs them in.
    pub(super) async fn log_in(&self, node: &Node) -> std::result::Result<Created, Violation> {
        node.app.store().register().await?;
        let user = user(1)?;
        if node.app.find_user(&user.id).await?.is_none() {
            node.app.register_user(&user).await?;
        }
        let Some(account) = node.app.find_user(&user.id).await? else {
            return Err(Violation::new("the user is not there"));
        };
        Ok(node.app.create(Login::of(&account)).await?)
    }

    /// Logs in and lets the cache learn of it.
    pub(super) async fn log_in_warm(&self, node: &Node) -> std::result::Result<Token, Violation> {
        let token = self.log_in(node).await?.token;
        super::report::ensure(node.accepts(&token).await, "a new session is not accepted")?;
        self.runtime.settle().await;
        Ok(token)
    }

    /// Whether the pair's cache can forget at once.
    pub(super) fn is_linearizable(&self) -> bool {
        self.secondary.promise().class == CacheClass::Linearizable
    }

    /// The key of a session in the cache.
    pub(super) fn key(id: SessionId) -> CacheKey {
        CacheKey::trusted(format!("{}{}:{id}", Self::config().key_prefix, crate::codec::VERSION))
    }

    /// Whether a value is cached for the session.
    pub(super) async fn is_cached(&self, id: SessionId) -> Result<bool> {
        let found = self.secondary.get(&Self::key(id)).await?;
        Ok(found.is_some_and(|record| record.as_bytes().first() == Some(&b'V')))
    }

    pub(super) async fn evict(&self, id: SessionId) -> Result<()> {
        self.secondary.remove(&[Self::key(id)]).await
    }

    pub(super) async fn by_hand(
        &self,
        deed: &super::harness::Deed,
    ) -> std::result::Result<bool, Violation> {
        let done = self.hands.0.by_hand(&self.namespace, deed).await?;
        if !done {
            self.weakness.note("no shell", Duration::ZERO);
        }
        Ok(done)
    }
}

fn cases() -> impl Iterator<Item = &'static Case<PairBench>> {
    [
        read::CASES,
        flight::CASES,
        revoke::CASES,
        update::CASES,
        absent::CASES,
        users::CASES,
        deletion::CASES,
        policy::CASES,
        touch::CASES,
        cached::CASES,
        near::CASES,
        late::CASES,
        lost::CASES,
        again::CASES,
        numbers::CASES,
        in_use::CASES,
        background::CASES,
        clocks::CASES,
        eventual::CASES,
        shared::CASES,
        rotation::CASES,
        alone::CASES,
        rollback::CASES,
        refused::CASES,
        drained::CASES,
    ]
    .into_iter()
    .flatten()
}

/// The names of all cases.
pub fn names() -> Vec<&'static str> {
    cases().map(|case| case.name).collect()
}

/// Runs every admitted case against the layered store over both harnesses.
pub async fn run(
    primary: &'static dyn PrimaryHarness,
    secondary: &'static dyn SecondaryHarness,
    filter: &Filter,
) -> AdapterReport {
    run_twisted(primary, secondary, &|parts| parts, filter).await
}

/// The same, with `twist` between every node and its wires.
pub async fn run_twisted(
    primary: &'static dyn PrimaryHarness,
    secondary: &'static dyn SecondaryHarness,
    twist: Twist,
    filter: &Filter,
) -> AdapterReport {
    let name = format!("layered:{}+{}", primary.name(), secondary.name());
    let mut report = AdapterReport { name, role: "layered", cases: Vec::new() };
    for case in cases().filter(|case| filter.admits(case)) {
        let work = async {
            let opened = open(Hands(primary, secondary, twist), case.namespace('l')).await;
            let (bench, _guards) = opened.map_err(|error| unopened(&error))?;
            let run = twins::instead(&bench, case.name).unwrap_or(case.run);
            bench.runtime.drive(run(&bench)).await?;
            Ok(bench.weakness.taken())
        };
        report.cases.push(judge(case, || primary.patience(), work).await);
    }
    report
}

async fn open(hands: Hands, namespace: String) -> Result<(PairBench, [Guard; 2])> {
    let clock = TestClock::at(NOW);
    let (primary, guard) = hands.0.open(&namespace).await?;
    let (secondary, other_guard) = hands.1.open(&clock).await?;
    let runtime = TestRuntime::new(Arc::clone(&clock));
    let weakness = Weakness::default();
    let bench = PairBench { primary, secondary, clock, runtime, weakness, hands, namespace };
    Ok((bench, [guard, other_guard]))
}

/// Whether `check` holds for a fresh pair of nodes; sugar for cases that begin alike.
pub(super) async fn two_nodes(
    on: &PairBench,
) -> std::result::Result<(Node, Node, Token), Violation> {
    let (one, other) = (on.node()?, on.node()?);
    let token = on.log_in(&one).await?.token;
    Ok((one, other, token))
}

/// Nothing to say.
pub(super) const DONE: Outcome = Ok(());
