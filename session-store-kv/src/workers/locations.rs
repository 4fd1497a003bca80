//! What must hold at the edge: the layered store in two locations, each with what it has read kept for
//! a minute and with a clock of its own.
//!
//! The general suite runs over the namespace itself. These cases need what no simulator imitates.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::pin_mut;
use session_store_core::conformance::{
    AdapterReport, CaseReport, Op, Point, PrimaryHarness, TestClock, TestRuntime, Verdict,
    Violation, WatchedPrimary, WatchedSecondary, Wire,
};
use session_store_core::{
    Clock, ErrorKind, Host, Layered, LayeredConfig, Login, Policy, PrimaryStore, Reason, Result,
    SecondaryStore, Sessions, Timestamp, Token, Ttl, User, UserId,
};

use super::EdgeCached;
use super::bounds::{AHEAD, LOST, REMOVED, TIMELESS, Trial};

type App = Sessions<Arc<dyn PrimaryStore>, Arc<dyn SecondaryStore>>;
pub(super) type Outcome = std::result::Result<(), Violation>;

/// The true time at the start of a case.
pub(super) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
pub(super) const ENTRY: Duration = Duration::from_mins(1);
pub(super) const SKEW: Duration = Duration::from_secs(30);

/// The cases: an id, a name, the sentence it proves.
const CASES: [(&str, &str, &str); 9] = [
    (
        "KV-01",
        "a_logout_is_bounded_everywhere",
        "After the declared bound no location accepts the session, whatever its edge and its clock \
         say; before, the one whose clock is late does.",
    ),
    ("KV-02", "a_lost_removal_is_bounded_too", "The same when nothing was removed from KV."),
    ("KV-03", "immediate_is_refused", "require_immediate is refused, with an explanation."),
    (
        "KV-04",
        "a_short_session_is_exact",
        "A session of ten seconds ends after ten, though KV and the edge keep it for a minute.",
    ),
    (
        "KV-05",
        "a_remembered_absence_hides_no_login",
        "A location that remembers that nothing was there accepts the session all the same.",
    ),
    (
        "KV-06",
        "requests_share_nothing",
        "Of two overlapping requests neither joins the other's read nor waits for it, even if it \
         is cut off.",
    ),
    (
        "KV-07",
        "a_clock_too_late_believes_nothing",
        "A location whose clock is late by more than max_skew asks no cache, though all it has ever had \
         were hits.",
    ),
    (
        "KV-08",
        "a_writer_ahead_and_a_reader_behind_are_bounded",
        "The declared bound holds for an entry whose writer's clock is ahead by max_skew, read by one \
         that is late by max_skew.",
    ),
    (
        "KV-09",
        "without_the_time_of_the_database_both_clocks_count",
        "Over a primary that tells no time the declared bound holds between nodes whose clocks differ by \
         max_skew.",
    ),
];

/// A cache that locations have in common.
pub trait EdgeHarness: Send + Sync {
    /// The adapter's name in reports.
    fn name(&self) -> &str;

    /// The cache called `namespace`, as a location sees it whose time is that of `clock`.
    fn at(&self, namespace: &str, clock: &Arc<TestClock>) -> Result<Arc<dyn SecondaryStore>>;
}

/// The names of all cases.
pub fn edge_cases() -> Vec<&'static str> {
    CASES.iter().map(|(_, name, _)| *name).collect()
}

/// Runs the case called `name`, or all without one, over a namespace and a database.
pub async fn run_edge(
    primary: &dyn PrimaryHarness,
    cache: &dyn EdgeHarness,
    name: Option<&str>,
) -> AdapterReport {
    let adapter = format!("layered:{}+{}-edge", primary.name(), cache.name());
    let mut report = AdapterReport { name: adapter, role: "layered", cases: Vec::new() };
    for (id, own, title) in CASES {
        if name.is_none_or(|name| name == own) {
            let verdict = match Box::pin(judged((primary, cache), id, own)).await {
                Ok(Some(bound)) => Verdict::Weak { capability: "eventual".to_owned(), bound },
                Ok(None) => Verdict::Pass,
                Err(violation) => Verdict::Fail { detail: violation.to_string() },
            };
            report.cases.push(CaseReport { id, name: own, title, verdict });
        }
    }
    report
}

async fn judged(
    (primary, cache): (&dyn PrimaryHarness, &dyn EdgeHarness),
    id: &str,
    name: &str,
) -> std::result::Result<Option<Duration>, Violation> {
    let namespace = id.replace('-', "_").to_lowercase();
    let (store, _guard) = primary.open(&namespace).await?;
    let world = World { primary: store, cache, namespace, time: TestClock::at(NOW) };
    let case = async {
        match name {
            "a_logout_is_bounded_everywhere" => tried(&world, REMOVED).await,
            "a_lost_removal_is_bounded_too" => tried(&world, LOST).await,
            "a_writer_ahead_and_a_reader_behind_are_bounded" => tried(&world, AHEAD).await,
            "without_the_time_of_the_database_both_clocks_count" => tried(&world, TIMELESS).await,
            "immediate_is_refused" => immediate_is_refused(&world).map(|()| None),
            "a_short_session_is_exact" => a_short_session_is_exact(&world).await.map(|()| None),
            "a_remembered_absence_hides_no_login" => absence(&world).await.map(|()| None),
            "requests_share_nothing" => requests_share_nothing(&world).await.map(|()| None),
            "a_clock_too_late_believes_nothing" => {
                a_clock_too_late_believes_nothing(&world).await.map(|()| None)
            }
            _ => Err(Violation::new("there is no such case")),
        }
    };
    let patience = primary.patience();
    pin_mut!(case);
    match select(case, patience).await {
        Either::Left((outcome, _)) => outcome,
        Either::Right(_) => Err(Violation::new("did not end in time")),
    }
}

/// What all locations have in common.
pub(super) struct World<'a> {
    primary: Arc<dyn PrimaryStore>,
    cache: &'a dyn EdgeHarness,
    namespace: String,
    /// The true time, which is that of the database too.
    pub(super) time: Arc<TestClock>,
}

/// A location: an edge over the namespace, and Workers with one clock.
pub(super) struct Location {
    pub(super) app: App,
    pub(super) clock: Arc<TestClock>,
    runtime: Arc<TestRuntime>,
    db: Wire,
    pub(super) cache: Wire,
    edge: Arc<dyn SecondaryStore>,
    primary: Arc<dyn PrimaryStore>,
    /// The time that the database tells, if it tells any.
    told: Option<Arc<TestClock>>,
}

fn config() -> LayeredConfig {
    let mut config = LayeredConfig::default();
    config.cache_ttl = Ttl::new(ENTRY);
    config.max_skew = SKEW;
    config
}

impl World<'_> {
    /// A location whose clock is late by `late`, over a database that tells no time.
    fn location(&self, late: Duration) -> Result<Location> {
        self.place(TestClock::at(NOW.minus(late)), None)
    }

    pub(super) fn place(
        &self,
        clock: Arc<TestClock>,
        told: Option<Arc<TestClock>>,
    ) -> Result<Location> {
        let cache = self.cache.at(&self.namespace, &clock)?;
        let edge: Arc<dyn SecondaryStore> = Arc::new(EdgeCached::new(cache, clock.clone()));
        Location::at(Arc::clone(&self.primary), edge, (clock, told))
    }
}

impl Location {
    fn at(
        primary: Arc<dyn PrimaryStore>,
        edge: Arc<dyn SecondaryStore>,
        (clock, told): (Arc<TestClock>, Option<Arc<TestClock>>),
    ) -> Result<Self> {
        let (db, cache) = (Wire::default(), Wire::default());
        if let Some(told) = &told {
            db.set_server_time(told.now());
        }
        let runtime = TestRuntime::new(Arc::clone(&clock));
        let watched = WatchedPrimary { store: Arc::clone(&primary), wire: db.clone() };
        let store = Arc::clone(&edge);
        let seen = WatchedSecondary { store, wire: cache.clone(), is_shared: true };
        let host = Host::new(clock.clone(), runtime.clone());
        let (first, second): (Arc<dyn PrimaryStore>, Arc<dyn SecondaryStore>) =
            (Arc::new(watched), Arc::new(seen));
        let app = Sessions::new(Layered::new(first, second, config(), host)?, Policy::default())?;
        Ok(Self { app, clock, runtime, db, cache, edge, primary, told })
    }

    /// Another request in the same location: nothing is shared but edge, clock and stores. The first
    /// request of an isolate registers the cache; this is a later one.
    pub(super) async fn request(&self) -> Result<Self> {
        let (primary, edge) = (Arc::clone(&self.primary), Arc::clone(&self.edge));
        let request = Self::at(primary, edge, (Arc::clone(&self.clock), self.told.clone()))?;
        request.app.store().register().await?;
        request.db.reset();
        Ok(request)
    }

    /// Runs `work` and what it leaves behind, as `waitUntil` does.
    pub(super) async fn run<T>(&self, work: impl Future<Output = T>) -> T {
        let all = async {
            let done = work.await;
            self.runtime.settle().await;
            done
        };
        self.runtime.drive(all).await
    }

    pub(super) async fn accepts(&self, token: &Token) -> Result<bool> {
        // Every request has stores of its own.
        let request = self.request().await?;
        Ok(request.run(request.app.authenticate(token)).await.live().is_some())
    }

    pub(super) async fn log_in(&self, lifetime: Option<Duration>) -> Result<Token> {
        let id = UserId::new("ada")?;
        if self.primary.find_user(&id).await?.is_none() {
            self.primary.insert_user(&User::new(id.clone(), NOW), NOW).await?;
        }
        let mut login = Login::new(id, session_store_core::CredentialEpoch::default());
        login.lifetime = lifetime.and_then(Ttl::new);
        let created = self.run(self.app.create(login)).await?;
        Ok(created.token)
    }
}

fn pass(locations: [&Location; 2], length: Duration) {
    for location in locations {
        location.clock.advance(length);
    }
}

pub(super) fn ensure(holds: bool, what: &str) -> Outcome {
    if holds { Ok(()) } else { Err(Violation::new(what)) }
}

async fn tried(
    world: &World<'_>,
    trial: Trial,
) -> std::result::Result<Option<Duration>, Violation> {
    Box::pin(world.bounded(trial)).await.map(Some)
}

fn immediate_is_refused(world: &World<'_>) -> Outcome {
    let location = world.location(Duration::ZERO)?;
    let mut strict = config();
    strict.require_immediate = true;
    let host = Host::new(location.clock.clone(), location.runtime.clone());
    let (first, second) = (Arc::clone(&world.primary), Arc::clone(&location.edge));
    let Err(refused) = Layered::new(first, second, strict, host) else {
        return Err(Violation::new("an eventual cache passed for immediate"));
    };
    let is_explained = match refused.kind() {
        ErrorKind::Configuration { what } => {
            what.contains("require_immediate") && what.contains("eventual")
        }
        _ => false,
    };
    ensure(is_explained, "the refusal does not say why")
}

async fn a_short_session_is_exact(world: &World<'_>) -> Outcome {
    let (near, far) = (world.location(Duration::ZERO)?, world.location(Duration::ZERO)?);
    let token = near.log_in(Some(Duration::from_secs(10))).await?;
    for location in [&near, &far] {
        ensure(location.accepts(&token).await?, "a new session is not accepted")?;
    }
    pass([&near, &far], Duration::from_millis(9_999));
    for location in [&near, &far] {
        ensure(location.accepts(&token).await?, "ended too early")?;
    }
    pass([&near, &far], Duration::from_millis(1));
    for location in [&near, &far] {
        ensure(!location.accepts(&token).await?, "accepted after its end")?;
    }
    Ok(())
}

async fn absence(world: &World<'_>) -> Outcome {
    let (near, far) = (world.location(Duration::ZERO)?, world.location(Duration::ZERO)?);
    let token = near.log_in(None).await?;
    // Its edge learns that nothing is there, and says so for a minute, whatever is put meanwhile.
    ensure(far.accepts(&token).await?, "a new session is not accepted")?;
    let request = far.request().await?;
    ensure(request.run(request.app.authenticate(&token)).await.live().is_some(), "not accepted")?;
    ensure(request.db.count(Op::Find) == 1, "the edge does not remember that nothing was there")
}

async fn a_clock_too_late_believes_nothing(world: &World<'_>) -> Outcome {
    let near = world.location(Duration::ZERO)?;
    let token = near.log_in(None).await?;
    near.clock.advance(ENTRY / 2);
    ensure(near.accepts(&token).await?, "a new session is not accepted")?;
    for (late, is_believed) in [(SKEW, true), (SKEW + Duration::from_millis(1), false)] {
        let far = world.location(late)?;
        far.clock.advance(ENTRY);
        far.db.set_server_time(near.clock.now().plus(ENTRY / 2));
        ensure(far.run(far.app.authenticate(&token)).await.live().is_some(), "not accepted")?;
        ensure((far.cache.total() > 0) == is_believed, "the clock was not compared at first")?;
    }
    Ok(())
}

async fn requests_share_nothing(world: &World<'_>) -> Outcome {
    let place = world.location(Duration::ZERO)?;
    let token = place.log_in(None).await?;
    let (early, late) = (place.request().await?, place.request().await?);
    let last = place.request().await?;
    let mut held = early.db.hold(Op::Find, Point::After);
    {
        let first = early.run(early.app.authenticate(&token));
        pin_mut!(first);
        let reached = held.reached();
        pin_mut!(reached);
        ensure(matches!(select(first, reached).await, Either::Right(_)), "nothing was held")?;
        // The first request is cut off here, with its read under way.
    }
    let done = late.run(late.app.admin_revoke(token.id(), Reason::Admin)).await?;
    ensure(done.count == 1, "not revoked")?;
    let accepted = last.run(last.app.authenticate(&token)).await.live().is_some();
    ensure(!accepted, "a request joined a read from before a revocation")?;
    ensure(late.clock.now() == NOW, "a request waited for another one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_executor::block_on;
    use session_store_memory::MemoryHarness;

    struct Nowhere;

    impl EdgeHarness for Nowhere {
        fn name(&self) -> &'static str {
            "nowhere"
        }

        fn at(&self, _: &str, _: &Arc<TestClock>) -> Result<Arc<dyn SecondaryStore>> {
            Ok(Arc::new(session_store_core::NoCache::new()))
        }
    }

    #[test]
    fn a_case_that_is_not_there_has_not_passed() {
        let primary = MemoryHarness::default();
        let outcome = block_on(judged((&primary, &Nowhere), "KV-00", "nobody_wrote_it"));
        assert!(outcome.unwrap_err().to_string().contains("no such case"));
    }
}
