//! Transactions that are repeated when the server has undone them for the sake of another one.

use std::cell::RefCell;
use std::ops::{ControlFlow, Deref, DerefMut};
use std::time::Duration;

use session_store_core::{Error, Result};
use sqlx::pool::PoolConnection;
use sqlx::{Connection, Executor, PgConnection, PgPool, Postgres};

use crate::error::{classify, classify_open, classify_write, is_closed, is_victim};

/// How often a transaction is begun again. Hand-typed SQL locks in an order of its own, so that a
/// deadlock can't be ruled out.
const TRIES: u32 = 5;

/// How long an abandoned statement may take to answer before its connection is given up.
const SETTLE: Duration = Duration::from_secs(2);

/// The isolation is that of the statement, whatever the server's default. A transaction that says nothing
/// for 5 s is one whose network went silent: its statements follow each other without waiting for
/// anybody. The server would keep its locks for hours, and the user could not log out meanwhile. That
/// holds between statements: one that is under way, half of it or of its answer, ends with its connection
/// (`config::SILENCE`). In one message, so that it costs no round trip.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
     SET LOCAL idle_in_transaction_session_timeout = '5s'";

/// The same for what a crash of the server must not take back once it was confirmed, whatever is
/// configured: an end that is forgotten is a session that lives again.
const BEGIN_LASTING: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
     SET LOCAL idle_in_transaction_session_timeout = '5s'; \
     SELECT set_config('synchronous_commit', 'on', true) \
     WHERE current_setting('synchronous_commit') = 'off'";
const LASTING: &str = "SELECT set_config('synchronous_commit', 'on', true) \
     WHERE current_setting('synchronous_commit') = 'off'";

/// The same for what somebody waits for who has others to write. The server looks for deadlocks after 1 s,
/// and must not come too late.
const BEGIN_IMPATIENT: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
     SET LOCAL idle_in_transaction_session_timeout = '5s'; SET LOCAL lock_timeout = '2s'";

/// How often it was tried.
#[derive(Debug, Default)]
pub(crate) struct Tries(u32);

tokio::task_local! {
    /// Why a connection that is being made can't be used. The pool's hook has no other way to tell the
    /// call it is made for: what the hook returns is written to a log, and dialled again.
    static UNFIT: RefCell<Option<Error>>;
}

/// A connection of the pool, or a new one.
pub(crate) async fn open(pool: &PgPool) -> Result<PoolConnection<Postgres>> {
    let acquire = async {
        let mut on = pool.acquire().await.map_err(classify_open)?;
        match UNFIT.with(RefCell::take) {
            None => Ok(on),
            Some(error) => {
                on.close_on_drop();
                Err(error)
            }
        }
    };
    UNFIT.scope(RefCell::default(), acquire).await
}

/// Has the call that a connection is made for fail with `error`. Whoever makes one without such a call
/// does not get it.
pub(crate) fn refuse(error: Error) -> std::result::Result<(), sqlx::Error> {
    let mut kept = Some(error);
    let _ = UNFIT.try_with(|unfit| unfit.replace(kept.take()));
    kept.map_or(Ok(()), |error| Err(sqlx::Error::Configuration(error.into())))
}

/// Waits for what a returned connection still has to hear, which is nothing unless it was abandoned in
/// the middle. The pool's own test waits without end, and keeps the place in the pool meanwhile.
pub(crate) async fn settle(on: &mut PgConnection) -> std::result::Result<bool, sqlx::Error> {
    let late = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    tokio::time::timeout(SETTLE, on.flush()).await.map_err(late)?.map(|()| true)
}

/// A transaction. Its connection goes back to the pool only once the server has said that it is over:
/// the driver's own takes one that was dropped before BEGIN was answered for one that never began.
#[derive(Debug)]
pub(crate) struct Transaction {
    on: PoolConnection<Postgres>,
    is_open: bool,
}

impl Transaction {
    async fn begin(
        on: PoolConnection<Postgres>,
        how: &'static str,
    ) -> std::result::Result<Self, sqlx::Error> {
        let mut begun = Self { on, is_open: true };
        begun.on.execute(how).await?;
        Ok(begun)
    }

    /// Keeps what was done.
    pub(crate) async fn commit(self) -> std::result::Result<(), sqlx::Error> {
        self.end("COMMIT").await
    }

    /// Undoes what was done.
    pub(crate) async fn rollback(self) -> std::result::Result<(), sqlx::Error> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, how: &'static str) -> std::result::Result<(), sqlx::Error> {
        self.on.execute(how).await?;
        self.is_open = false;
        Ok(())
    }
}

impl Deref for Transaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.on
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.on
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.is_open {
            self.on.close_on_drop();
        }
    }
}

/// Begins a transaction.
pub(crate) async fn begin(pool: &PgPool) -> Result<Transaction> {
    begin_as(pool, BEGIN).await
}

/// Begins one that waits for no lock longer than 2 s.
pub(crate) async fn begin_impatient(pool: &PgPool) -> Result<Transaction> {
    begin_as(pool, BEGIN_IMPATIENT).await
}

/// Begins one whose commit is written before it is confirmed.
pub(crate) async fn begin_lasting(pool: &PgPool) -> Result<Transaction> {
    begin_as(pool, BEGIN_LASTING).await
}

/// The same for one that was begun already.
pub(crate) async fn make_lasting(on: &mut PgConnection) -> Result<()> {
    on.execute(LASTING).await.map_err(classify).map(drop)
}

async fn begin_as(pool: &PgPool, how: &'static str) -> Result<Transaction> {
    let begin = || async { Transaction::begin(open(pool).await?, how).await.map_err(classify) };
    on_open_connection(pool, begin).await
}

/// What `work` finds over a connection of its own, which changes nothing and so may be done again: the
/// server may have closed any connection of the pool while nobody used it. That costs a failure here
/// and no round trip at every use (decision 12). When no connection can be made, that is the answer.
pub(crate) async fn on_open_connection<T, F: Future<Output = Result<T>>>(
    pool: &PgPool,
    work: impl Fn() -> F,
) -> Result<T> {
    let mut closed = 0;
    loop {
        match work().await {
            Err(error) if is_closed(&error) && closed <= pool.options().get_max_connections() => {
                closed += 1;
            }
            other => return other,
        }
    }
}

/// Commits what was done, or undoes it. `Continue`: it was undone by the server, and is to be begun
/// again.
pub(crate) async fn finish<T>(
    transaction: Transaction,
    outcome: Result<T>,
    tries: &mut Tries,
) -> Result<ControlFlow<T>> {
    let outcome = match outcome {
        Ok(value) => transaction.commit().await.map(|()| value).map_err(classify_write),
        Err(error) => {
            // The first error is the one that says why.
            let _ = transaction.rollback().await;
            Err(error)
        }
    };
    match outcome {
        Ok(value) => Ok(ControlFlow::Break(value)),
        Err(error) if is_victim(&error) && tries.0 < TRIES => {
            tries.0 += 1;
            tokio::time::sleep(Duration::from_millis(5 << tries.0)).await;
            Ok(ControlFlow::Continue(()))
        }
        Err(error) => Err(error),
    }
}
