//! The example of the README, run as the README says, and on the pair that most people will use.

use std::path::Path;

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
    "ended 1 sessions, visible everywhere: Immediate",
    "tablet     is nobody:",
];

/// Runs it in this process's memory, then twice on Postgres and Redis.
pub(crate) fn tally(root: &Path, servers: &Addresses) -> Result<Tally, Failure> {
    let program = built(root)?;
    let (primary, secondary) = (postgres(servers)?, address(servers, "SESSION_STORE_REDIS_URL")?);
    let pair = [program.as_str(), "--primary", &primary, "--secondary", secondary];
    let pair = || Program::of(&pair);
    let literal = Program::cargo("run --quiet --example quickstart");
    let runs = [
        (literal, &["database  memory:", "Nothing of this is kept"][..]),
        (pair(), &["database  postgres", "cache     redis", "says the Secondary", "first run"]),
        (pair(), &["says the Secondary", "ada still has 1 session(s) from earlier runs"]),
    ];
    let mut tally = Tally::default();
    for (run, own) in runs {
        say(&format!("   {run}"));
        match judged(&run, root, own) {
            Ok(()) => tally.passed += 1,
            Err(failure) => {
                tally.failed += 1;
                say(&format!("   FAIL {failure}"));
            }
        }
    }
    Ok(tally)
}

fn judged(run: &Program, root: &Path, own: &[&str]) -> Result<(), Failure> {
    let said = String::from_utf8_lossy(&run.output(root)?).into_owned();
    missing(&said, EVERYWHERE.iter().chain(own))
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
