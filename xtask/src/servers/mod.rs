//! `cargo xtask servers`: private servers on free ports, for the tests and for whoever develops.
//!
//! A variable that names an existing server wins. Only processes that were started here are stopped.

mod dynamodb;
pub(crate) mod install;
mod pgbouncer;
pub(crate) mod postgres;
pub(crate) mod redis;
pub(crate) mod state;
pub(crate) mod valkey;

use std::path::{Path, PathBuf};

use crate::cli::{Failure, Verdict, say};
use state::{Record, State};

/// A server that the tests need.
pub(crate) struct Kind {
    /// What it is called in the state and in messages.
    name: &'static str,
    /// The variable that names it.
    pub(crate) variable: &'static str,
    /// Starts it in an empty folder, beside those that are there already.
    start: fn(&Path, &Addresses) -> Result<Started, Failure>,
    /// Whether it needs one of the others.
    is_second: bool,
}

/// What was started.
struct Started {
    url: String,
    pids: Vec<u32>,
}

/// Every server.
const KINDS: [Kind; 7] = [
    Kind {
        name: "postgres",
        variable: "SESSION_STORE_POSTGRES_URL",
        start: postgres::start,
        is_second: false,
    },
    Kind {
        name: "pgbouncer",
        variable: "SESSION_STORE_PGBOUNCER_URL",
        start: pgbouncer::start,
        is_second: true,
    },
    Kind {
        name: "redis",
        variable: "SESSION_STORE_REDIS_URL",
        start: redis::start,
        is_second: false,
    },
    Kind {
        name: "valkey",
        variable: "SESSION_STORE_VALKEY_URL",
        start: redis::start_valkey,
        is_second: false,
    },
    Kind {
        name: "redis-cluster",
        variable: "SESSION_STORE_REDIS_CLUSTER_URL",
        start: redis::start_cluster,
        is_second: false,
    },
    Kind {
        name: "redis-sentinel",
        variable: "SESSION_STORE_REDIS_SENTINEL_URL",
        start: redis::start_sentinels,
        is_second: false,
    },
    Kind {
        name: "dynamodb",
        variable: "SESSION_STORE_DYNAMODB_URL",
        start: dynamodb::start,
        is_second: false,
    },
];

/// Servers that are there: name of the variable, and address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses(pub(crate) Vec<(&'static str, String)>);

impl Addresses {
    /// The address behind `variable`.
    pub(crate) fn of(&self, variable: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| *name == variable).map(|(_, url)| url.as_str())
    }
}

/// `up`, `down` or `env`.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<Verdict, Failure> {
    match arguments {
        [word] if word == "up" => {
            for (variable, url) in up(root)?.0 {
                say(&format!("{variable}={url}"));
            }
        }
        [word] if word == "down" => {
            let stopped = down(root)?;
            say(if stopped == 0 { "nothing to stop" } else { "stopped" });
        }
        [word] if word == "env" => {
            let addresses = known(&State::read(&state_file(root))?);
            if addresses.0.is_empty() {
                return Err(Failure::new(
                    "no server is up; start them with `cargo xtask servers up`",
                ));
            }
            for (variable, url) in addresses.0 {
                say(&format!("export {variable}='{url}'"));
            }
        }
        _ => return Err(Failure::new("servers: say `up`, `down` or `env`")),
    }
    Ok(Verdict::Held)
}

/// Starts what is not there yet, side by side; then what needs the others.
pub(crate) fn up(root: &Path) -> Result<Addresses, Failure> {
    let path = state_file(root);
    let mut state = State::read(&path)?;
    state.forget_dead();
    let mut outcome = Ok(());
    for is_second in [false, true] {
        let others = known(&state);
        let wanted = KINDS.iter().filter(|kind| {
            let is_there = from_outside(kind.variable).is_some() || state.has(kind.name);
            kind.is_second == is_second && !is_there
        });
        let started: Vec<_> = std::thread::scope(|scope| {
            let others = &others;
            let threads: Vec<_> =
                wanted.map(|kind| scope.spawn(move || start(kind, others))).collect();
            threads.into_iter().map(joined).collect()
        });
        for record in started {
            match record {
                Ok(record) => state.add(record),
                Err(failure) => outcome = outcome.and(Err(failure)),
            }
        }
        // Written whatever else failed: what was started must be stoppable.
        state.write(&path)?;
    }
    outcome.map(|()| known(&state))
}

fn start(kind: &Kind, others: &Addresses) -> Result<Record, Failure> {
    let folder = state::empty_folder(kind.name)?;
    let started = (kind.start)(&folder, others)?;
    Record::new(kind.name, &started.url, &started.pids, &folder)
}

fn joined(
    thread: std::thread::ScopedJoinHandle<'_, Result<Record, Failure>>,
) -> Result<Record, Failure> {
    thread.join().unwrap_or_else(|_| Err(Failure::new("a thread that starts a server broke")))
}

/// Stops what was started here; returns how many servers that were.
pub(crate) fn down(root: &Path) -> Result<usize, Failure> {
    let path = state_file(root);
    let state = State::read(&path)?;
    let count = state.stop()?;
    State::default().write(&path)?;
    Ok(count)
}

/// Servers for the length of a run. What was up before stays up.
pub(crate) struct Lease {
    root: PathBuf,
    is_ours: bool,
    /// Where they are.
    pub(crate) addresses: Addresses,
}

impl Lease {
    /// Starts what is missing.
    pub(crate) fn take(root: &Path) -> Result<Self, Failure> {
        let mut before = State::read(&state_file(root))?;
        before.forget_dead();
        let addresses = up(root)?;
        Ok(Self { root: root.to_owned(), is_ours: before.is_empty(), addresses })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_ours
            && let Err(failure) = down(&self.root)
        {
            crate::cli::complain(&format!("servers: {failure}"));
        }
    }
}

fn state_file(root: &Path) -> PathBuf {
    root.join("target/servers.json")
}

fn from_outside(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|url| !url.is_empty())
}

fn known(state: &State) -> Addresses {
    let found = KINDS.iter().filter_map(|kind| {
        let url = from_outside(kind.variable).or_else(|| state.url(kind.name))?;
        Some((kind.variable, url))
    });
    Addresses(found.collect())
}
