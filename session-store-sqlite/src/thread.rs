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
use std::time::Duration;

use futures_channel::oneshot;
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use session_store_core::{Error, ErrorKind, Result};

use crate::config::{Access, SqliteConfig};
use crate::error::{classify, error, gone};

/// How many operations one transaction takes; more would make the first one wait too long.
const BATCH: usize = 512;
const READ_BATCH: usize = 64;
const STATEMENTS: usize = 64;

/// Tells the caller what came of it; `Some`: the commit failed.
type Answer = Box<dyn FnOnce(Option<Error>) + Send>;
/// Does the work, or is told why it can't be done, and says whether it failed.
type Job = Box<dyn FnOnce(Result<&Connection>) -> (bool, Answer) + Send>;

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
        Ok(Self { writer, readers, inline: Mutex::new(open_reader(config)?) })
    }

    /// Runs `work` in the next write transaction.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(writer) = &self.writer else {
            return Err(Error::unsupported(
                crate::error::NAME,
                "writing through a read-only handle",
            ));
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
    pub(crate) fn read_inline<T>(&self, work: impl FnOnce(&Connection) -> T) -> Option<T> {
        self.inline.try_lock().map(|connection| work(&connection))
    }
}

async fn send<T: Send + 'static>(
    queue: &Sender<Job>,
    work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (reply, result) = oneshot::channel();
    let job: Job = Box::new(move |connection| {
        let outcome = connection.and_then(work);
        let failed = outcome.is_err();
        let answer: Answer = Box::new(move |commit| {
            // The caller may have gone away, which changes nothing.
            let _ = reply.send(match commit {
                Some(error) if !failed => Err(error),
                _ => outcome,
            });
        });
        (failed, answer)
    });
    queue.send(job).map_err(|_| gone())?;
    result.await.unwrap_or_else(|_| Err(error(ErrorKind::Timeout)))
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
    while let Some(jobs) = take(queue, BATCH) {
        if let Err(error) = connection.execute_batch("BEGIN IMMEDIATE").map_err(classify) {
            for job in jobs {
                let (_, answer) = job(Err(error.clone()));
                answer(None);
            }
            continue;
        }
        let answers: Vec<_> = jobs.into_iter().map(|job| save(connection, job)).collect();
        let commit = connection.execute_batch("COMMIT").map_err(classify).err().map(|cause| {
            // Nobody knows whether it reached the disk, and nothing of it may stay open.
            let _ = connection.execute_batch("ROLLBACK");
            error(ErrorKind::Timeout).caused_by(cause)
        });
        for answer in answers {
            answer(commit.clone());
        }
    }
}

/// Runs one operation so that its failure undoes nothing but itself.
fn save(connection: &Connection, job: Job) -> Answer {
    if let Err(error) = connection.execute_batch("SAVEPOINT operation").map_err(classify) {
        return job(Err(error)).1;
    }
    let (failed, answer) = job(Ok(connection));
    let end = if failed { "ROLLBACK TO operation; RELEASE operation" } else { "RELEASE operation" };
    match connection.execute_batch(end).map_err(classify) {
        Ok(()) => answer,
        Err(error) => Box::new(move |commit| answer(commit.or(Some(error)))),
    }
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
    // The mode is a property of the file; another process may be setting it just now.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).map_err(classify)?;
    connection
        .execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")
        .map_err(classify)?;
    Ok(connection)
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
    Ok(connection)
}
