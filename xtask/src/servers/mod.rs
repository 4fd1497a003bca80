//! `cargo xtask servers`: private servers on free ports, for the tests and for whoever develops.
//!
//! A variable that names an existing server wins. Only what was started here is stopped.

pub(crate) mod book;
mod books;
mod docker;
pub(crate) mod dynamodb;
pub(crate) mod install;
mod interrupt;
pub(crate) mod pgbouncer;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod redis;
mod state;
pub(crate) mod valkey;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::cli::{Failure, Verdict, complain, say};
use book::{Book, Home, Way};
use state::State;

/// A server that the tests need.
pub(crate) struct Kind {
    /// What it is called in the state and in messages.
    name: &'static str,
    /// The variable that names it.
    pub(crate) variable: &'static str,
    /// Starts it, beside those that are there already; its address.
    start: fn(&Home, &Addresses) -> Result<String, Failure>,
    /// Whether it needs one of the others.
    is_second: bool,
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
        variable: dynamodb::VARIABLE,
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

/// `up`, `up --docker`, `down` or `env`.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<Verdict, Failure> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["up"] => shown(root, Way::Programs)?,
        ["up", "--docker"] => shown(root, Way::Containers)?,
        ["down"] => {
            let stopped = Book::open(&state_file(root), Way::Programs)?.stop_all()?;
            say(if stopped == 0 { "nothing to stop" } else { "stopped" });
        }
        ["env"] => {
            let state = State::read(&state_file(root))?;
            let addresses = known(|name| state.url(name));
            if addresses.0.is_empty() {
                return Err(Failure::new(
                    "no server is up; start them with `cargo xtask servers up`",
                ));
            }
            for (variable, url) in addresses.0 {
                say(&format!("export {variable}='{url}'"));
            }
        }
        _ => return Err(Failure::new("servers: say `up`, `up --docker`, `down` or `env`")),
    }
    Ok(Verdict::Held)
}

fn shown(root: &Path, way: Way) -> Result<(), Failure> {
    let book = Book::open(&state_file(root), way)?;
    interrupt::undoes()?;
    let began = Instant::now();
    let addresses = up(&KINDS, &book, &book)?.0;
    let took = began.elapsed().as_secs_f32();
    for (variable, url) in &addresses {
        say(&format!("{variable}={url}"));
    }
    complain(&format!("servers: {} are up after {took:.1} s", addresses.len()));
    Ok(())
}

/// Starts from `book` what is neither there nor in `shared`, side by side; then what needs the
/// others. One that can't be started leaves nothing behind, and none of the others.
fn up(kinds: &[Kind], shared: &Book, book: &Arc<Book>) -> Result<Addresses, Failure> {
    let url = |name: &str| shared.url(name).or_else(|| book.url(name));
    let mut outcome = Ok(());
    for is_second in [false, true] {
        let others = known(url);
        let wanted = kinds.iter().filter(|kind| {
            let is_there = from_outside(kind.variable).is_some() || url(kind.name).is_some();
            kind.is_second == is_second && !is_there
        });
        let started: Vec<_> = std::thread::scope(|scope| {
            let others = &others;
            let threads: Vec<_> =
                wanted.map(|kind| scope.spawn(move || start(book, kind, others))).collect();
            threads.into_iter().map(joined).collect()
        });
        outcome = started.into_iter().fold(outcome, Result::and);
    }
    match outcome {
        Ok(()) => Ok(known(url)),
        Err(failure) => {
            let left = book.undo().err().map_or(String::new(), |left| format!("; {left}"));
            Err(Failure::new(format!("{failure}{left}")))
        }
    }
}

fn start(book: &Arc<Book>, kind: &Kind, others: &Addresses) -> Result<(), Failure> {
    let home = book.home(kind.name)?;
    let started = (kind.start)(&home, others).and_then(|url| home.ready(url));
    started.map_err(|failure| {
        let (name, variable) = (kind.name, kind.variable);
        let left = home.give_up().err().map_or(String::new(), |left| format!("; {left}"));
        Failure::new(format!("{name}: {failure}{left}; or set {variable} to a server of yours"))
    })
}

fn joined(thread: std::thread::ScopedJoinHandle<'_, Result<(), Failure>>) -> Result<(), Failure> {
    thread.join().unwrap_or_else(|_| Err(Failure::new("a thread that starts a server broke")))
}

/// Returns unless a signal is ending this process, which then ends by itself in a moment.
pub(crate) fn leave_to_signal() {
    if books::is_closed() {
        std::thread::sleep(Duration::from_mins(2));
    }
}

/// The book of the lease that this process holds.
static HELD: Mutex<Weak<Book>> = Mutex::new(Weak::new());

/// A place for a server of one's own, which ends with the lease at the latest.
pub(crate) fn home(name: &str) -> Result<Home, Failure> {
    let book = HELD.lock().upgrade();
    book.ok_or_else(|| Failure::new("no lease of servers is held"))?.home(name)
}

/// Servers for the length of a run. What `up` started is used and stays; the rest is started for
/// this run alone, whoever else runs at the same time, and given back however it ends.
pub(crate) struct Lease {
    book: Arc<Book>,
    /// Where they are.
    pub(crate) addresses: Addresses,
}

impl Lease {
    /// Starts what is missing.
    pub(crate) fn take(root: &Path) -> Result<Self, Failure> {
        let path = state_file(root);
        // Held until all are there: what is missing on this machine is installed once.
        let shared = Book::open(&path, Way::Programs)?;
        let book = Book::own(&path)?;
        interrupt::undoes()?;
        // From here on, whatever was started is given back by the lease, also after a failure.
        let mut lease = Self { book, addresses: Addresses::default() };
        lease.addresses = up(&KINDS, &shared, &lease.book)?;
        shared.release();
        *HELD.lock() = Arc::downgrade(&lease.book);
        Ok(lease)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Err(failure) = self.book.undo() {
            complain(&format!("servers: {failure}"));
        }
    }
}

fn state_file(root: &Path) -> PathBuf {
    root.join("target/servers.json")
}

fn from_outside(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|url| !url.is_empty())
}

fn known(url: impl Fn(&str) -> Option<String>) -> Addresses {
    let found = KINDS.iter().filter_map(|kind| {
        let url = from_outside(kind.variable).or_else(|| url(kind.name))?;
        Some((kind.variable, url))
    });
    Addresses(found.collect())
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use process::Running;

    fn sleeping(home: &Home) -> Result<Running, Failure> {
        let mut command = Command::new("sleep");
        command.arg("600");
        home.start(command, Path::new("/dev/null"), Duration::from_secs(5), || true)
    }

    static SEEN: Mutex<Option<Running>> = Mutex::new(None);

    fn half(home: &Home, _: &Addresses) -> Result<String, Failure> {
        *SEEN.lock() = Some(sleeping(home)?);
        Err(Failure::new("the second of two did not start"))
    }

    #[test]
    fn what_fails_half_way_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("target/servers.json");
        let book = Book::open(&path, Way::Programs).unwrap();
        let kind = Kind { name: "test-failing", variable: "X_URL", start: half, is_second: false };
        let others = Addresses::default();
        let failure = start(&book, &kind, &others).unwrap_err().to_string();
        assert!(failure.contains("test-failing") && failure.contains("X_URL"), "{failure}");
        assert_eq!(State::read(&path).unwrap(), State::default());
        assert!(!state::folder("test-failing").exists());
        assert!(!SEEN.lock().clone().unwrap().is_alive());
    }

    static WHOLE: Mutex<Vec<Running>> = Mutex::new(Vec::new());

    fn whole(home: &Home, _: &Addresses) -> Result<String, Failure> {
        WHOLE.lock().push(sleeping(home)?);
        Ok("nap://".to_owned())
    }

    fn broken(home: &Home, _: &Addresses) -> Result<String, Failure> {
        WHOLE.lock().push(sleeping(home)?);
        panic!("a start broke")
    }

    fn refused(_: &Home, _: &Addresses) -> Result<String, Failure> {
        Err(Failure::new("no such server"))
    }

    #[test]
    fn one_that_does_not_start_leaves_none_of_the_others() {
        let kind = |name, start| Kind { name, variable: "X_URL", start, is_second: false };
        let whole = kind("test-whole-one", whole);
        for other in [kind("test-broken", broken), kind("test-refused", refused)] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("target/servers.json");
            let shared = Book::open(&path, Way::Programs).unwrap();
            let kinds = [Kind { ..whole }, other];
            assert!(up(&kinds, &shared, &shared).is_err());
            let started = std::mem::take(&mut *WHOLE.lock());
            assert!(!started.is_empty() && !started.iter().any(Running::is_alive));
            assert_eq!(State::read(&path).unwrap(), State::default());
        }
    }

    #[test]
    fn a_run_beside_another_has_servers_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("target/servers.json");
        let shared = Book::open(&path, Way::Programs).unwrap();
        let book = Book::own(&path).unwrap();
        let home = book.home("test-lease").unwrap();
        let running = sleeping(&home).unwrap();
        home.ready("nap://".to_owned()).unwrap();
        shared.release();
        // The next command neither uses nor stops them, and neither does `down`.
        let next = Book::open(&path, Way::Programs).unwrap();
        assert_eq!(next.url("test-lease"), None);
        assert_eq!(next.stop_all().unwrap(), 0);
        assert!(running.is_alive());
        let file = books::own(&path).unwrap();
        assert!(file.exists());
        book.undo().unwrap();
        assert!(!running.is_alive() && !file.exists());
    }

    #[test]
    fn a_lease_is_given_back_by_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let book = Book::open(&folder.path().join("target/servers.json"), Way::Programs).unwrap();
        let mut seen = None;
        let broken = catch_unwind(AssertUnwindSafe(|| {
            let lease = Lease { book, addresses: Addresses::default() };
            let home = lease.book.home("test-panic").unwrap();
            seen = Some(sleeping(&home).unwrap());
            home.ready(String::new()).unwrap();
            lease.book.release();
            panic!("a test broke");
        }));
        assert!(broken.is_err());
        assert!(!seen.unwrap().is_alive());
    }
}
