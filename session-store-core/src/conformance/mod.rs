//! The suite that holds every adapter, and the layered store, to their contracts.
//!
//! A case is data: ids, a name, a sentence and an async function. The runner is a function that
//! returns a [`Report`]; it needs no async runtime, no threads and no clock of its own, so that it
//! runs inside a Worker too. An adapter brings a [`PrimaryHarness`] or a [`SecondaryHarness`] of
//! about thirty lines. Not semver-stable: a new case may fail an adapter that passed before.

mod harness;
mod report;
mod runner;
mod host;
mod wire;
mod watched;
mod sample;
mod primary;
mod secondary;
mod layered;
mod token;
pub mod explore;

pub use harness::{Deed, Guard, PrimaryHarness, SecondaryHarness};
pub use host::{TestClock, TestRuntime};
pub use layered::run as run_layered;
pub use primary::run as run_primary;
pub use report::{AdapterReport, CaseReport, Report, Verdict, Violation};
pub use runner::{Case, Filter, Outcome};
pub use secondary::run as run_secondary;
pub use watched::{WatchedPrimary, WatchedSecondary};
pub use wire::{Hold, Op, Point, Wire};

/// Makes a table of cases: ids, the function of that name, and the sentence it proves.
macro_rules! checks {
    ($bench:ty; $($id:literal $name:ident $title:literal,)+) => {
        pub(super) const CASES: &[$crate::conformance::Case<$bench>] = &[
            $($crate::conformance::Case {
                id: $id,
                name: stringify!($name),
                title: $title,
                run: |bench| Box::pin($name(bench)),
            },)+
        ];
    };
}
use checks;
