//! Transactions that are repeated when the server has undone them for the sake of another one.

use std::ops::ControlFlow;

use session_store_core::Result;
use sqlx::{PgPool, Postgres, Transaction};

use crate::error::{classify, classify_write, is_victim};

/// How often a transaction is begun again. Hand-typed SQL locks in an order of its own, so that a
/// deadlock can't be ruled out.
const TRIES: u32 = 5;

/// How often it was tried.
#[derive(Debug, Default)]
pub(crate) struct Tries(u32);

/// Begins a transaction. Its isolation is that of the statement, whatever the server's default.
pub(crate) async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>> {
    pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await.map_err(classify)
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
            tokio::time::sleep(std::time::Duration::from_millis(5 << tries.0)).await;
            Ok(ControlFlow::Continue(()))
        }
        Err(error) => Err(error),
    }
}
