//! The named scenarios, each with its own minimum, and the mutants that must be noticed.

use super::quirk::Quirk;

/// How a scenario's schedules are chosen.
#[derive(Clone, Copy, Debug)]
pub enum Search {
    /// All of them, by depth-first search, up to this number.
    All {
        /// Where to stop in a space that is larger.
        at_most: u64,
    },
    /// As many random ones, by this seed.
    Random {
        /// How many.
        count: u64,
        /// Where the choices come from; the same seed gives the same schedules.
        seed: u64,
    },
}

/// What happens at the same time.
///
/// An actor is a letter: `v` looks the session up, `r` revokes it, `u` looks it up and updates it,
/// `n` creates it, `f` revokes another session, `d` drains the log, `e` evicts the entry, `l` lets
/// a lease expire, `z` delivers a copy of the last swap. Callers in capitals may go away.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each says one thing that happens or not")]
pub struct Scenario {
    /// What it is called.
    pub name: &'static str,
    /// Whether the session is cached in the beginning.
    pub is_warm: bool,
    /// Who acts.
    pub actors: &'static str,
    /// How schedules are chosen.
    pub search: Search,
    /// How many schedules there are at least.
    pub minimum: u64,
    /// How many deadlines of the cache may fire.
    pub timers: u32,
    /// How many removals fail.
    pub failing_removals: u32,
    /// How many replies of revocations are lost.
    pub lost_replies: u32,
    /// How many reads of the primary there may be.
    pub max_reads: Option<u64>,
    /// Whether an entry of the log becomes visible late.
    pub hides_an_entry: bool,
    /// Whether there is a near cache.
    pub has_near: bool,
    /// What is broken.
    pub quirk: Quirk,
    /// Whether the first violation is enough.
    pub stop_at_first: bool,
}

const PLAIN: Scenario = Scenario {
    name: "",
    is_warm: false,
    actors: "",
    search: Search::All { at_most: 400_000 },
    minimum: 1,
    timers: 0,
    failing_removals: 0,
    lost_replies: 0,
    max_reads: None,
    hides_an_entry: false,
    has_near: false,
    quirk: Quirk::None,
    stop_at_first: false,
};

const fn random(count: u64, seed: u64) -> Search {
    Search::Random { count, seed }
}

/// What must hold under every schedule.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "two readers and a revocation", actors: "vrv", minimum: 10_000, ..PLAIN },
    Scenario {
        name: "a revocation of a warm entry",
        is_warm: true,
        actors: "vrv",
        minimum: 100,
        ..PLAIN
    },
    Scenario { name: "two revocations", is_warm: true, actors: "rrv", minimum: 100, ..PLAIN },
    Scenario {
        name: "eviction",
        actors: "vrve",
        search: random(150_000, 1),
        minimum: 150_000,
        ..PLAIN
    },
    Scenario {
        name: "lease expiry",
        actors: "vvrl",
        search: random(150_000, 2),
        minimum: 150_000,
        ..PLAIN
    },
    Scenario {
        name: "a copy of a swap",
        actors: "vrvz",
        search: random(150_000, 3),
        minimum: 150_000,
        ..PLAIN
    },
    Scenario {
        name: "updates and a revocation",
        is_warm: true,
        actors: "vurv",
        search: random(150_000, 4),
        minimum: 150_000,
        ..PLAIN
    },
    Scenario { name: "two updates", is_warm: true, actors: "uuv", minimum: 1_000, ..PLAIN },
    Scenario { name: "callers that go away", is_warm: true, actors: "VRv", minimum: 100, ..PLAIN },
    Scenario { name: "readers that go away", actors: "VVr", minimum: 1_000, ..PLAIN },
    Scenario {
        name: "one read for all",
        actors: "vvv",
        max_reads: Some(1),
        minimum: 10_000,
        ..PLAIN
    },
    Scenario { name: "a login after a look", actors: "vnv", minimum: 1_000, ..PLAIN },
    Scenario {
        name: "a deadline fires",
        actors: "vrv",
        timers: 1,
        search: random(150_000, 5),
        minimum: 150_000,
        ..PLAIN
    },
    Scenario {
        name: "a removal fails",
        is_warm: true,
        actors: "vrv",
        failing_removals: 1,
        minimum: 100,
        ..PLAIN
    },
    Scenario {
        name: "a lost reply",
        is_warm: true,
        actors: "rrv",
        lost_replies: 1,
        minimum: 100,
        ..PLAIN
    },
    Scenario {
        name: "a late entry of the log",
        is_warm: true,
        actors: "rfd",
        failing_removals: 2,
        hides_an_entry: true,
        search: random(50_000, 6),
        minimum: 50_000,
        ..PLAIN
    },
    Scenario {
        name: "a near cache",
        is_warm: true,
        actors: "vrvv",
        has_near: true,
        search: random(100_000, 7),
        minimum: 100_000,
        ..PLAIN
    },
    Scenario {
        name: "everything at once",
        actors: "vvvurrelz",
        search: random(200_000, 8),
        minimum: 200_000,
        ..PLAIN
    },
];

/// A broken protocol, and a scenario that shows it.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// What is broken.
    pub name: &'static str,
    /// Where it shows.
    pub scenario: Scenario,
}

const BROKEN: Scenario = Scenario { search: random(200_000, 9), stop_at_first: true, ..PLAIN };

/// What must be noticed.
pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "naive fill",
        scenario: Scenario { actors: "vrv", quirk: Quirk::NaiveFill, ..BROKEN },
    },
    Mutant {
        name: "delete before commit",
        scenario: Scenario { actors: "vrv", quirk: Quirk::RemoveBeforeCommit, ..BROKEN },
    },
    Mutant {
        name: "flights keyed by session",
        scenario: Scenario { actors: "vrv", quirk: Quirk::FlightsBySession, ..BROKEN },
    },
    Mutant {
        name: "swallowed remove error",
        scenario: Scenario {
            is_warm: true,
            actors: "rv",
            failing_removals: 1,
            quirk: Quirk::SwallowedRemoveError,
            ..BROKEN
        },
    },
    Mutant {
        name: "revoke not spawned",
        scenario: Scenario {
            is_warm: true,
            actors: "Rv",
            quirk: Quirk::RevokeNotSpawned,
            ..BROKEN
        },
    },
    Mutant {
        name: "a landed flight released before its swap",
        scenario: Scenario {
            actors: "vvv",
            max_reads: Some(1),
            quirk: Quirk::LandsBeforeSwap,
            ..BROKEN
        },
    },
    Mutant {
        name: "an acknowledgement by high-water mark",
        scenario: Scenario {
            is_warm: true,
            actors: "rfd",
            failing_removals: 2,
            hides_an_entry: true,
            quirk: Quirk::HighWaterMark,
            ..BROKEN
        },
    },
];
