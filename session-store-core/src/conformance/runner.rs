//! Cases, and how one of them is run: alone, in time, and without taking the others down.

use std::any::Any;
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
pub enum Filter {
    /// Every case.
    #[default]
    All,
    /// Those with this id, and those whose name contains this.
    Containing(String),
    /// The one of this name.
    Named(String),
}

impl Filter {
    pub(super) fn admits<B>(&self, case: &Case<B>) -> bool {
        match self {
            Self::All => true,
            Self::Containing(part) => {
                case.name.contains(part) || case.id.split(' ').any(|id| id == part)
            }
            Self::Named(name) => case.name == name,
        }
    }
}

impl<B> Case<B> {
    /// A name for what the case stores, made of its first id: no other case has it.
    pub(super) fn namespace(&self, role: char) -> String {
        let id = self.id.split(' ').next().unwrap_or_default();
        format!("{role}_{}", id.replace('-', "_").to_lowercase())
    }
}

/// Where a case notes that it held the adapter to a weaker promise.
#[derive(Debug, Default)]
pub(super) struct Weakness(Mutex<Option<Weaker>>);

/// A capability, and the bound that was asserted instead.
pub(super) type Weaker = (String, Duration);

impl Weakness {
    pub(super) fn note(&self, capability: &str, bound: Duration) {
        *self.0.lock() = Some((capability.to_owned(), bound));
    }

    /// What a case that ended well comes to.
    pub(super) fn taken(&self) -> Option<Weaker> {
        self.0.lock().take()
    }
}

/// Opens the stores and runs the case until it is done, panics, or `patience` ends.
pub(super) async fn judge<B>(
    case: &Case<B>,
    patience: impl FnOnce() -> BoxFuture<'static, ()>,
    work: impl Future<Output = Result<Option<Weaker>, Violation>>,
) -> CaseReport {
    let work = AssertUnwindSafe(async {
        let patience = patience();
        match select(pin!(work), patience).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(_) => Err(Violation::new("did not end in time")),
        }
    });
    let verdict = match work.catch_unwind().await {
        Ok(Ok(None)) => Verdict::Pass,
        Ok(Ok(Some((capability, bound)))) => Verdict::Weak { capability, bound },
        Ok(Err(violation)) => Verdict::Fail { detail: violation.to_string() },
        Err(panic) => Verdict::Fail { detail: format!("panicked: {}", message(&*panic)) },
    };
    CaseReport { id: case.id, name: case.name, title: case.title, verdict }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

/// What a case comes to whose stores could not even be opened.
pub(super) fn unopened(error: &crate::error::Error) -> Violation {
    Violation::new(format!("could not be opened: {error:?}"))
}
