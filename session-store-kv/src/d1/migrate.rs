//! The schema, made by one batch.

use serde::Deserialize;
use session_store_core::{Error, Result};

use super::database::{Database, Rows, Statement};
use super::error::NAME;

/// What this version of the crate writes and reads.
const VERSION: i64 = 1;

const SCRIPT: &str = include_str!("../../migrations/0001_d1.sql");

/// The statements of the schema, for a migration file.
pub(crate) fn script(prefix: &str) -> String {
    SCRIPT.replace("{p}", prefix)
}

/// Makes the schema if there is none; the first of several wins, the others find it there.
pub(crate) async fn migrate(database: &Database) -> Result<()> {
    if is_there(database).await? {
        return check(database).await;
    }
    let statements = SCRIPT.split("\n\n").map(str::trim).filter(|part| !is_comment(part));
    let batch = statements.map(|statement| database.say(statement, [])).collect();
    let Err(failed) = database.write(batch).await else {
        return Ok(());
    };
    // Another one may have been faster.
    if is_there(database).await? { check(database).await } else { Err(failed) }
}

/// Refuses a database whose schema is missing or of another version.
pub(crate) async fn check(database: &Database) -> Result<()> {
    judge(database.read(vec![version(database)]).await?.next())
}

/// The statement that asks for the version.
pub(crate) fn version(database: &Database) -> Statement {
    database.say(
        "SELECT version, EXISTS (SELECT 1 FROM sqlite_schema \
         WHERE name = '{p}session_log_by_sight') AS has_sight FROM {p}session_schema",
        [],
    )
}

/// The version, and whether the log has what it has since the first release: before, tables of the same
/// version had other columns.
#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Found {
    version: i64,
    has_sight: u8,
}

/// Refuses another version than this one in the answer to [`version`].
pub(crate) fn judge(answer: Rows) -> Result<()> {
    let rows = answer.all::<Found>()?;
    if rows == [Found { version: VERSION, has_sight: 1 }] {
        return Ok(());
    }
    if rows == [Found { version: VERSION, has_sight: 0 }] {
        let what = "the table of the log has no index \"session_log_by_sight\": it was made by an \
             unreleased version; drop this library's tables, and apply D1Store::migration_sql";
        return Err(Error::schema(NAME, what));
    }
    let found: Vec<i64> = rows.iter().map(|row| row.version).collect();
    let remedy = if found.iter().any(|found| *found > VERSION) {
        "deploy a version of this crate that knows it, whose D1Store::migration_sql was applied \
         with `wrangler d1 migrations apply`"
    } else {
        "apply D1Store::migration_sql of this version with `wrangler d1 migrations apply`"
    };
    let what = format!(
        "the database has schema version {found:?}, this program knows {VERSION}; {remedy}"
    );
    Err(Error::schema(NAME, what))
}

async fn is_there(database: &Database) -> Result<bool> {
    let asked = database.say(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name = '{p}session_schema'",
        [],
    );
    Ok(!database.read(vec![asked]).await?.next().is_empty())
}

fn is_comment(part: &str) -> bool {
    part.lines().all(|line| line.starts_with("--"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_script_is_one_statement() {
        let parts: Vec<_> =
            SCRIPT.trim_end().split("\n\n").filter(|part| !is_comment(part)).collect();
        assert!(parts.len() > 15);
        for part in parts {
            let is_trigger = part.contains("CREATE TRIGGER");
            let ends = part.matches(";\n").count() + usize::from(part.ends_with(';'));
            assert_eq!(ends, if is_trigger { 2 } else { 1 }, "{part}");
        }
    }

    #[test]
    fn the_prefix_is_in_front_of_every_table() {
        assert!(!script("a_").contains("{p}"));
        assert!(script("a_").contains("CREATE TABLE a_sessions ("));
    }
}
