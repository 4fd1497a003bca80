//! The threads that talk to SQLite: one that writes, some that read.
//!
//! The writer takes whatever is queued into one transaction, with a savepoint per operation so that
//! one bad operation fails alone, and answers after the commit: the price of one `fsync` is shared
//! by all. Readers empty their queue **before** they open the snapshot; the other way round a read
//! could miss a write that was acknowledged before the read was asked for.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use parking_lot::Mutex;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use session_store_core::{Error, ErrorKind, Result};

use crate::config::{Access, SqliteConfig};
use crate::error::{NAME, classify, error, gone, read_only};

/// How many operations one transaction takes; more would make the first one wait too long.
const BATCH: usize = 512;
const READ_BATCH: usize = 64;
const STATEMENTS: usize = 64;

/// Tells the caller what came of it; `Some`: whatever the work found out, the transaction is lost.
type Answer = Box<dyn FnOnce(Option<Error>) + Send>;
/// Does the work, or is told why it can't be done, and says what went wrong.
type Job = Box<dyn FnOnce(Result<&Connection>) -> (Option<Error>, Answer) + Send>;

/// The threads of one database. They end when the last handle is dropped.
#[derive(Debug)]
pub(crate) struct Threads {
    writer: Option<Sender<Job>>,
    readers: Sender<Job>,
    /// For a read on the caller's own thread: microseconds instead of a wake-up of another one.
    inline: Mutex<Connection>,
}

impl Threads {
    pub(crate) fn start(config: &SqliteConfig, writer: Option<Connection>) -> Result<Self> {
        let (readers, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..config.readers.max(1) {
            let (connection, queue) = (open_reader(config)?, Arc::clone(&queue));
            spawn("session-store-read", move || read_loop(&connection, &queue))?;
        }
        let writer = match writer {
            None => None,
            Some(connection) => {
                let (writer, queue) = channel();
                spawn("session-store-write", move || {
                    write_loop(&connection, &queue);
                })?;
                Some(writer)
            }
        };
        let inline = open_reader(config)?;
        // Waiting is for the other threads.
        inline.busy_timeout(Duration::ZERO).map_err(classify)?;
        Ok(Self { writer, readers, inline: Mutex::new(inline) })
    }

    /// Runs `work` in the next write transaction.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(writer) = &self.writer else {
            return Err(Error::unsupported(NAME, "writing through a read-only handle"));
        };
        send(writer, work).await
    }

    /// Runs `work` in a snapshot that is opened after this call.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        send(&self.readers, work).await
    }

    /// Runs `work` here and now if the connection for it is free. One statement by primary key in a
    /// write-ahead log waits for nobody, so that the executor's thread is held for microseconds.
    /// `None`: it is not free, or something went wrong; ask by `read`.
    pub(crate) fn read_inline<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Option<T> {
        work(&*self.inline.try_lock()?).ok()
    }
}

async fn send<T: Send + 'static>(
    queue: &Sender<Job>,
    work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (job, result) = job(work);
    queue.send(job).map_err(|_| gone())?;
    result.await.unwrap_or_else(|_| Err(error(ErrorKind::Timeout)))
}

/// `work` as a job, and where its result will be.
fn job<T: Send + 'static>(
    work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
) -> (Job, oneshot::Receiver<Result<T>>) {
    let (reply, result) = oneshot::channel();
    let job: Job = Box::new(move |connection| {
        let outcome = connection.and_then(work);
        let failed = outcome.as_ref().err().cloned();
        let answer: Answer = Box::new(move |lost| {
            // The caller may have gone away, which changes nothing.
            let _ = reply.send(lost.map_or(outcome, Err));
        });
        (failed, answer)
    });
    (job, result)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map(drop).map_err(|source| error(ErrorKind::Unavailable).caused_by(source))
}

fn take(queue: &Receiver<Job>, most: usize) -> Option<Vec<Job>> {
    let mut jobs = vec![queue.recv().ok()?];
    jobs.extend(queue.try_iter().take(most - 1));
    Some(jobs)
}

fn write_loop(connection: &Connection, queue: &Receiver<Job>) {
    while let Some(mut jobs) = take(queue, BATCH) {
        while !jobs.is_empty() {
            jobs = write_batch(connection, jobs);
        }
    }
    // A reader that closes last can't write the log back, and a copy of the file would lack it.
    let _ = connection.execute_batch("PRAGMA wal_checkpoint(PASSIVE)");
}

/// Runs `jobs` in one transaction, and returns those that are left when it broke off.
fn write_batch(connection: &Connection, jobs: Vec<Job>) -> Vec<Job> {
    if let Err(error) = connection.execute_batch("BEGIN IMMEDIATE").map_err(classify) {
        for job in jobs {
            let (_, answer) = job(Err(error.clone()));
            answer(None);
        }
        return Vec::new();
    }
    let mut jobs = jobs.into_iter();
    let mut answers: Vec<Answer> = Vec::with_capacity(jobs.len());
    for job in jobs.by_ref() {
        let (failed, answer) = save(connection, job);
        if connection.is_autocommit() {
            // A full disk or a failed write rolls back everything at once. Whatever came now would
            // run in a transaction of its own, so that the rest begins anew.
            let lost = error(ErrorKind::Unavailable);
            let lost = failed.clone().map_or(lost.clone(), |cause| lost.caused_by(cause));
            answer(failed.is_none().then(|| lost.clone()));
            for answer in answers {
                answer(Some(lost.clone()));
            }
            return jobs.collect();
        }
        answers.push(answer);
    }
    let lost = connection.execute_batch("COMMIT").map_err(classify).err().map(|cause| {
        // Nobody knows whether it reached the disk, and nothing of it may stay open. What failed
        // did so in sight of operations that may be gone, and gets the same answer.
        let _ = connection.execute_batch("ROLLBACK");
        error(ErrorKind::Timeout).caused_by(cause)
    });
    for answer in answers {
        answer(lost.clone());
    }
    Vec::new()
}

/// Runs one operation so that its failure undoes nothing but itself. If even that fails, nothing of
/// the transaction is left.
fn save(connection: &Connection, job: Job) -> (Option<Error>, Answer) {
    if let Err(error) = connection.execute_batch("SAVEPOINT operation").map_err(classify) {
        return job(Err(error));
    }
    let (failed, answer) = job(Ok(connection));
    let end = match failed {
        Some(_) => "ROLLBACK TO operation; RELEASE operation",
        None => "RELEASE operation",
    };
    if !connection.is_autocommit() && connection.execute_batch(end).is_err() {
        let _ = connection.execute_batch("ROLLBACK");
    }
    (failed, answer)
}

fn read_loop(connection: &Connection, queue: &Mutex<Receiver<Job>>) {
    loop {
        let jobs = take(&queue.lock(), READ_BATCH);
        let Some(jobs) = jobs else { return };
        let began = connection.execute_batch("BEGIN").map_err(classify);
        for job in jobs {
            let (_, answer) = job(began.clone().map(|()| connection));
            answer(None);
        }
        if began.is_ok() {
            // A snapshot held for longer would keep the log from being written back.
            let _ = connection.execute_batch("ROLLBACK");
        }
    }
}

/// A connection that may write.
pub(crate) fn open_writer(config: &SqliteConfig) -> Result<Connection> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if config.access == Access::Migrate {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let connection = open(&config.path, flags, config.busy_timeout)?;
    // SQLite falls back to reading, and would say so at the first write only.
    if connection.is_readonly("main").map_err(classify)? {
        return Err(error(read_only()));
    }
    let mode = set_journal_mode(&connection, config.busy_timeout)?;
    if mode != "wal" {
        let what = "path: no write-ahead log is possible there, as on most network file systems";
        return Err(Error::configuration(NAME, what));
    }
    connection
        .execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")
        .map_err(classify)?;
    Ok(connection)
}

/// The mode is a property of the file, and another process may be setting it just now. SQLite does
/// not wait for that one, whatever the busy timeout.
fn set_journal_mode(connection: &Connection, patience: Duration) -> Result<String> {
    let start = Instant::now();
    loop {
        let mode = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0));
        match mode {
            Err(cause)
                if cause.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && start.elapsed() < patience =>
            {
                thread::sleep(Duration::from_millis(5));
            }
            other => return other.map_err(classify),
        }
    }
}

/// A connection that only reads.
pub(crate) fn open_reader(config: &SqliteConfig) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    open(&config.path, flags, config.busy_timeout)
}

fn open(path: &Path, flags: OpenFlags, busy_timeout: Duration) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, flags).map_err(classify)?;
    connection.busy_timeout(busy_timeout).map_err(classify)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection
        .execute_batch("PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;")
        .map_err(classify)?;
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    let lower =
        |call: &Context<'_>| Ok(call.get::<Option<String>>(0)?.map(|text| text.to_lowercase()));
    connection.create_scalar_function(LOWER, 1, flags, lower).map_err(classify)?;
    Ok(connection)
}

/// Lower case of any letter, as the normalized form of an address has it.
pub(crate) const LOWER: &str = "session_store_lower";

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = oneshot::Receiver<Result<()>>;

    /// A database with `child.parent` referring to `parent.id`, checked at commit.
    fn database() -> (tempfile::TempDir, Connection) {
        let folder = tempfile::tempdir().unwrap();
        let connection = open_writer(&SqliteConfig::new(folder.path().join("t.db"))).unwrap();
        let sql = "CREATE TABLE parent (id INTEGER PRIMARY KEY);
                   CREATE TABLE child (parent REFERENCES parent DEFERRABLE INITIALLY DEFERRED);";
        connection.execute_batch(sql).unwrap();
        (folder, connection)
    }

    fn sql(text: &'static str) -> (Job, Outcome) {
        job(move |on| on.execute_batch(text).map_err(classify))
    }

    fn count(on: &Connection, table: &str) -> i64 {
        on.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }

    fn answer(mut outcome: Outcome) -> Result<(), ErrorKind> {
        let answer = outcome.try_recv().unwrap().expect("no answer");
        answer.map_err(|error| error.kind().clone())
    }

    #[test]
    fn one_bad_operation_undoes_nothing_but_itself() {
        let (_folder, on) = database();
        let (good, first) = sql("INSERT INTO parent VALUES (1)");
        let (bad, second) = sql("INSERT INTO parent VALUES (2); INSERT INTO parent VALUES (1)");
        let (other, third) = sql("INSERT INTO parent VALUES (3)");
        assert!(write_batch(&on, vec![good, bad, other]).is_empty());
        assert_eq!(answer(first), Ok(()));
        assert_eq!(answer(second), Err(ErrorKind::Conflict));
        assert_eq!(answer(third), Ok(()));
        assert_eq!(count(&on, "parent"), 2);
    }

    #[test]
    fn after_a_failed_commit_nobody_is_told_what_came_of_it() {
        let (_folder, on) = database();
        let (good, first) = sql("INSERT INTO parent VALUES (1)");
        let (seen, second) = sql("INSERT INTO parent VALUES (1)");
        let (orphan, third) = sql("INSERT INTO child VALUES (9)");
        assert!(write_batch(&on, vec![good, seen, orphan]).is_empty());
        for outcome in [first, second, third] {
            assert_eq!(answer(outcome), Err(ErrorKind::Timeout));
        }
        assert!(on.is_autocommit());
        assert_eq!((count(&on, "parent"), count(&on, "child")), (0, 0));
    }

    #[test]
    fn what_follows_a_lost_transaction_begins_anew() {
        let (_folder, on) = database();
        let (lost, first) = sql("INSERT INTO parent VALUES (1)");
        // As SQLite itself does when the disk is full.
        let (fatal, second) = job(|on| {
            on.execute_batch("ROLLBACK").map_err(classify)?;
            Err::<(), _>(error(ErrorKind::Corrupt))
        });
        let (later, third) = sql("INSERT INTO parent VALUES (2)");
        let rest = write_batch(&on, vec![lost, fatal, later]);
        assert_eq!(answer(first), Err(ErrorKind::Unavailable));
        assert_eq!(answer(second), Err(ErrorKind::Corrupt));
        assert_eq!((rest.len(), count(&on, "parent")), (1, 0));
        assert!(write_batch(&on, rest).is_empty());
        assert_eq!(answer(third), Ok(()));
        assert_eq!(count(&on, "parent"), 1);
    }

    #[test]
    fn a_caller_that_went_away_stops_nothing() {
        let (_folder, on) = database();
        let (work, caller) = sql("INSERT INTO parent VALUES (1)");
        drop(caller);
        assert!(write_batch(&on, vec![work]).is_empty());
        assert_eq!(count(&on, "parent"), 1);
    }
}
