//! What must not be between here and the truth: poolers that give one server connection to several
//! clients, and servers that only follow the one that has it.

use session_store_core::{Error, Result};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Executor, PgConnection, Row};

use crate::error::{NAME, STANDBY, classify, is_forbidden};

/// How often it is looked. Other clients may get in between.
const LOOKS: u32 = 3;

const POOLER: &str = "there is a pooler in transaction mode between here and the server, which answers \
     prepared statements with other clients' SQL; use session mode, or the address of the server itself";

async fn server(on: &mut PgConnection) -> Result<i32> {
    // The simple protocol: a statement with a name is what such a pooler breaks.
    let row = on.fetch_one(sqlx::raw_sql("SELECT pg_backend_pid()")).await.map_err(classify)?;
    row.try_get(0).map_err(classify)
}

async fn run(on: &mut PgConnection, sql: &'static str) -> Result<()> {
    on.execute(sqlx::raw_sql(sql)).await.map_err(classify).map(drop)
}

/// Whether the server follows another one.
pub(crate) async fn is_standby(on: &mut PgConnection) -> std::result::Result<bool, sqlx::Error> {
    on.fetch_one(sqlx::raw_sql("SELECT pg_is_in_recovery()")).await?.try_get(0)
}

/// Refuses a standby, and a pooler in transaction or statement mode.
pub(crate) async fn probe(options: &PgConnectOptions) -> Result<()> {
    let mut one = PgConnection::connect_with(options).await.map_err(classify)?;
    let mut other = PgConnection::connect_with(options).await.map_err(classify)?;
    let mut follows = false;
    // Behind one address there may be several servers.
    for on in [&mut one, &mut other] {
        follows |= is_standby(on).await.map_err(classify)?;
    }
    let is_pooled = is_pooled(&mut one, &mut other).await?;
    for connection in [one, other] {
        // It was only asked; how it ends is of no interest.
        let _ = connection.close().await;
    }
    match (is_pooled, follows) {
        (true, _) => Err(Error::configuration(NAME, POOLER)),
        (false, true) => Err(Error::configuration(NAME, STANDBY)),
        (false, false) => Ok(()),
    }
}

/// Whether two clients meet on one server, or one client is moved to another: at its next statement
/// (a pooler that takes turns), or when somebody else has taken the first (one that takes the last).
/// Nothing is asked that is known already: with BEGIN, `other` may hold all that such a pooler has.
async fn is_pooled(one: &mut PgConnection, other: &mut PgConnection) -> Result<bool> {
    let (home, away) = (server(one).await?, server(other).await?);
    if home == away {
        return Ok(true);
    }
    for _ in 0..LOOKS {
        if has_moved(one, home).await? {
            return Ok(true);
        }
        match run(other, "BEGIN").await {
            Err(error) if is_forbidden(&error) => return Ok(true),
            begun => begun?,
        }
        if server(other).await? != away || has_moved(one, home).await? {
            return Ok(true);
        }
        run(other, "ROLLBACK").await?;
    }
    Ok(false)
}

/// Looks twice, or a pooler that takes turns may come round to where it was.
async fn has_moved(on: &mut PgConnection, home: i32) -> Result<bool> {
    Ok(server(on).await? != home || server(on).await? != home)
}
