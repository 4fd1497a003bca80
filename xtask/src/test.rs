//! `cargo xtask test`: every test of the workspace, and one sum at the end.
//!
//! Everything runs even after a failure, and a command that fails without naming a failed test counts as one.

use std::path::Path;
use std::time::Instant;

use crate::cli::{Failure, Verdict, complain, say};
use crate::command::Program;
use crate::members::{self, FACADE, Member};
use crate::servers::Lease;
use crate::servers::install::{self, Wanted};

/// What the tests of SQLite type SQL into.
const SHELL: Wanted = Wanted { program: "sqlite3", package: "sqlite3", elsewhere: "" };

/// How many tests passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that held.
    pub(crate) passed: u64,
    /// Tests that did not, and commands that broke before any test could.
    pub(crate) failed: u64,
}

impl Tally {
    /// The sum of both.
    #[must_use]
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { passed: self.passed + other.passed, failed: self.failed + other.failed }
    }

    /// Nothing failed, and something ran.
    pub(crate) fn verdict(self) -> Verdict {
        if self.failed == 0 && self.passed > 0 { Verdict::Held } else { Verdict::Broken }
    }
}

/// Runs all tests; the last line on stdout is `N passed, M failed`.
pub(crate) fn run(root: &Path) -> Result<Verdict, Failure> {
    let mut sum = Tally::default();
    let mut broken = Vec::new();
    let servers = Lease::take(root)?;
    install::find(&SHELL)?;
    for mut program in plan(&members::all(root)?) {
        for (variable, url) in &servers.addresses.0 {
            program = program.variable(variable, url);
        }
        let (tally, succeeded) = timed(&program.to_string(), || counted(&program, root))?;
        if !succeeded {
            broken.push(program.to_string());
        }
        sum = sum.plus(judged(tally, succeeded));
    }
    let at = &servers.addresses;
    for tally in [
        timed("quickstart", || or_failed(crate::quickstart::tally(root, at))),
        timed("faults", || or_failed(crate::faults::tally(at))),
        timed("conformance", || or_failed(crate::conformance::tally(root, at))),
        timed("the example Worker, in workerd", || or_failed(crate::workerd::example(root))),
    ] {
        sum = sum.plus(tally);
    }
    for program in broken {
        complain(&format!("test: `{program}` failed"));
    }
    if sum == Tally::default() {
        complain("test: not a single test ran");
    }
    say(&format!("{} passed, {} failed", sum.passed, sum.failed));
    Ok(sum.verdict())
}

/// Says what is done, and how long it took.
fn timed<T>(name: &str, work: impl FnOnce() -> T) -> T {
    say(&format!("\n== {name}"));
    let start = Instant::now();
    let done = work();
    say(&format!("== {name}: {:.1} s", start.elapsed().as_secs_f64()));
    done
}

/// The whole workspace, then the facade with no feature and with each feature alone.
fn plan(members: &[Member]) -> Vec<Program> {
    let facade = members.iter().filter(|member| member.name == FACADE);
    let alone =
        facade.flat_map(|member| &member.features).map(|feature| format!(" --features {feature}"));
    let subsets = std::iter::once(String::new()).chain(alone);
    std::iter::once("test --no-fail-fast --workspace --all-features".to_owned())
        .chain(subsets.map(|subset| {
            format!("test --no-fail-fast --package {FACADE} --no-default-features{subset}")
        }))
        .map(|arguments| Program::cargo(&arguments))
        .collect()
}

fn counted(program: &Program, root: &Path) -> Result<(Tally, bool), Failure> {
    let mut tally = Tally::default();
    let succeeded = program.watched(root, |line| {
        tally = tally.plus(parse(line).unwrap_or_default());
    })?;
    Ok((tally, succeeded))
}

fn judged(tally: Tally, succeeded: bool) -> Tally {
    let crashed = !succeeded && tally.failed == 0;
    tally.plus(Tally { passed: 0, failed: u64::from(crashed) })
}

fn or_failed(tally: Result<Tally, Failure>) -> Tally {
    tally.unwrap_or_else(|failure| {
        complain(&format!("test: {failure}"));
        Tally { passed: 0, failed: 1 }
    })
}

/// Reads `test result: ok. 3 passed; 0 failed; ..`; none for any other line.
fn parse(line: &str) -> Option<Tally> {
    let (_, counts) = line.split_once("test result: ")?.1.split_once(". ")?;
    let count = |noun: &str| {
        counts.split(';').find_map(|part| part.trim().strip_suffix(noun)?.trim().parse().ok())
    };
    Some(Tally { passed: count("passed")?, failed: count("failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_line_is_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(parse(line), Some(Tally { passed: 12, failed: 3 }));
    }

    #[test]
    fn any_other_line_is_not() {
        assert_eq!(parse("test result_is_kept ... ok"), None);
        assert_eq!(parse("12 passed, 3 failed"), None);
    }

    #[test]
    fn a_command_that_dies_without_a_failed_test_counts_as_one() {
        let tally = Tally { passed: 5, failed: 0 };
        assert_eq!(judged(tally, false), Tally { passed: 5, failed: 1 });
        assert_eq!(judged(tally, true), tally);
        assert_eq!(judged(Tally { passed: 5, failed: 2 }, false), Tally { passed: 5, failed: 2 });
    }

    #[test]
    fn zero_tests_are_a_failure() {
        assert_eq!(Tally::default().verdict(), Verdict::Broken);
        assert_eq!(Tally { passed: 1, failed: 0 }.verdict(), Verdict::Held);
        assert_eq!(Tally { passed: 1, failed: 1 }.verdict(), Verdict::Broken);
    }

    #[test]
    fn the_plan_has_the_workspace_the_bare_facade_and_each_feature_alone() {
        let features = vec!["memory".to_owned(), "sqlite".to_owned()];
        let facade = Member {
            name: FACADE.into(),
            manifest: "Cargo.toml".into(),
            features,
            is_published: true,
        };
        let lines: Vec<String> = plan(&[facade]).iter().map(ToString::to_string).collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[0].ends_with("--workspace --all-features"));
        assert!(lines[1].ends_with("--no-default-features"));
        assert!(lines[3].ends_with("--no-default-features --features sqlite"));
    }
}
