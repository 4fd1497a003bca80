//! `cargo xtask conformance`: every adapter against the suite.
//!
//! It writes what it found with [`crate::generated`]: first every ledger, then the matrix.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use session_store_core::conformance::{
    AdapterReport, Filter, PrimaryHarness, Report, SecondaryHarness, Verdict as Found, run_layered,
    run_primary, run_secondary,
};
use session_store_kv::dynamo::{DynamoCacheHarness, DynamoHarness};
use session_store_memory::{MemoryCacheHarness, MemoryHarness};
use session_store_postgres::PostgresHarness;
use session_store_redis::{Client, RedisHarness};
use session_store_sqlite::SqliteHarness;

use crate::cli::{Failure, Verdict, complain, say};
use crate::generated;
use crate::servers::{Addresses, Lease, dynamodb};
use crate::test::Tally;
use crate::workerd::{self, Time};

/// Every name that `--adapter` takes, in the order of the matrix.
const ADAPTERS: [&str; 27] = [
    "memory",
    "sqlite",
    "postgres",
    "dynamodb",
    "d1",
    "memory-cache",
    "dynamodb-cache",
    "redis",
    "redis-fred",
    "redis-cluster",
    "redis-sentinel",
    "valkey",
    "workers-kv",
    "layered:memory+memory-cache",
    "layered:sqlite+memory-cache",
    "layered:postgres+memory-cache",
    "layered:memory+redis",
    "layered:sqlite+redis",
    "layered:postgres+redis",
    "layered:postgres+redis-fred",
    "layered:postgres+redis-cluster",
    "layered:postgres+redis-sentinel",
    "layered:postgres+valkey",
    "layered:dynamodb+dynamodb-cache",
    "layered:memory+workers-kv",
    "layered:d1+workers-kv",
    "layered:d1+workers-kv-edge",
];

/// The caches on servers of the Redis family: name, variable and client library.
const FAMILY: [(&str, &str, Client); 5] = [
    ("redis", "SESSION_STORE_REDIS_URL", Client::Redis),
    ("redis-fred", "SESSION_STORE_REDIS_URL", Client::Fred),
    ("redis-cluster", "SESSION_STORE_REDIS_CLUSTER_URL", Client::Redis),
    ("redis-sentinel", "SESSION_STORE_REDIS_SENTINEL_URL", Client::Fred),
    ("valkey", "SESSION_STORE_VALKEY_URL", Client::Fred),
];

/// Whether `adapter` is `store`, or a pair with it.
fn has(adapter: &str, store: &str) -> bool {
    adapter.strip_prefix("layered:").unwrap_or(adapter).split('+').any(|part| part == store)
}

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    adapters: Vec<String>,
    json: Option<PathBuf>,
    filter: Option<String>,
    time: Time,
}

impl Asked {
    fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let mut asked = Self::default();
        let mut rest = arguments.iter();
        while let Some(flag) = rest.next() {
            if flag == "--real-time" {
                asked.time = Time::Real;
                continue;
            }
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

    /// Whether any adapter that was asked for is, or has in it, this store.
    fn wants_any(&self, store: &str) -> bool {
        ADAPTERS.into_iter().any(|name| has(name, store) && self.wants(name))
    }

    fn needs_servers(&self) -> bool {
        ["postgres", "dynamodb", "dynamodb-cache"].iter().any(|name| self.wants_any(name))
            || FAMILY.iter().any(|(name, ..)| self.wants_any(name))
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
    let report = report(root, &asked, &addresses)?;
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
    let report = report(root, &Asked::default(), servers)?;
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
    let second = second_opinion(root)?;
    Ok(counted(&report).plus(second).plus(Tally { passed: 0, failed: stale }))
}

/// DynamoDB's adapters once more, against another server that speaks its protocol, where a machine has
/// its program. It takes minutes to build, so that none is installed.
fn second_opinion(root: &Path) -> Result<Tally, Failure> {
    let Some(url) = dynamodb::second()? else {
        say("conformance: no dynoxide here, so DynamoDB's adapters were judged by ministack alone");
        return Ok(Tally::default());
    };
    let (adapters, filter) = (ADAPTERS.into_iter().filter(|name| has(name, "dynamodb")), None);
    let alone = std::iter::once("dynamodb-cache").chain(adapters).map(str::to_owned);
    let asked = Asked { adapters: alone.collect(), filter, ..Asked::default() };
    let report = report(root, &asked, &Addresses(vec![(dynamodb::VARIABLE, url)]))?;
    say("against dynoxide:");
    say(&report.text());
    Ok(counted(&report))
}

fn counted(report: &Report) -> Tally {
    let (passed, failed) = report.counts();
    Tally { passed: passed as u64, failed: failed as u64 }
}

/// Where the stores of one adapter come from. Each adapter has hands of its own, since cases of the
/// same name run side by side. They live as long as this process, which runs the suite once.
struct Hands {
    memory: &'static MemoryHarness,
    sqlite: &'static SqliteHarness,
    postgres: Option<&'static PostgresHarness>,
    family: Vec<&'static RedisHarness>,
    dynamodb: Option<&'static DynamoHarness>,
    dynamodb_cache: Option<&'static DynamoCacheHarness>,
}

impl Hands {
    fn new(adapter: &str, servers: &Addresses) -> Result<Self, Failure> {
        let failed = |error: session_store_core::Error| Failure::new(error.to_string());
        let sqlite = SqliteHarness::new().map_err(failed)?;
        let postgres = if has(adapter, "postgres") {
            let harness = match servers.of("SESSION_STORE_POSTGRES_URL") {
                Some(url) => PostgresHarness::new(url),
                None => PostgresHarness::from_env().map_err(failed)?,
            };
            Some(&*Box::leak(Box::new(harness)))
        } else {
            None
        };
        let mut family = Vec::new();
        for (name, variable, client) in FAMILY.into_iter().filter(|(name, ..)| has(adapter, name)) {
            let harness = match servers.of(variable) {
                Some(line) => RedisHarness::new(name, line, client),
                None => RedisHarness::from_env(name, variable, client),
            };
            family.push(&*Box::leak(Box::new(harness.map_err(failed)?)));
        }
        let (mut dynamodb, mut dynamodb_cache) = (None, None);
        let url = servers.of(dynamodb::VARIABLE);
        if has(adapter, "dynamodb") {
            let harness =
                url.map_or_else(DynamoHarness::from_env, |url| Ok(DynamoHarness::new(url)));
            dynamodb = Some(&*Box::leak(Box::new(harness.map_err(failed)?)));
        }
        if has(adapter, "dynamodb-cache") {
            let known = url.map(|url| Ok(DynamoCacheHarness::new(url)));
            let harness = known.unwrap_or_else(DynamoCacheHarness::from_env);
            dynamodb_cache = Some(&*Box::leak(Box::new(harness.map_err(failed)?)));
        }
        Ok(Self {
            memory: Box::leak(Box::default()),
            sqlite: Box::leak(Box::new(sqlite)),
            postgres,
            family,
            dynamodb,
            dynamodb_cache,
        })
    }

    async fn run(&self, name: &str, filter: &Filter) -> Option<AdapterReport> {
        let pair = name.strip_prefix("layered:").and_then(|pair| pair.split_once('+'));
        Some(match (pair, self.primary(name)) {
            (Some((primary, secondary)), _) => {
                run_layered(self.primary(primary)?, self.secondary(secondary), filter).await
            }
            (None, Some(primary)) => run_primary(primary, filter).await,
            (None, None) => run_secondary(self.secondary(name), filter).await,
        })
    }

    fn secondary(&self, name: &str) -> &'static dyn SecondaryHarness {
        if let Some(harness) = self.dynamodb_cache.filter(|harness| harness.name() == name) {
            return harness;
        }
        let known = self.family.iter().find(|harness| harness.name() == name);
        known.map_or(&MemoryCacheHarness, |harness| *harness as &dyn SecondaryHarness)
    }

    fn primary(&self, name: &str) -> Option<&'static dyn PrimaryHarness> {
        match name {
            "memory" => Some(self.memory),
            "sqlite" => Some(self.sqlite),
            "postgres" => self.postgres.map(|harness| harness as &dyn PrimaryHarness),
            "dynamodb" => self.dynamodb.map(|harness| harness as &dyn PrimaryHarness),
            _ => None,
        }
    }
}

fn report(root: &Path, asked: &Asked, servers: &Addresses) -> Result<Report, Failure> {
    let filter = asked.filter.clone().map_or(Filter::All, Filter::Containing);
    let names: Vec<_> = ADAPTERS.into_iter().filter(|name| asked.wants(name)).collect();
    let (inside, names): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| workerd::runs(name));
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, AdapterReport)>, Failure> {
        // A case runs on one thread, so each thread takes one adapter at a time.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::io("tokio", &error))?;
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(name) = names.get(at) else { return Ok(done) };
            let hands = Hands::new(name, servers)?;
            if let Some(report) = runtime.block_on(hands.run(name, &filter)) {
                done.push((at, report));
            }
        }
    };
    // Cases wait more than they work.
    let threads = std::thread::available_parallelism().map_or(4, std::num::NonZero::get).max(4);
    let mut adapters = Vec::new();
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for handle in handles {
            let broken = |_| Err(Failure::new("conformance: a thread broke"));
            adapters.extend(handle.join().unwrap_or_else(broken)?);
        }
        Ok::<_, Failure>(())
    })?;
    let mut adapters: Vec<_> = adapters.into_iter().map(|(_, report)| report).collect();
    if !inside.is_empty() {
        let filter = asked.filter.as_deref();
        adapters.extend(workerd::reports(root, &inside, filter, asked.time)?);
    }
    // In the order of the matrix, wherever they ran.
    adapters.sort_by_key(|adapter| ADAPTERS.iter().position(|name| *name == adapter.name));
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
