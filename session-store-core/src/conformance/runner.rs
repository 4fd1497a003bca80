//! Cases, and how one of them is run: alone, in time, and without taking the others down.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, select};
use parking_lot::Mutex;

use super::report::{CaseReport, Verdict, Violation};
use crate::host::BoxFuture;

/// What a case comes to.
pub type Outcome = Result<(), Violation>;

/// One rule, as data.
#[derive(Debug)]
pub struct Case<B: 'static> {
    /// The ids of the catalogue that it stands for, separated by spaces.
    pub id: &'static str,
    /// The name of its function.
    pub name: &'static str,
    /// The sentence it proves.
    pub title: &'static str,
    /// The proof.
    pub run: for<'a> fn(&'a B) -> BoxFuture<'a, Outcome>,
}

/// Which cases to run.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only cases whose id or name contains this. Default: all.
    pub containing: Option<String>,
}

impl Filter {
    /// Every case.
    pub fn all() -> Self {
        Self::default()
    }

    pub(super) fn admits<B>(&self, case: &Case<B>) -> bool {
        self.containing
            .as_deref()
            .is_none_or(|part| case.name.contains(part) || case.id.split(' ').any(|id| id == part))
    }
}

/// Where a case notes that it held the adapter to a weaker promise.
#[derive(Debug, Default)]
pub(super) struct Weakness(Mutex<Option<(String, Duration)>>);

impl Weakness {
    pub(super) fn note(&self, capability: &str, bound: Duration) {
        *self.0.lock() = Some((capability.to_owned(), bound));
    }
}

/// Runs `work` until it is done, panics, or `patience` ends.
pub(super) async fn judge<B>(
    case: &Case<B>,
    weakness: &Weakness,
    patience: BoxFuture<'_, ()>,
    work: impl Future<Output = Outcome>,
) -> CaseReport {
    let work = pin!(AssertUnwindSafe(work).catch_unwind());
    let verdict = match select(work, patience).await {
        Either::Left((Ok(Ok(())), _)) => match weakness.0.lock().take() {
            None => Verdict::Pass,
            Some((capability, bound)) => Verdict::Weak { capability, bound },
        },
        Either::Left((Ok(Err(violation)), _)) => Verdict::Fail { detail: violation.to_string() },
        Either::Left((Err(_), _)) => Verdict::Fail { detail: "panicked".to_owned() },
        Either::Right(_) => Verdict::Fail { detail: "did not end in time".to_owned() },
    };
    CaseReport { id: case.id, name: case.name, title: case.title, verdict }
}

/// The report of a case whose stores could not even be opened.
pub(super) fn unopened<B>(case: &Case<B>, error: &crate::error::Error) -> CaseReport {
    let detail = format!("could not be opened: {error:?}");
    CaseReport {
        id: case.id,
        name: case.name,
        title: case.title,
        verdict: Verdict::Fail { detail },
    }
}
