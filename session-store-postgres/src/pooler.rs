//! Poolers that give one server connection to several clients.

use session_store_core::{Error, Result};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Executor, PgConnection, Row};

use crate::error::{NAME, classify};

/// How often it is looked. Other clients may get in between.
const LOOKS: u32 = 3;

async fn server(on: &mut PgConnection) -> Result<i32> {
    // The simple protocol: a statement with a name is what such a pooler breaks.
    let row = on.fetch_one(sqlx::raw_sql("SELECT pg_backend_pid()")).await.map_err(classify)?;
    row.try_get(0).map_err(classify)
}

async fn run(on: &mut PgConnection, sql: &'static str) -> Result<()> {
    on.execute(sqlx::raw_sql(sql)).await.map_err(classify).map(drop)
}

/// Refuses a pooler in transaction or statement mode: two clients of it meet on one server, or one
/// client is moved to another when the first is taken.
pub(crate) async fn refuse(options: &PgConnectOptions) -> Result<()> {
    let mut one = PgConnection::connect_with(options).await.map_err(classify)?;
    let mut other = PgConnection::connect_with(options).await.map_err(classify)?;
    let mut is_pooled = false;
    for _ in 0..LOOKS {
        let before = server(&mut one).await?;
        run(&mut other, "BEGIN").await?;
        let meanwhile = server(&mut other).await?;
        let after = server(&mut one).await?;
        run(&mut other, "ROLLBACK").await?;
        is_pooled |= before == meanwhile || before != after;
    }
    for connection in [one, other] {
        // It was only asked; how it ends is of no interest.
        let _ = connection.close().await;
    }
    if is_pooled {
        let what = "there is a pooler in transaction mode between here and the server, which answers \
                    prepared statements with other clients' SQL; use session mode, or the address of \
                    the server itself";
        return Err(Error::configuration(NAME, what));
    }
    Ok(())
}
