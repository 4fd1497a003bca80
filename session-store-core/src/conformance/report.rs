//! What a run found: verdicts, as data, text and Markdown.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write as _;
use std::panic::Location;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Error, ErrorKind};

/// Why a case failed, and where it said so.
#[derive(Clone, Debug)]
pub struct Violation {
    message: String,
    place: &'static Location<'static>,
}

impl Violation {
    /// A violation found at the caller's place.
    #[track_caller]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: Location::caller() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.message, self.place.file(), self.place.line())
    }
}

impl From<Error> for Violation {
    #[track_caller]
    fn from(error: Error) -> Self {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        Self::new(format!("unexpected error: {error:?}, cause: {cause:?}"))
    }
}

/// `got` must equal `wanted`.
#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "cases read better without references")]
pub(super) fn expect<T: PartialEq + fmt::Debug>(got: T, wanted: T) -> Result<(), Violation> {
    if got == wanted {
        return Ok(());
    }
    Err(Violation::new(format!("got {got:?}, wanted {wanted:?}")))
}

/// `holds` must be true.
#[track_caller]
pub(super) fn ensure(holds: bool, what: &str) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation::new(what)) }
}

/// Kinds that say more, for [`refused`], which asks for the kind alone.
pub(super) const INVALID_INPUT: ErrorKind = ErrorKind::InvalidInput { what: Cow::Borrowed("") };
pub(super) const CONFIGURATION: ErrorKind = ErrorKind::Configuration { what: Cow::Borrowed("") };
pub(super) const TOO_LARGE: ErrorKind = ErrorKind::TooLarge { what: "", limit: 0 };

/// The result must be an error of this kind, whatever else the kind says.
#[track_caller]
pub(super) fn refused<T: fmt::Debug>(
    result: Result<T, Error>,
    wanted: &ErrorKind,
) -> Result<(), Violation> {
    let is_wanted =
        |kind| std::mem::discriminant::<ErrorKind>(kind) == std::mem::discriminant(wanted);
    let got = match result {
        Err(error) if is_wanted(error.kind()) => return Ok(()),
        Err(error) => format!("the error {:?}", error.kind()),
        Ok(value) => format!("{value:?}"),
    };
    let debug = format!("{wanted:?}");
    let wanted = debug.split(' ').next().unwrap_or_default();
    Err(Violation::new(format!("got {got}, wanted the error {wanted}")))
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The contract holds.
    Pass,
    /// The weaker promise that the adapter declared holds.
    Weak {
        /// Which declared difference.
        capability: String,
        /// The bound that was asserted.
        bound: Duration,
    },
    /// It doesn't hold.
    Fail {
        /// What was found.
        detail: String,
    },
}

/// One case on one adapter.
#[derive(Clone, Debug)]
pub struct CaseReport {
    /// The ids it stands for.
    pub id: &'static str,
    /// Its name.
    pub name: &'static str,
    /// The sentence it proves.
    pub title: &'static str,
    /// What came of it.
    pub verdict: Verdict,
}

/// Every case on one adapter.
#[derive(Clone, Debug)]
pub struct AdapterReport {
    /// The adapter, or the pair as `layered:primary+secondary`.
    pub name: String,
    /// `primary`, `secondary` or `layered`.
    pub role: &'static str,
    /// The cases, in the order of the suite.
    pub cases: Vec<CaseReport>,
}

impl AdapterReport {
    /// How many cases passed, weak ones included, and how many failed. No case at all is a failure.
    pub fn counts(&self) -> (usize, usize) {
        let is_failed = |case: &&CaseReport| matches!(case.verdict, Verdict::Fail { .. });
        let failed = self.cases.iter().filter(is_failed).count();
        if self.cases.is_empty() { (0, 1) } else { (self.cases.len() - failed, failed) }
    }

    /// Panics with the whole report unless every case passed; for an adapter's own tests.
    ///
    /// # Panics
    ///
    /// When a case failed, or none ran.
    pub fn assert_conforms(&self) {
        let report = Report { adapters: vec![self.clone()] };
        assert!(self.counts().1 == 0, "{}", report.text());
    }
}

/// Every case on every adapter.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The adapters, in the order they ran.
    pub adapters: Vec<AdapterReport>,
}

impl Report {
    /// How many cases passed and failed.
    pub fn counts(&self) -> (usize, usize) {
        let counts = self.adapters.iter().map(AdapterReport::counts);
        counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// The report for programs.
    pub fn to_json(&self) -> String {
        let adapters: Vec<Value> = self.adapters.iter().map(adapter_json).collect();
        json!({ "adapters": adapters }).to_string()
    }

    /// The report for a terminal: what failed and what is weak, and the sum.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for adapter in &self.adapters {
            let (passed, failed) = adapter.counts();
            let _ = writeln!(text, "{:<28} {passed} passed, {failed} failed", adapter.name);
            for case in &adapter.cases {
                let (id, name) = (case.id, case.name);
                let _ = match &case.verdict {
                    Verdict::Pass => Ok(()),
                    Verdict::Weak { capability, bound } => {
                        writeln!(text, "  WEAK({capability}, {bound:?}) {id} {name}")
                    }
                    Verdict::Fail { detail } => {
                        writeln!(text, "  FAIL {id} {name}: {}\n       {detail}", case.title)
                    }
                };
            }
        }
        text
    }
}

fn adapter_json(adapter: &AdapterReport) -> Value {
    let cases: Vec<Value> = adapter.cases.iter().map(case_json).collect();
    json!({ "name": adapter.name, "role": adapter.role, "cases": cases })
}

fn case_json(case: &CaseReport) -> Value {
    let (verdict, capability, bound, detail) = match &case.verdict {
        Verdict::Pass => ("pass", None, None, None),
        Verdict::Weak { capability, bound } => {
            ("weak", Some(capability.as_str()), u64::try_from(bound.as_millis()).ok(), None)
        }
        Verdict::Fail { detail } => ("fail", None, None, Some(detail.as_str())),
    };
    json!({
        "id": case.id,
        "title": case.title,
        "verdict": verdict,
        "capability": capability,
        "bound_ms": bound,
        "detail": detail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_case_says_what_it_proves_and_what_was_found() {
        let verdict = Verdict::Fail { detail: "got 1, wanted 2".to_owned() };
        let case = CaseReport { id: "P-1", name: "one_is_two", title: "One is two.", verdict };
        let adapter = AdapterReport { name: "toy".to_owned(), role: "primary", cases: vec![case] };
        let text = Report { adapters: vec![adapter] }.text();
        let line = "FAIL P-1 one_is_two: One is two.\n       got 1, wanted 2\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_wrong_refusal_names_both_kinds() {
        let other: Result<u8, _> = Err(Error::new(ErrorKind::Unavailable, "toy"));
        let said = refused(other, &TOO_LARGE).err().map(|violation| violation.to_string());
        let said = said.unwrap_or_default();
        assert!(
            said.starts_with("got the error Unavailable, wanted the error TooLarge ("),
            "{said}"
        );
        let said = refused(Ok(7), &ErrorKind::Conflict).err().map(|one| one.to_string());
        assert!(said.unwrap_or_default().starts_with("got 7, wanted the error Conflict ("));
        let fine: Result<u8, _> = Err(Error::invalid("toy", "anything"));
        assert!(refused(fine, &INVALID_INPUT).is_ok());
    }
}
