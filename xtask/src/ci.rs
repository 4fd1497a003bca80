//! `cargo xtask lint` and `cargo xtask ci`: named steps in a row, stopping at the first that fails.
//!
//! Nothing here needs a network once the dependencies are fetched: advisories change by themselves and judge no merge.

use std::path::Path;
use std::time::Instant;

use crate::cli::{Failure, Verdict, complain, say};
use crate::command::Program;
use crate::members::{self, Member};

/// A heading and what runs under it, in order.
struct Step {
    name: &'static str,
    programs: Vec<Program>,
}

impl Step {
    fn new(name: &'static str, arguments: &[String]) -> Self {
        Self {
            name,
            programs: arguments.iter().map(|arguments| Program::cargo(arguments)).collect(),
        }
    }

    fn one(name: &'static str, arguments: &str) -> Self {
        Self { name, programs: vec![Program::cargo(arguments)] }
    }
}

/// Every check that is no test.
pub(crate) fn lint(root: &Path) -> Result<Verdict, Failure> {
    for step in steps(&members::all(root)?) {
        let held = timed(step.name, || {
            for program in &step.programs {
                say(&format!("   {program}"));
                if !program.succeeds(root)? {
                    return Ok(Verdict::Broken);
                }
            }
            Ok(Verdict::Held)
        })?;
        if held == Verdict::Broken {
            return Ok(Verdict::Broken);
        }
    }
    timed("tidy", || crate::tidy::run(root))
}

/// Lint, the mutants, then every test.
pub(crate) fn run(root: &Path) -> Result<Verdict, Failure> {
    if lint(root)? == Verdict::Broken
        || timed("mutants", || crate::mutants::run(root, &[]))? == Verdict::Broken
    {
        return Ok(Verdict::Broken);
    }
    say("\n== test");
    crate::test::run(root)
}

fn timed(name: &str, work: impl FnOnce() -> Result<Verdict, Failure>) -> Result<Verdict, Failure> {
    say(&format!("\n== {name}"));
    let start = Instant::now();
    let verdict = work()?;
    let elapsed = start.elapsed().as_secs_f64();
    match verdict {
        Verdict::Held => say(&format!("== {name}: ok, {elapsed:.1} s")),
        Verdict::Broken => complain(&format!("== {name}: FAILED, {elapsed:.1} s")),
    }
    Ok(verdict)
}

fn steps(members: &[Member]) -> Vec<Step> {
    let wasm = "check --package session-store-core --target wasm32-unknown-unknown";
    let documented = Program::cargo("doc --workspace --no-deps --all-features")
        .variable("RUSTDOCFLAGS", "-D warnings");
    vec![
        Step::one("fmt", "fmt --all --check"),
        Step::one("clippy", "clippy --workspace --all-targets --all-features -- -D warnings"),
        Step::new("clippy, each feature alone", &subsets(members)),
        Step { name: "doc", programs: vec![documented] },
        Step::new(
            "wasm32",
            &[
                wasm.to_owned(),
                format!("{wasm} --features conformance"),
                // What it is built of: core, the adapters of a Worker, and the facade.
                "check --package session-store-worker --target wasm32-unknown-unknown".to_owned(),
                "check --package workerd-suite --target wasm32-unknown-unknown".to_owned(),
            ],
        ),
        Step::one("deny", "deny --all-features check licenses bans sources"),
    ]
}

/// Each package as others build it (no tests, so no features of dev-dependencies), with no feature and each alone.
/// What nobody else builds was checked with the workspace.
fn subsets(members: &[Member]) -> Vec<String> {
    let lines = |member: &Member| {
        let alone = member.features.iter().map(|feature| format!(" --features {feature}"));
        let name = member.name.clone();
        std::iter::once(String::new())
            .chain(alone)
            .map(move |subset| {
                format!("clippy --package {name} --no-default-features{subset} -- -D warnings")
            })
            .collect::<Vec<_>>()
    };
    members.iter().filter(|member| member.is_published).flat_map(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, features: &[&str], is_published: bool) -> Member {
        let features = features.iter().map(ToString::to_string).collect();
        let manifest = format!("{name}/Cargo.toml");
        Member { name: name.into(), manifest, features, is_published }
    }

    #[test]
    fn every_feature_of_every_published_member_is_checked_alone() {
        let members =
            [member("a", &["x", "y"], true), member("b", &[], true), member("c", &["x"], false)];
        let lines = subsets(&members);
        assert_eq!(
            lines,
            [
                "clippy --package a --no-default-features -- -D warnings",
                "clippy --package a --no-default-features --features x -- -D warnings",
                "clippy --package a --no-default-features --features y -- -D warnings",
                "clippy --package b --no-default-features -- -D warnings",
            ]
        );
    }

    #[test]
    fn advisories_are_never_asked_for() {
        let lines: Vec<String> =
            steps(&[]).iter().flat_map(|step| &step.programs).map(ToString::to_string).collect();
        assert!(lines.iter().any(|line| line.contains("deny")));
        assert!(!lines.iter().any(|line| line.contains("advisories")));
    }
}
