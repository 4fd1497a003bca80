//! Transactions that are repeated when the server has undone them for the sake of another one.

use std::ops::ControlFlow;
use std::time::Duration;

use session_store_core::Result;
use sqlx::pool::PoolConnection;
use sqlx::{Connection, PgConnection, PgPool, Postgres, SqlSafeStr, Transaction};

use crate::error::{classify, classify_open, classify_write, is_closed, is_victim};

/// How often a transaction is begun again. Hand-typed SQL locks in an order of its own, so that a
/// deadlock can't be ruled out.
const TRIES: u32 = 5;

/// How long an abandoned statement may take to answer before its connection is given up.
const SETTLE: Duration = Duration::from_secs(2);

/// How often it was tried.
#[derive(Debug, Default)]
pub(crate) struct Tries(u32);

/// A connection of the pool, or a new one.
pub(crate) async fn open(pool: &PgPool) -> Result<PoolConnection<Postgres>> {
    pool.acquire().await.map_err(classify_open)
}

/// Waits for what a returned connection still has to hear, which is nothing unless it was abandoned in
/// the middle. The pool's own test waits without end, and keeps the place in the pool meanwhile.
pub(crate) async fn settle(on: &mut PgConnection) -> std::result::Result<bool, sqlx::Error> {
    let late = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    tokio::time::timeout(SETTLE, on.flush()).await.map_err(late)?.map(|()| true)
}

/// Begins a transaction. Its isolation is that of the statement, whatever the server's default.
pub(crate) async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>> {
    let begin = || async {
        let statement = "BEGIN ISOLATION LEVEL READ COMMITTED".into_sql_str();
        Transaction::begin(open(pool).await?, Some(statement)).await.map_err(classify)
    };
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
    transaction: Transaction<'static, Postgres>,
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
