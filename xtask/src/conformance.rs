//! `cargo xtask conformance`: every adapter against the suite.
//!
//! It writes what it found with [`crate::generated`]: first every ledger, then the matrix.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use session_store_core::conformance::{
    AdapterReport, Filter, PrimaryHarness, Report, Verdict as Found, run_layered, run_primary,
    run_secondary,
};
use session_store_memory::{MemoryCacheHarness, MemoryHarness};
use session_store_postgres::PostgresHarness;
use session_store_sqlite::SqliteHarness;

use crate::cli::{Failure, Verdict, complain, say};
use crate::generated;
use crate::servers::{Addresses, Lease};
use crate::test::Tally;

/// Every name that `--adapter` takes, in the order of the matrix.
const ADAPTERS: [&str; 7] = [
    "memory",
    "sqlite",
    "postgres",
    "memory-cache",
    "layered:memory+memory-cache",
    "layered:sqlite+memory-cache",
    "layered:postgres+memory-cache",
];

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    adapters: Vec<String>,
    json: Option<PathBuf>,
    filter: Option<String>,
}

impl Asked {
    fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let mut asked = Self::default();
        let mut rest = arguments.iter();
        while let Some(flag) = rest.next() {
            let value = rest.next().ok_or_else(|| Failure::new(format!("{flag} needs a value")))?;
            match flag.as_str() {
                "--adapter" if ADAPTERS.contains(&value.as_str()) => {
                    asked.adapters.push(value.clone());
                }
                "--adapter" => {
                    let known = ADAPTERS.join(", ");
                    return Err(Failure::new(format!("no adapter {value:?}; there are {known}")));
                }
                "--json" => asked.json = Some(PathBuf::from(value)),
                "--case" => asked.filter = Some(value.clone()),
                _ => return Err(Failure::new(format!("conformance: unknown option {flag:?}"))),
            }
        }
        Ok(asked)
    }

    fn is_whole(&self) -> bool {
        self.adapters.is_empty() && self.filter.is_none()
    }

    /// Whether any adapter that was asked for has this store in it.
    fn wants_any(&self, store: &str) -> bool {
        ADAPTERS.into_iter().any(|name| name.contains(store) && self.wants(name))
    }

    fn needs_servers(&self) -> bool {
        self.wants_any("postgres")
    }

    fn wants(&self, name: &str) -> bool {
        self.adapters.is_empty() || self.adapters.iter().any(|adapter| adapter == name)
    }
}

/// Runs the suite against the adapters that were asked for; a whole run rewrites the generated
/// parts of the repository.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<Verdict, Failure> {
    let asked = Asked::parse(arguments)?;
    let servers = if asked.needs_servers() { Some(Lease::take(root)?) } else { None };
    let addresses = servers.as_ref().map(|servers| servers.addresses.clone()).unwrap_or_default();
    let report = report(&asked, &addresses)?;
    say(&report.text());
    if let Some(path) = &asked.json {
        let name = path.display().to_string();
        fs::write(path, report.to_json()).map_err(|error| Failure::io(&name, &error))?;
    }
    if asked.is_whole() {
        for adapter in &report.adapters {
            generated::write_ledger(root, &adapter.name.replace(':', "-"), &ledger(adapter))?;
        }
        generated::write_matrix(root, &report.markdown())?;
    }
    let tally = counted(&report);
    say(&format!("{} passed, {} failed", tally.passed, tally.failed));
    Ok(tally.verdict())
}

/// What the suite adds to the sum that `cargo xtask test` prints; writes nothing, but a ledger or a
/// matrix that says something else than this run counts as a failure.
pub(crate) fn tally(root: &Path, servers: &Addresses) -> Result<Tally, Failure> {
    let report = report(&Asked::default(), servers)?;
    say(&report.text());
    let mut stale = 0;
    for adapter in &report.adapters {
        let name = adapter.name.replace(':', "-");
        stale += u64::from(!generated::ledger_is(root, &name, &ledger(adapter)));
    }
    stale += u64::from(!generated::matrix_is(root, &report.markdown()));
    if stale > 0 {
        complain("conformance: the generated parts are stale; run `cargo xtask conformance`");
    }
    Ok(counted(&report).plus(Tally { passed: 0, failed: stale }))
}

fn counted(report: &Report) -> Tally {
    let (passed, failed) = report.counts();
    Tally { passed: passed as u64, failed: failed as u64 }
}

/// Where every store comes from. The suite runs once in the life of this process.
struct Hands {
    memory: &'static MemoryHarness,
    sqlite: &'static SqliteHarness,
    postgres: Option<&'static PostgresHarness>,
}

impl Hands {
    fn new(asked: &Asked, servers: &Addresses) -> Result<Self, Failure> {
        let failed = |error: session_store_core::Error| Failure::new(error.to_string());
        let sqlite = SqliteHarness::new().map_err(failed)?;
        let postgres = if asked.wants_any("postgres") {
            let url = servers.of("SESSION_STORE_POSTGRES_URL");
            let harness = match url {
                Some(url) => PostgresHarness::new(url),
                None => PostgresHarness::from_env().map_err(failed)?,
            };
            Some(&*Box::leak(Box::new(harness)))
        } else {
            None
        };
        Ok(Self {
            memory: Box::leak(Box::default()),
            sqlite: Box::leak(Box::new(sqlite)),
            postgres,
        })
    }

    fn primary(&self, name: &str) -> Option<&'static dyn PrimaryHarness> {
        match name {
            "memory" => Some(self.memory),
            "sqlite" => Some(self.sqlite),
            "postgres" => self.postgres.map(|harness| harness as &dyn PrimaryHarness),
            _ => None,
        }
    }
}

fn report(asked: &Asked, servers: &Addresses) -> Result<Report, Failure> {
    let filter = asked.filter.clone().map_or(Filter::All, Filter::Containing);
    let hands = Hands::new(asked, servers)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::io("tokio", &error))?;
    let mut adapters = Vec::new();
    runtime.block_on(async {
        for name in ADAPTERS.into_iter().filter(|name| asked.wants(name)) {
            let pair = name.strip_prefix("layered:").and_then(|pair| pair.split_once('+'));
            let truth = hands.primary(pair.map_or(name, |(primary, _)| primary));
            adapters.push(match (pair, truth) {
                (None, Some(primary)) => run_primary(primary, &filter).await,
                (Some(_), Some(primary)) => {
                    run_layered(primary, &MemoryCacheHarness, &filter).await
                }
                (_, None) => run_secondary(&MemoryCacheHarness, &filter).await,
            });
        }
    });
    Ok(Report { adapters })
}

/// Every promise that is weaker than the strongest, with its bound.
fn ledger(adapter: &AdapterReport) -> String {
    let mut text = format!("adapter = {:?}\n", adapter.name);
    for case in &adapter.cases {
        if let Found::Weak { capability, bound } = &case.verdict {
            let bound = bound.as_millis();
            // Writing into a string can't fail.
            let _ = write!(
                text,
                "\n[[weak]]\nid = {:?}\ntitle = {:?}\ncapability = {capability:?}\nbound_ms = {bound}\n",
                case.id, case.title
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn options_are_read_and_unknown_ones_refused() {
        let asked = Asked::parse(&words("--adapter sqlite --json out.json --case P-04"));
        let asked = asked.unwrap_or_default();
        assert!(asked.wants("sqlite") && !asked.wants("memory") && !asked.is_whole());
        assert!(Asked::parse(&words("--adapter oracle")).is_err());
        assert!(Asked::parse(&words("--adapter")).is_err());
        assert!(Asked::parse(&words("--fast yes")).is_err());
    }
}
