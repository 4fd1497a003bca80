//! The schema, brought up to date inside one transaction, whoever starts at the same time.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use session_store_core::{Error, Result};

use crate::error::{NAME, classify};
use crate::schema::Schema;

/// What this version of the crate writes and reads.
const VERSION: i64 = 1;

/// Every statement of the schema, for people who own their migrations.
pub(crate) fn script(schema: &Schema) -> String {
    let mut parts = Vec::new();
    if schema.owns_users {
        parts.push(include_str!("../migrations/0001_users.sql"));
    }
    parts.push(include_str!("../migrations/0001_sessions.sql"));
    if schema.has_triggers {
        parts.push(include_str!("../migrations/0001_triggers.sql"));
    }
    let version = "CREATE TABLE {p}session_schema (version INTEGER NOT NULL) STRICT;\n\
                   INSERT INTO {p}session_schema (version) VALUES (1);\n";
    parts.push(version);
    schema.migration(&parts.concat())
}

/// Brings the schema up to date. Eight processes may do so at once: the first one wins the write
/// lock, the others find nothing left to do.
pub(crate) fn migrate(connection: &mut Connection, schema: &Schema) -> Result<()> {
    check_users(connection, schema)?;
    let behavior = TransactionBehavior::Immediate;
    let transaction = connection.transaction_with_behavior(behavior).map_err(classify)?;
    match version(&transaction, schema)? {
        Some(found) => check_version(found)?,
        None => transaction.execute_batch(&script(schema)).map_err(classify)?,
    }
    transaction.commit().map_err(classify)
}

/// Refuses a database whose schema is missing or of another version.
pub(crate) fn check(connection: &Connection, schema: &Schema) -> Result<()> {
    check_users(connection, schema)?;
    match version(connection, schema)? {
        Some(found) => check_version(found),
        None => {
            Err(Error::schema(NAME, "no schema in this database; open it with Access::Migrate"))
        }
    }
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
    if !has_table(connection, &table)? {
        return Ok(None);
    }
    let sql = schema.sql("SELECT version FROM {p}session_schema");
    connection.query_row(&sql, [], |row| row.get(0)).optional().map_err(classify)
}

fn has_table(connection: &Connection, name: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE type IN ('table', 'view') AND name = ?1";
    connection
        .query_row(sql, [name], |_| Ok(()))
        .optional()
        .map_err(classify)
        .map(|row| row.is_some())
}

/// An application's table of users must be there, with the columns that were named.
fn check_users(connection: &Connection, schema: &Schema) -> Result<()> {
    let Some(users) = &schema.existing else {
        return Ok(());
    };
    if !has_table(connection, &users.table)? {
        let what = format!("the users table {:?} does not exist", users.table);
        return Err(Error::schema(NAME, what));
    }
    let optional = [&users.email_column, &users.role_column, &users.claims_column];
    for column in optional.into_iter().flatten().chain([&users.id_column]) {
        let sql = "SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2";
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
