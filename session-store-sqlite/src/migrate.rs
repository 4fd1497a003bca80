//! The schema, brought up to date inside one transaction, whoever starts at the same time.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use session_store_core::{Error, LogPromise, Result};

use crate::config::InvalidationLog;
use crate::error::{NAME, classify};
use crate::schema::Schema;

/// What this version of the crate writes and reads.
const VERSION: i64 = 1;

const USERS: &str = include_str!("../migrations/0001_users.sql");
const SESSIONS: &str = include_str!("../migrations/0001_sessions.sql");
/// The triggers. Each file may run again where they are there already.
const SESSION_LOG: &str = include_str!("../migrations/0001_session_log.sql");
const USER_DELETE: &str = include_str!("../migrations/0001_user_delete.sql");
const USER_LOG: &str = include_str!("../migrations/0001_user_log.sql");
const NO_LOG: &str = "DROP TRIGGER IF EXISTS {p}session_log_delete;\n\
     DROP TRIGGER IF EXISTS {p}session_log_update;\n\
     DROP TRIGGER IF EXISTS {p}session_user_update;\n";

/// Every statement of the schema, for people who own their migrations.
pub(crate) fn script(schema: &Schema) -> String {
    let users = if schema.owns_users() { USERS } else { "" };
    schema.migration(&format!("{users}{SESSIONS}{}", triggers(schema)))
}

/// The triggers on the table of users, for people who put them there themselves.
pub(crate) fn user_triggers(schema: &Schema) -> String {
    let log = if schema.log == InvalidationLog::Kept { USER_LOG } else { "" };
    schema.migration(&format!("{USER_DELETE}{log}"))
}

fn triggers(schema: &Schema) -> String {
    let delete = if schema.has_user_triggers { USER_DELETE } else { "" };
    match (schema.log, schema.has_user_triggers) {
        (InvalidationLog::Off, _) => format!("{NO_LOG}{delete}"),
        (InvalidationLog::Kept, false) => SESSION_LOG.to_owned(),
        (InvalidationLog::Kept, true) => format!("{SESSION_LOG}{delete}{USER_LOG}"),
    }
}

/// Brings the schema up to date. Eight processes may do so at once: the first one wins the write
/// lock, the others find nothing left to do.
pub(crate) fn migrate(connection: &mut Connection, schema: &Schema) -> Result<()> {
    check_users(connection, schema)?;
    let behavior = TransactionBehavior::Immediate;
    let transaction = connection.transaction_with_behavior(behavior).map_err(classify)?;
    let missing = if let Some(found) = version(&transaction, schema)? {
        check_version(found)?;
        check_log(&transaction, schema)?;
        schema.migration(&triggers(schema))
    } else {
        check_room(&transaction, schema)?;
        script(schema)
    };
    transaction.execute_batch(&missing).map_err(classify)?;
    check_reference(&transaction, schema)?;
    transaction.commit().map_err(classify)
}

/// Refuses a database whose schema is missing or of another version.
pub(crate) fn check(connection: &Connection, schema: &Schema) -> Result<()> {
    check_users(connection, schema)?;
    let Some(found) = version(connection, schema)? else {
        let what = "no schema in this database; open it with Access::Migrate";
        return Err(Error::schema(NAME, what));
    };
    check_version(found)?;
    check_log(connection, schema)?;
    check_reference(connection, schema)
}

/// Before the first release, tables of the same version had other columns.
fn check_log(connection: &Connection, schema: &Schema) -> Result<()> {
    let sql = "SELECT count(*) FROM pragma_table_info(?1) WHERE name = 'seen_at'";
    let found = connection.query_row(sql, [schema.sql("{p}session_log")], |row| row.get(0));
    if found.map_err(classify)? {
        return Ok(());
    }
    let what = "the table of the log has no column \"seen_at\": it was made by an unreleased version; \
         drop this library's tables, and have them made again";
    Err(Error::schema(NAME, what))
}

/// What the triggers that are there add up to.
pub(crate) fn log_promise(connection: &Connection, schema: &Schema) -> Result<LogPromise> {
    let has = |name: &str| has(connection, "trigger", &schema.sql(name));
    if !has("{p}session_log_delete")? || !has("{p}session_log_update")? {
        return Ok(LogPromise::None);
    }
    if has("{p}session_user_delete")? && has("{p}session_user_update")? {
        return Ok(LogPromise::Complete);
    }
    Ok(LogPromise::OwnWrites)
}

fn check_version(found: i64) -> Result<()> {
    if found == VERSION {
        return Ok(());
    }
    let what = format!("the database has schema version {found}, this program knows {VERSION}");
    Err(Error::schema(NAME, what))
}

fn version(connection: &Connection, schema: &Schema) -> Result<Option<i64>> {
    let table = schema.sql("{p}session_schema");
    if !has(connection, "table", &table)? {
        return Ok(None);
    }
    let sql = schema.sql("SELECT version FROM {p}session_schema");
    let found = connection.query_row(&sql, [], |row| row.get(0)).optional().map_err(classify)?;
    found.map(Some).ok_or_else(|| Error::schema(NAME, format!("the table {table:?} is empty")))
}

fn has(connection: &Connection, kind: &str, name: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE type = ?1 AND name = ?2 COLLATE NOCASE";
    connection
        .query_row(sql, [kind, name], |_| Ok(()))
        .optional()
        .map_err(classify)
        .map(|row| row.is_some())
}

/// Nothing of the application's may be where the tables go.
fn check_room(connection: &Connection, schema: &Schema) -> Result<()> {
    let script = script(schema);
    let tables = script.lines().filter_map(|line| line.strip_prefix("CREATE TABLE "));
    for name in tables.filter_map(|line| line.split(' ').next()) {
        if has(connection, "table", name)? || has(connection, "view", name)? {
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
fn check_users(connection: &Connection, schema: &Schema) -> Result<()> {
    let Some(users) = &schema.existing else {
        return Ok(());
    };
    if !has(connection, "table", &users.table)? {
        let what = format!("the users table {:?} does not exist", users.table);
        return Err(Error::schema(NAME, what));
    }
    let optional = [&users.email_column, &users.role_column, &users.claims_column];
    for column in optional.into_iter().flatten().chain([&users.id_column]) {
        let sql = "SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2 COLLATE NOCASE";
        let found = connection
            .query_row(sql, [&users.table, column], |_| Ok(()))
            .optional()
            .map_err(classify)?;
        if found.is_none() {
            let what = format!("the users table {:?} has no column {column:?}", users.table);
            return Err(Error::schema(NAME, what));
        }
    }
    Ok(())
}

/// Sessions must refer to the table of users that is configured, by a column that can be referred
/// to; SQLite itself says so at the first insert only.
fn check_reference(connection: &Connection, schema: &Schema) -> Result<()> {
    let (table, column) = schema.reference();
    let sql = "SELECT \"table\", \"to\" FROM pragma_foreign_key_list(?1)";
    let found: Option<(String, String)> = connection
        .query_row(sql, [schema.sql("{p}sessions")], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(classify)?;
    let is_meant = found.as_ref().is_some_and(|(to, key)| {
        to.eq_ignore_ascii_case(&table) && key.eq_ignore_ascii_case(&column)
    });
    if !is_meant {
        let what = format!("the sessions in this database do not refer to {table:?} ({column:?})");
        return Err(Error::schema(NAME, what));
    }
    let prepared = connection.prepare(&schema.sql("DELETE FROM {users} WHERE {id} = ?1"));
    match prepared {
        Err(cause) if cause.to_string().contains("foreign key mismatch") => {
            let what = format!("{column:?} of {table:?} is neither PRIMARY KEY nor UNIQUE");
            Err(Error::schema(NAME, what).caused_by(cause))
        }
        Err(cause) => Err(classify(cause)),
        Ok(_) => Ok(()),
    }
}
