//! Nodes that break the protocol in one way, and stores that the layered cases must notice.

mod encode;
mod entries;
mod host;
mod link;
mod truth;

pub(super) use host::sleepless;
pub(super) use link::Link;

use super::{cache, primary};

/// Which rule of the protocol a node breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quirk {
    // Fills.
    NaiveFill,
    ReadsBeforeTheLease,
    FillsAfterATimeout,
    FlightsBySession,
    ReadsAlone,
    NeverFills,
    FailedReadsKeepTheLease,
    EntriesOutliveSessions,
    CreationsFill,
    CreationsKeepAbsences,
    // Updates.
    BlindUpdates,
    UpdatesOnlySwap,
    MissingKeepsTheEntry,
    ErrorsKeepTheEntry,
    // Revocations.
    RemovesBeforeCommit,
    RemovesBesideCommit,
    SwallowsRemoveErrors,
    RemovesInTheBackground,
    RemovesOnlyWhatItEnded,
    LostRepliesKeepTheEntry,
    RemovesOneByOne,
    RemovesTwice,
    WaitsForNothing,
    // Reads.
    AsksBoth,
    CacheErrorsAreAbsences,
    OutagesAreAbsences,
    ServesForEver,
    FreshAsksTheCache,
    ListsTheCached,
    EndsTheExpired,
    ExpiredAreUnknown,
    ReadsLag,
    WritesOnReading,
    KeysPerNode,
    CountsTheOwnerToo,
    IgnoresThePrefix,
    // Use.
    TouchesTwice,
    SwallowsTouchErrors,
    TouchesRemove,
    TouchesFromTheFuture,
    // Class and clocks.
    ClaimsToBeShared,
    HidesTheEpoch,
    ClaimsToBeLinearizable,
    Unstamped,
    DropsTheServersTime,
    CachesAbsenceBlindly,
    // The near cache.
    NearWithoutGenerations,
    NearPurgedFirst,
    NearFromAfter,
}

/// Where a layered pair is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Between a node and its wires.
    Node(Quirk),
    /// In the primary store that all nodes share.
    Primary(primary::Defect),
    /// In the cache that all nodes share.
    Cache(cache::Defect),
}

/// The place, where it was seen, and what it is.
pub(super) type Row = (Place, &'static str, &'static str);

use Place::{Cache, Node, Primary};

/// Every broken pair.
pub(super) const TABLE: &[Row] = &[
    (Node(Quirk::NaiveFill), "coherence A1", "a fill replaces whatever is there"),
    (
        Node(Quirk::ReadsBeforeTheLease),
        "coherence E1",
        "the primary is read before the lease is taken",
    ),
    (Node(Quirk::FillsAfterATimeout), "coherence D9", "a reservation that timed out is filled"),
    (Node(Quirk::FlightsBySession), "coherence F1", "reads are shared by session, not by lease"),
    (Node(Quirk::ReadsAlone), "pitfalls 2.1 C10", "concurrent misses read once each"),
    (Node(Quirk::NeverFills), "pitfalls 4 B05", "what was evicted is never cached again"),
    (Node(Quirk::FailedReadsKeepTheLease), "coherence 4.2", "a failed read keeps its lease"),
    (
        Node(Quirk::EntriesOutliveSessions),
        "pitfalls 2.1 C2",
        "an entry lives longer than its session",
    ),
    (Node(Quirk::CreationsFill), "coherence C9", "a login writes its session into the cache"),
    (Node(Quirk::CreationsKeepAbsences), "coherence C8", "a login leaves a cached absence"),
    (Node(Quirk::BlindUpdates), "coherence D3", "an update puts its version blindly"),
    (Node(Quirk::UpdatesOnlySwap), "coherence D7", "a refused swap is not followed by a removal"),
    (
        Node(Quirk::MissingKeepsTheEntry),
        "pitfalls 4 B07b",
        "an update that found nothing leaves the entry",
    ),
    (
        Node(Quirk::ErrorsKeepTheEntry),
        "conformance L-37",
        "an update with a lost reply leaves the entry",
    ),
    (Node(Quirk::RemovesBeforeCommit), "coherence E5", "the removal is sent before the commit"),
    (Node(Quirk::RemovesBesideCommit), "coherence A4", "the removal is sent beside the commit"),
    (Node(Quirk::SwallowsRemoveErrors), "coherence E7", "a failed removal is reported as done"),
    (Node(Quirk::RemovesInTheBackground), "pitfalls 1 seeds", "the removal is not waited for"),
    (Node(Quirk::RemovesOnlyWhatItEnded), "coherence E8", "nothing to revoke, nothing removed"),
    (
        Node(Quirk::LostRepliesKeepTheEntry),
        "coherence C4",
        "a commit with a lost reply leaves the entry",
    ),
    (Node(Quirk::RemovesOneByOne), "pitfalls 4 last rows", "a removal costs a round trip per key"),
    (Node(Quirk::RemovesTwice), "review of 2026-11-21", "a removal names each key twice"),
    (Node(Quirk::WaitsForNothing), "coherence T8", "waiting out does not wait"),
    (Node(Quirk::AsksBoth), "conformance L-02", "a hit asks the primary too"),
    (Node(Quirk::CacheErrorsAreAbsences), "pitfalls 2.2 A7", "an error of the cache is an absence"),
    (Node(Quirk::OutagesAreAbsences), "pitfalls 2.2 A2", "an outage of the primary is an absence"),
    (Node(Quirk::ServesForEver), "conformance L-14", "an entry is served after its end"),
    (Node(Quirk::FreshAsksTheCache), "design 4", "a fresh answer comes from the cache"),
    (Node(Quirk::ListsTheCached), "pitfalls M12", "only cached sessions are listed"),
    (
        Node(Quirk::EndsTheExpired),
        "conformance P-96",
        "a reader ends what its own clock calls expired",
    ),
    (Node(Quirk::ExpiredAreUnknown), "conformance P-11", "an expired session is unknown"),
    (Node(Quirk::ReadsLag), "conformance L-54", "reads of the primary lag behind by one"),
    (Node(Quirk::WritesOnReading), "conformance P-12", "a lookup writes to the primary"),
    (Node(Quirk::KeysPerNode), "conformance L-55", "nodes do not find each other's entries"),
    (
        Node(Quirk::CountsTheOwnerToo),
        "review of 2026-11-21",
        "a session is read twenty times and then refused",
    ),
    (Node(Quirk::IgnoresThePrefix), "conformance L-55", "the key prefix is not used"),
    (Node(Quirk::TouchesTwice), "conformance L-50", "every use is written twice"),
    (Node(Quirk::SwallowsTouchErrors), "conformance L-51", "touches that failed are forgotten"),
    (Node(Quirk::TouchesRemove), "conformance L-52", "a touch removes the entry"),
    (Node(Quirk::TouchesFromTheFuture), "conformance P-97", "a clock set back prolongs sessions"),
    (Node(Quirk::ClaimsToBeShared), "coherence 4.4", "a cache of one process passes for shared"),
    (Node(Quirk::HidesTheEpoch), "coherence H1", "nobody notices that the cache is another one"),
    (
        Node(Quirk::ClaimsToBeLinearizable),
        "coherence 4.4",
        "an eventual cache passes for linearizable",
    ),
    (Node(Quirk::Unstamped), "coherence T3", "entries of an eventual cache carry no end"),
    (Node(Quirk::DropsTheServersTime), "coherence 4.4", "the server's clock is not compared"),
    (Node(Quirk::CachesAbsenceBlindly), "coherence 4.4", "an eventual cache holds absences"),
    (Node(Quirk::NearWithoutGenerations), "coherence T12", "a late read enters the near cache"),
    (
        Node(Quirk::NearPurgedFirst),
        "coherence T14",
        "the near cache is purged before the shared one",
    ),
    (Node(Quirk::NearFromAfter), "coherence T13", "the near TTL runs from after the shared read"),
    (Cache(cache::Defect::KeepsLeases), "coherence E4", "leases survive a removal"),
    (
        Cache(cache::Defect::SharesLeases),
        "coherence C11",
        "a copy of a reservation recreates its lease",
    ),
    (Cache(cache::Defect::SwapsAnything), "coherence E3", "a fill needs an entry, not its lease"),
    (Cache(cache::Defect::SwapsAbsent), "coherence A6", "a fill needs an absent key"),
    (Cache(cache::Defect::KeepSets), "coherence T20", "an update renews its entry"),
    (Cache(cache::Defect::BringsBack), "coherence H1", "a removed entry comes back"),
    (Cache(cache::Defect::RemovesNothing), "coherence 5.3", "a removal does nothing"),
    (Cache(cache::Defect::LeavesTombstones), "coherence B5", "a removal leaves a tombstone"),
    (Cache(cache::Defect::LostIsAnError), "pitfalls 2.1 S1", "an evicted entry is an error"),
    (Cache(cache::Defect::StoresText), "conformance S-05", "the cache keeps text only"),
    (Primary(primary::Defect::ForgetsEarlier), "coherence E8", "a second revoke-all names nothing"),
    (
        Primary(primary::Defect::NamesNothing),
        "pitfalls M6",
        "a revocation does not name what it ended",
    ),
    (Primary(primary::Defect::NamesTheEndedAgain), "conformance P-88", "a session is ended twice"),
    (
        Primary(primary::Defect::RevokesAPage),
        "pitfalls 4 B20",
        "a revoke-all ends a hundred sessions",
    ),
    (Primary(primary::Defect::RevokesNothing), "pitfalls M6", "a revoke-all ends nothing"),
    (
        Primary(primary::Defect::IgnoresOwners),
        "conformance P-71",
        "a user ends another user's session",
    ),
    (Primary(primary::Defect::SparesNobody), "conformance P-74", "nobody is spared"),
    (Primary(primary::Defect::HidesTheEvicted), "conformance L-23", "evicted sessions stay cached"),
    (
        Primary(primary::Defect::UserUpdatesNameNothing),
        "pitfalls 4 B08",
        "a changed user stays cached",
    ),
    (
        Primary(primary::Defect::DeletesTheLastOnly),
        "pitfalls 1 Auth.js",
        "a deletion leaves sessions",
    ),
    (Primary(primary::Defect::ForgetsQuarantine), "coherence U6", "a deleted id is free at once"),
    (
        Primary(primary::Defect::SettlesNothing),
        "audit of 2026-11-21",
        "a deleted id rests for as long as it was held",
    ),
    (
        Primary(primary::Defect::RestsAreNeverLonger),
        "audit of 2026-11-21",
        "a slow deletion prolongs no quarantine",
    ),
    (Primary(primary::Defect::NeverReadsTheFlag), "conformance P-47", "a revoked session is alive"),
    (Primary(primary::Defect::AddressesByCase), "conformance P-99", "addresses have a case"),
    (Primary(primary::Defect::GivesGuestsAUser), "pitfalls 4 B08", "a guest is shown as a user"),
    (Primary(primary::Defect::IgnoresVersions), "conformance P-44", "two rotations both succeed"),
    (Primary(primary::Defect::ForgetsThePrevious), "conformance P-46", "a rotation has no grace"),
    (Primary(primary::Defect::DropsElevations), "conformance T-13", "an elevation is not stored"),
    (Primary(primary::Defect::TouchesRevive), "pitfalls M5", "a touch revives a revoked session"),
    (
        Primary(primary::Defect::UpdatesRevive),
        "coherence D2",
        "an update revives a revoked session",
    ),
    (Primary(primary::Defect::CutsText), "conformance P-101", "long text is cut by the store"),
    (
        Primary(primary::Defect::SweepsTheLiving),
        "conformance P-79",
        "a sweep leaves no room for skew",
    ),
    (Primary(primary::Defect::SweepsEndEarly), "conformance P-80", "a sweep ends after one step"),
    (
        Primary(primary::Defect::KnowsOnlyItself),
        "coherence 4.6",
        "other caches are not reckoned with",
    ),
    (Primary(primary::Defect::TheLogEndsEarly), "coherence 4.6", "a drain ends after one page"),
    (
        Primary(primary::Defect::DrainsOneAtATime),
        "review of 2026-11-21",
        "an entry that can't be removed whole holds up those behind it",
    ),
    (
        Primary(primary::Defect::ShellsAreNotLogged),
        "pitfalls M3",
        "a row deleted by hand stays cached",
    ),
];
