//! Developer commands of this repository, run as `cargo xtask COMMAND`.
//!
//! Exit status 0 means that everything asked for held; 1 means that it did not, and the last line says why.

mod bench;
mod ci;
mod cli;
mod command;
mod conformance;
mod faults;
mod generated;
mod members;
mod mutants;
mod quickstart;
mod servers;
mod test;
mod tidy;
mod violation;
mod workerd;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::{Failure, Verdict, complain, say};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  tidy         the rules of STYLE.md that no compiler knows, and the generated parts
  test         every test of the workspace; the last line is `N passed, M failed`
  lint         fmt, clippy, clippy per feature, doc, wasm32, deny, tidy
  ci           lint, mutants, then test: what a merge needs
  conformance  every adapter against the suite; writes the ledgers and the matrix of README.md
  bench        what our code costs on top of the bare drivers, as ratios of one run
  faults       servers that die, hang and come back under load; `--case WORDS`, `--seconds N`
  workers      the example Worker in workerd, with the cookies of two browsers
  servers      up, down or env: the private servers that the tests use; `up --docker`
  mutants      the suite against stores, caches and nodes that are broken in one way each";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = run(&arguments);
    // What a signal has ended has failed because of it, and its status says so.
    servers::leave_to_signal();
    match outcome {
        Ok(Verdict::Held) => ExitCode::SUCCESS,
        Ok(Verdict::Broken) => ExitCode::FAILURE,
        Err(failure) => {
            complain(&format!("xtask: {failure}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<Verdict, Failure> {
    let root = root()?;
    let asks = |word: &String| matches!(word.as_str(), "--help" | "-h");
    if arguments.iter().any(asks) || arguments == ["help"] {
        say(USAGE);
        return Ok(Verdict::Held);
    }
    match arguments.split_first() {
        Some((command, rest)) if command == "conformance" => conformance::run(&root, rest),
        Some((command, rest)) if command == "faults" => faults::run(&root, rest),
        Some((command, rest)) if command == "servers" => servers::run(&root, rest),
        Some((command, rest)) if command == "mutants" => mutants::run(&root, rest),
        Some((command, [])) => match command.as_str() {
            "tidy" => tidy::run(&root),
            "test" => test::run(&root),
            "bench" => bench::run(&root),
            "lint" => ci::lint(&root),
            "ci" => ci::run(&root),
            "workers" => workerd::run(&root),
            _ => Err(unknown(command)),
        },
        Some((command, rest)) => {
            Err(Failure::new(format!("`{command}` takes no arguments, got `{}`", rest.join(" "))))
        }
        None => Err(Failure::new(format!("no command\n{USAGE}"))),
    }
}

fn unknown(command: &str) -> Failure {
    Failure::new(format!("no command is called `{command}`; see `cargo xtask help`"))
}

/// The folder of the workspace: cargo names the folder of this package when it runs it.
fn root() -> Result<PathBuf, Failure> {
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map(PathBuf::from)
        .ok_or_else(|| Failure::new("run it as `cargo xtask`"))?;
    package
        .parent()
        .map(PathBuf::from)
        .ok_or_else(|| Failure::new("the package xtask lies in no workspace"))
}
