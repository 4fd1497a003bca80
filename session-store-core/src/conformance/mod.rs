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
mod matrix;
mod token;
pub mod explore;

pub use harness::{Deed, Guard, NodeParts, PrimaryHarness, SecondaryHarness, Twist};
pub use host::{TestClock, TestRuntime};
pub use layered::{names as layered_cases, run as run_layered, run_twisted};
pub use primary::{names as primary_cases, run as run_primary};
pub use report::{AdapterReport, CaseReport, Report, Verdict, Violation};
pub use runner::{Case, Filter, Outcome};
pub use secondary::{names as secondary_cases, run as run_secondary};
pub use watched::{WatchedPrimary, WatchedSecondary};
pub use wire::{Hold, Op, Point, Wire};

/// Makes a table of cases: ids, the function of that name, and the sentence it proves. It also makes
/// the macro `$tests`, for [`conformance_tests!`](crate::conformance_tests): a test per case.
macro_rules! checks {
    // A macro that makes a macro has no other way to write a `$`.
    (($d:tt) $tests:ident: $bench:ty; $($id:literal $name:ident $title:literal,)+) => {
        pub(super) const CASES: &[$crate::conformance::Case<$bench>] = &[
            $($crate::conformance::Case {
                id: $id,
                name: stringify!($name),
                title: $title,
                run: |bench| Box::pin($name(bench)),
            },)+
        ];

        #[doc(hidden)]
        #[macro_export]
        macro_rules! $tests {
            (names) => { [$(stringify!($name)),+] };
            ($d check:path) => {
                $(
                    #[doc = $title]
                    #[::tokio::test]
                    async fn $name() {
                        $d check(stringify!($name)).await;
                    }
                )+
            };
        }
    };
}
use checks;

/// Makes one `#[tokio::test]` per case, so that editors and test runners know each by its name.
///
/// The crate that uses it needs `tokio` with `macros` and `rt`. The expressions are harnesses with a
/// static lifetime; they are evaluated once per case, in a module that imports all of yours.
///
/// `conformance_tests!(primary: &*HARNESS)`, `conformance_tests!(secondary: &MyHarness)`, or
/// `conformance_tests!(layered: &*HARNESS, &MyHarness)`; `examples/third_party.rs` uses it.
#[macro_export]
macro_rules! conformance_tests {
    (primary: $harness:expr) => {
        $crate::conformance_tests! { @make primary_cases,
            |filter| $crate::conformance::run_primary($harness, filter);
            primary_insert primary_find primary_update primary_touch primary_revoke primary_users primary_list primary_sweep primary_log primary_history primary_token
        }
    };
    (secondary: $harness:expr) => {
        $crate::conformance_tests! { @make secondary_cases,
            |filter| $crate::conformance::run_secondary($harness, filter);
            secondary_basics secondary_lease secondary_ttl
        }
    };
    (layered: $primary:expr, $secondary:expr) => {
        $crate::conformance_tests! { @make layered_cases,
            |filter| $crate::conformance::run_layered($primary, $secondary, filter);
            layered_read layered_flight layered_revoke layered_update layered_absent layered_users layered_deletion layered_policy layered_touch layered_cached layered_near layered_late layered_lost layered_again layered_numbers layered_in_use layered_background layered_clocks layered_eventual layered_shared layered_rotation layered_alone layered_rollback layered_refused layered_drained
        }
    };
    (@make $module:ident, |$filter:ident| $run:expr; $($table:ident)+) => {
        mod $module {
            use super::*;

            async fn check(name: &str) {
                let $filter = &$crate::conformance::Filter::Named(name.to_owned());
                $run.await.assert_conforms();
            }

            #[test]
            fn every_case_is_a_test() {
                let tests = [$(&$crate::$table!(names)[..]),+].concat();
                assert_eq!(tests, $crate::conformance::$module());
            }

            $(
                mod $table {
                    $crate::$table! { super::check }
                }
            )+
        }
    };
}
