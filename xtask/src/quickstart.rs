//! The example of the README, run as the README says, and on the pair that most people will use.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use session_store::postgres::PostgresHarness;

use crate::cli::{Failure, say};
use crate::command::Program;
use crate::servers::Addresses;
use crate::test::Tally;

/// What every run must say.
const EVERYWHERE: [&str; 4] = [
    "promise   after a logout: Immediate",
    "ended 1 session, visible everywhere: Immediate",
    "tablet     is nobody:",
    "phone      is nobody:",
];

/// Runs it in memory, then twice on Postgres and Redis. Addresses may hold passwords, so that none is
/// shown.
pub(crate) fn tally(root: &Path, servers: &Addresses) -> Result<Tally, Failure> {
    let mut literal = Command::new("cargo");
    literal.args(["run", "--quiet", "--example", "quickstart"]);
    let in_memory = said(literal, root)
        .and_then(|said| judged(&said, &["database  memory:", "Nothing of this is kept"]));
    let primary = postgres(servers)?;
    let secondary = address(servers, "SESSION_STORE_REDIS_URL")?;
    // What cargo has just run lies at the same place.
    let program = built(root)?;
    let pair = |own: &[&str]| {
        let mut command = Command::new(&program);
        command.args(["--primary", &primary, "--secondary", secondary]);
        said(command, root).and_then(|said| judged(&said, own))
    };
    let runs = [
        ("in memory", in_memory),
        (
            "on Postgres and Redis",
            pair(&["database  postgres", "cache     redis", "says the Secondary", "first run"]),
        ),
        ("there again", pair(&["says the Secondary", "still has 1 session(s) from earlier runs"])),
    ];
    let mut tally = Tally::default();
    for (name, outcome) in runs {
        match outcome {
            Ok(()) => {
                tally.passed += 1;
                say(&format!("  held quickstart {name}"));
            }
            Err(failure) => {
                tally.failed += 1;
                say(&format!("  FAIL quickstart {name}: {failure}"));
            }
        }
    }
    Ok(tally)
}

/// What a run says that succeeds.
fn said(mut command: Command, root: &Path) -> Result<String, Failure> {
    command.current_dir(root).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().map_err(|error| Failure::io("quickstart", &error))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(said) } else { Err(Failure::new(said)) }
}

fn judged(said: &str, own: &[&str]) -> Result<(), Failure> {
    missing(said, EVERYWHERE.iter().chain(own))
        .map_or(Ok(()), |line| Err(Failure::new(format!("it does not say {line:?} but\n{said}"))))
}

/// Which of `lines` was not said.
fn missing<'a>(said: &str, lines: impl IntoIterator<Item = &'a &'a str>) -> Option<&'a str> {
    lines.into_iter().copied().find(|line| !said.contains(line))
}

/// The program with every feature, as the tests have built it already.
fn built(root: &Path) -> Result<String, Failure> {
    let build = "build --workspace --all-features --example quickstart --message-format json";
    let messages = Program::cargo(build).output(root)?;
    let messages = String::from_utf8_lossy(&messages).into_owned();
    let mut programs = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_it = message["target"]["name"] == "quickstart";
        message["executable"].as_str().filter(|_| is_it).map(str::to_owned)
    });
    programs.next_back().ok_or_else(|| Failure::new("cargo built no quickstart"))
}

fn address<'a>(servers: &'a Addresses, variable: &str) -> Result<&'a str, Failure> {
    servers.of(variable).ok_or_else(|| Failure::new(format!("quickstart: no {variable}")))
}

/// An empty schema: what is there already is not for an example to write into.
fn postgres(servers: &Addresses) -> Result<String, Failure> {
    let url = address(servers, "SESSION_STORE_POSTGRES_URL")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::io("tokio", &error))?;
    let fresh = PostgresHarness::new(url);
    let config = runtime.block_on(fresh.fresh("quickstart"));
    let config = config.map_err(|error| Failure::new(format!("quickstart: {error}")))?;
    let mark = if url.contains('?') { '&' } else { '?' };
    Ok(format!("{url}{mark}options[search_path]={}", config.schema.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_not_said_is_named() {
        assert_eq!(missing("one\ntwo", &["two", "one"]), None);
        assert_eq!(missing("one\ntwo", &["two", "three"]), Some("three"));
    }
}
