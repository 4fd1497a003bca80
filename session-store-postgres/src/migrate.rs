//! The schema, brought up to date inside one transaction, whoever starts at the same time.

use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use session_store_core::{Error, ErrorKind, LogPromise, Result};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Executor, PgConnection, PgPool, Row};

use crate::config::InvalidationLog;
use crate::error::{NAME, classify, error, is_locked};
use crate::row;
use crate::schema::Schema;
use crate::transaction::{self, Tries, finish};

/// What this version of the crate writes and reads.
const VERSION: u64 = 1;
/// Whoever migrates holds this advisory lock of the transaction, mixed with the prefix.
const LOCK: i32 = 0x696f_6e73;

const USERS: &str = include_str!("../migrations/0001_users.sql");
const SESSIONS: &str = include_str!("../migrations/0001_sessions.sql");
/// The triggers. Each file may run again where they are there already.
const SESSION_LOG: &str = include_str!("../migrations/0001_session_log.sql");
const USER_LOG: &str = include_str!("../migrations/0001_user_log.sql");
const NO_LOG: &str = "DROP TRIGGER IF EXISTS {p}session_log_delete ON {p}sessions;\n\
     DROP TRIGGER IF EXISTS {p}session_log_truncate ON {p}sessions;\n\
     DROP TRIGGER IF EXISTS {p}session_log_update ON {p}sessions;\n\
     DROP TRIGGER IF EXISTS {p}session_user_update ON {users};\n";

/// Every statement of the schema, for people who own their migrations.
pub(crate) fn script(schema: &Schema) -> String {
    let users = if schema.owns_users() { USERS } else { "" };
    schema.migration(&format!("{users}{SESSIONS}{}", triggers(schema)))
}

/// The trigger on the table of users, for people who put it there themselves.
pub(crate) fn user_trigger(schema: &Schema) -> String {
    schema.migration(USER_LOG)
}

fn triggers(schema: &Schema) -> String {
    match (schema.log, schema.has_user_trigger) {
        (InvalidationLog::Off, _) => NO_LOG.to_owned(),
        (InvalidationLog::Kept, false) => SESSION_LOG.to_owned(),
        (InvalidationLog::Kept, true) => format!("{SESSION_LOG}{USER_LOG}"),
    }
}

/// Brings the schema up to date. Eight processes may do so at once: the first one gets the lock, the
/// others find nothing left to do. A lock that somebody holds is waited for as long as `patience`.
pub(crate) async fn migrate(pool: &PgPool, schema: &Schema, patience: Duration) -> Result<()> {
    let mut tries = Tries::default();
    loop {
        let mut on = transaction::begin(pool).await?;
        let outcome = apply(&mut on, schema, patience).await;
        match finish(on, outcome, &mut tries).await {
            Ok(ControlFlow::Break(())) => return Ok(()),
            Ok(ControlFlow::Continue(())) => {}
            Err(error) if is_locked(&error) => return Err(locked(pool, schema).await),
            Err(error) => return Err(error),
        }
    }
}

async fn locked(pool: &PgPool, schema: &Schema) -> Error {
    // Whoever it was may be gone by now, and nobody may be seen.
    let holders = match transaction::open(pool).await {
        Ok(mut on) => holders(&mut on, schema).await.unwrap_or_default(),
        Err(_) => String::new(),
    };
    error(ErrorKind::Unavailable).caused_by(Locked(holders))
}

async fn apply(on: &mut PgConnection, schema: &Schema, patience: Duration) -> Result<()> {
    // A statement's own time would be over first, and would not say that it was a lock. The deadline
    // of the whole still holds.
    let times = "SELECT set_config('lock_timeout', $1, true), \
         set_config('statement_timeout', '0', true)";
    sqlx::query(times)
        .bind(patience.as_millis().to_string())
        .execute(&mut *on)
        .await
        .map_err(classify)?;
    sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext(current_schema() || $2))")
        .bind(LOCK)
        .bind(schema.prefix())
        .execute(&mut *on)
        .await
        .map_err(classify)?;
    check_users(on, schema).await?;
    let missing = if let Some(found) = version(on, schema).await? {
        check_version(found)?;
        // Triggers need strong locks on tables in use; they are made only where they are not.
        let wanted = schema.log == InvalidationLog::Kept;
        let there = log_promise(on, schema).await?;
        let is_there = match there {
            LogPromise::Complete => true,
            LogPromise::OwnWrites => !schema.has_user_trigger,
            LogPromise::None => false,
        };
        let is_fit = if wanted { is_there } else { there == LogPromise::None };
        if is_fit { String::new() } else { schema.migration(&triggers(schema)) }
    } else {
        check_room(on, schema).await?;
        script(schema)
    };
    on.execute(sqlx::raw_sql(AssertSqlSafe(missing))).await.map_err(classify)?;
    check_reference(on, schema).await
}

/// Somebody else holds a lock that a migration needs.
#[derive(Debug)]
struct Locked(String);

impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holders = if self.0.is_empty() { "nobody who is still seen" } else { &self.0 };
        write!(
            f,
            "bringing the schema up to date waits for a lock that is held by {holders}; see \
             pg_locks and pg_stat_activity, and end it there if it hangs"
        )
    }
}

impl std::error::Error for Locked {}

/// Who holds the lock of the migration, or one on the tables it changes.
async fn holders(on: &mut PgConnection, schema: &Schema) -> Result<String> {
    let sql = "SELECT DISTINCT a.pid, a.application_name, coalesce(a.state, 'unknown') \
         FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
         WHERE l.granted AND a.pid <> pg_backend_pid() AND ( \
         (l.locktype = 'advisory' AND l.classid::bigint = $1 AND \
          l.objid::bigint = hashtext(current_schema() || $2)::bigint & 4294967295) \
         OR l.relation IN (to_regclass($3), to_regclass($4))) ORDER BY a.pid LIMIT 5";
    let rows = sqlx::query(sql)
        .bind(i64::from(LOCK))
        .bind(schema.prefix())
        .bind(schema.text("{p}sessions"))
        .bind(schema.text("{users}"))
        .fetch_all(on)
        .await
        .map_err(classify)?;
    let holder = |row: &PgRow| -> std::result::Result<String, sqlx::Error> {
        let (pid, name, state): (i32, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok(format!("process {pid} ({name:?}, {state})"))
    };
    let holders: Vec<_> =
        rows.iter().map(holder).collect::<std::result::Result<_, _>>().map_err(classify)?;
    Ok(holders.join(", "))
}

/// Refuses a database whose schema is missing or of another version.
pub(crate) async fn check(on: &mut PgConnection, schema: &Schema) -> Result<()> {
    check_users(on, schema).await?;
    let Some(found) = version(on, schema).await? else {
        let what = "no schema in this database; connect with Access::Migrate";
        return Err(Error::schema(NAME, what));
    };
    check_version(found)?;
    check_log(on, schema).await?;
    check_reference(on, schema).await
}

/// Before the first release, tables of the same version had other columns.
async fn check_log(on: &mut PgConnection, schema: &Schema) -> Result<()> {
    if has_column(on, &schema.text("{p}session_log"), "seen_at").await? {
        return Ok(());
    }
    let what = "the table of the log has no column \"seen_at\": it was made by an unreleased version; \
         drop this library's tables, and have them made again";
    Err(Error::schema(NAME, what))
}

async fn has_column(on: &mut PgConnection, table: &str, column: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = $2 \
               AND attnum > 0 AND NOT attisdropped";
    let query = sqlx::query(sql).bind(table).bind(column);
    query.fetch_optional(on).await.map_err(classify).map(|found| found.is_some())
}

/// What the triggers that are there add up to.
pub(crate) async fn log_promise(on: &mut PgConnection, schema: &Schema) -> Result<LogPromise> {
    let sql = "SELECT tgname::text FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D' \
         AND tgrelid IN (to_regclass($1), to_regclass($2))";
    let (users, _) = schema.reference();
    let rows = sqlx::query(sql)
        .bind(schema.text("{p}sessions"))
        .bind(if schema.owns_users() { users } else { schema.text("{users}") })
        .fetch_all(on)
        .await
        .map_err(classify)?;
    let names: Vec<String> =
        rows.iter().map(|row| row.try_get(0).map_err(classify)).collect::<Result<_>>()?;
    let has = |name: &str| names.contains(&schema.text(name));
    if !has("{p}session_log_delete") || !has("{p}session_log_update") {
        return Ok(LogPromise::None);
    }
    Ok(if has("{p}session_user_update") { LogPromise::Complete } else { LogPromise::OwnWrites })
}

fn check_version(found: u64) -> Result<()> {
    if found == VERSION {
        return Ok(());
    }
    let what = format!(
        "the database has schema version {found}, this program knows {VERSION}; update this program, \
         or give it a table_prefix or a schema of its own"
    );
    Err(Error::schema(NAME, what))
}

async fn has_table(on: &mut PgConnection, name: &str) -> Result<bool> {
    let row = sqlx::query("SELECT to_regclass($1) IS NOT NULL").bind(name).fetch_one(on).await;
    row.and_then(|row| row.try_get(0)).map_err(classify)
}

async fn version(on: &mut PgConnection, schema: &Schema) -> Result<Option<u64>> {
    let table = schema.text("{p}session_schema");
    if !has_table(on, &table).await? {
        return Ok(None);
    }
    let sql = schema.sql("SELECT version FROM {p}session_schema");
    let found = sqlx::query(sql).fetch_optional(on).await.map_err(classify)?;
    match found {
        Some(row) => row::unsigned(&row, 0).map(Some),
        None => Err(Error::schema(NAME, format!("the table {table:?} is empty"))),
    }
}

/// Nothing of the application's may be where the tables go.
async fn check_room(on: &mut PgConnection, schema: &Schema) -> Result<()> {
    let script = script(schema);
    let tables = script.lines().filter_map(|line| line.strip_prefix("CREATE TABLE "));
    for name in tables.filter_map(|line| line.split(' ').next()) {
        if has_table(on, name).await? {
            let what = format!(
                "the database has a table {name:?} already that is not this library's; set \
                 table_prefix, or Users::Existing if it is the application's table of users"
            );
            return Err(Error::schema(NAME, what));
        }
    }
    Ok(())
}

/// An application's table of users must be there, with the columns that were named.
async fn check_users(on: &mut PgConnection, schema: &Schema) -> Result<()> {
    let Some(users) = &schema.existing else {
        return Ok(());
    };
    let table = schema.text("{users}");
    if !has_table(on, &table).await? {
        let what = format!("the users table {:?} does not exist", users.table);
        return Err(Error::schema(NAME, what));
    }
    let optional = [&users.email_column, &users.role_column, &users.claims_column];
    for column in optional.into_iter().flatten().chain([&users.id_column]) {
        if !has_column(on, &table, column).await? {
            let what = format!("the users table {:?} has no column {column:?}", users.table);
            return Err(Error::schema(NAME, what));
        }
    }
    Ok(())
}

/// Sessions must refer to the table of users that is configured.
async fn check_reference(on: &mut PgConnection, schema: &Schema) -> Result<()> {
    let (table, column) = schema.reference();
    let sql = "SELECT 1 FROM pg_constraint c JOIN pg_attribute a \
         ON a.attrelid = c.confrelid AND a.attnum = c.confkey[1] \
         WHERE c.contype = 'f' AND c.conrelid = to_regclass($1) \
         AND c.confrelid = to_regclass($2) AND a.attname = $3 AND c.confdeltype = 'c'";
    let found = sqlx::query(sql)
        .bind(schema.text("{p}sessions"))
        .bind(schema.text("{users}"))
        .bind(&column)
        .fetch_optional(on)
        .await
        .map_err(classify)?;
    if found.is_none() {
        let what = format!("the sessions in this database do not refer to {table:?} ({column:?})");
        return Err(Error::schema(NAME, what));
    }
    Ok(())
}
