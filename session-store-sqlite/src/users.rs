//! Statements about users.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params};
use session_store_core::{
    Account, Cursor, Deleted, Email, Error, ErrorKind, Json, Listing, Page, PasswordHash, Result,
    Role, Timestamp, User, UserChange, UserId, UserUpdate,
};

use crate::error::{NAME, classify, error};
use crate::row::{self, USER_COLUMNS};
use crate::schema::Schema;
use crate::thread::LOWER;
use crate::{ending, read};

fn needs_own_table(schema: &Schema, what: &'static str) -> Result<()> {
    if schema.owns_users() {
        return Ok(());
    }
    Err(Error::unsupported(NAME, what))
}

/// Makes every login that was verified before this moment fail; the row is never removed, so the
/// epoch never restarts.
pub(crate) fn bump(
    connection: &Connection,
    schema: &Schema,
    user: &UserId,
    deleted_until: Option<Timestamp>,
) -> Result<()> {
    let sql = schema.sql(
        "INSERT INTO {p}session_users (user_id, credential_epoch, deleted_until) \
         VALUES (?1, 1, ?2) ON CONFLICT (user_id) DO UPDATE SET \
         credential_epoch = credential_epoch + 1, \
         deleted_until = nullif(max(coalesce(deleted_until, 0), coalesce(?2, 0)), 0)",
    );
    let until = deleted_until.map(Timestamp::as_millis);
    connection.execute(&sql, params![user.as_str(), until]).map_err(classify).map(drop)
}

/// Bumps the epoch of a user who exists or once did, and returns the key; a stranger leaves no row
/// behind.
pub(crate) fn bump_known(
    connection: &Connection,
    schema: &Schema,
    user: &UserId,
) -> Result<Option<Value>> {
    let Some(key) = schema.key(user) else {
        return Ok(None);
    };
    let sql = schema.sql("SELECT 1 FROM {p}session_users WHERE user_id = ?1");
    let was_known = connection
        .query_row(&sql, [user.as_str()], |_| Ok(()))
        .optional()
        .map_err(classify)?
        .is_some();
    if was_known || exists(connection, schema, user)? {
        bump(connection, schema, user, None)?;
    }
    Ok(Some(key))
}

/// Whether there is a user of exactly this id: a column may compare without case, this library
/// does not, and two spellings would be two epochs.
pub(crate) fn exists(connection: &Connection, schema: &Schema, user: &UserId) -> Result<bool> {
    let Some(key) = schema.key(user) else {
        return Ok(false);
    };
    let sql = schema.sql("SELECT {id} FROM {users} WHERE {id} = ?1");
    let stored = connection
        .prepare_cached(&sql)
        .and_then(|mut read| read.query_row([&key], |row| row::user_id(row, 0)).optional())
        .map_err(classify)?;
    Ok(stored.flatten().as_ref() == Some(user))
}

pub(crate) fn insert(
    connection: &Connection,
    schema: &Schema,
    user: &User,
    now: Timestamp,
) -> Result<()> {
    needs_own_table(schema, "registering users in the application's own table")?;
    let sql = schema.sql("SELECT deleted_until FROM {p}session_users WHERE user_id = ?1");
    let until = connection
        .query_row(&sql, [user.id.as_str()], |row| row::maybe_time(row, 0))
        .optional()
        .map_err(classify)?
        .flatten();
    if until.is_some_and(|until| now < until) {
        return Err(error(ErrorKind::UnknownUser));
    }
    let sql = schema.sql(
        "INSERT INTO {p}users (id, email, email_normalized, password_hash, is_verified, role, \
         created_at, last_login_at, claims, version) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    );
    connection
        .prepare_cached(&sql)
        .and_then(|mut insert| {
            insert.execute(params![
                user.id.as_str(),
                user.email.as_ref().map(Email::as_str),
                user.email.as_ref().map(Email::normalized),
                user.password_hash.as_ref().map(PasswordHash::expose),
                user.is_verified,
                user.role.as_str(),
                user.created_at.as_millis(),
                user.last_login_at.map(Timestamp::as_millis),
                user.claims.as_str(),
                user.version.cast_signed(),
            ])
        })
        .map_err(classify)
        .map(drop)
}

/// The user whose `column` equals `value`.
fn find_where(
    connection: &Connection,
    schema: &Schema,
    condition: &str,
    value: &Value,
) -> Result<Option<User>> {
    let sql = if schema.owns_users() {
        format!("SELECT {USER_COLUMNS} FROM {{p}}users u WHERE {condition}")
    } else {
        format!("SELECT u.{{id}}, {{projection}} FROM {{users}} u WHERE {condition}")
    };
    let read = if schema.owns_users() { row::user } else { projected };
    connection
        .prepare_cached(&schema.sql(&sql))
        .and_then(|mut find| find.query_row([value], read).optional())
        .map_err(classify)
}

/// What is mapped of a user in the application's own table.
fn projected(row: &Row<'_>) -> rusqlite::Result<User> {
    let id = row::user_id(row, 0)?.ok_or_else(|| row::corrupt(0))?;
    let mut user = User::new(id, Timestamp::EPOCH);
    user.role = row::checked(1, Role::new(row.get::<_, String>(1)?))?;
    // The application wrote it, so that nobody has checked it yet.
    user.claims = row::checked(3, Json::parse(row.get::<_, String>(3)?))?;
    user.email = row.get::<_, Option<String>>(4)?.and_then(|text| Email::parse(text).ok());
    Ok(user)
}

pub(crate) fn find(
    connection: &Connection,
    schema: &Schema,
    id: &UserId,
) -> Result<Option<Account>> {
    let Some(key) = schema.key(id) else {
        return Ok(None);
    };
    let user = find_where(connection, schema, "u.{id} = ?1", &key)?;
    let user = user.filter(|user| user.id == *id);
    account(connection, schema, user)
}

pub(crate) fn find_by_email(
    connection: &Connection,
    schema: &Schema,
    normalized: &str,
) -> Result<Option<Account>> {
    let value = Value::Text(normalized.to_owned());
    let condition = match &schema.existing {
        None => "u.email_normalized = ?1".to_owned(),
        Some(users) => match &users.email_column {
            // SQLite's own function knows ASCII only, but an index may serve it.
            Some(column) if normalized.is_ascii() => format!("lower(u.\"{column}\") = ?1"),
            Some(column) => format!("{LOWER}(u.\"{column}\") = ?1"),
            None => {
                return Err(Error::unsupported(NAME, "no email_column is configured"));
            }
        },
    };
    // Nobody may get another one's account because their addresses differ in case only.
    if !schema.owns_users() {
        let sql = format!("SELECT count(*) FROM {{users}} u WHERE {condition}");
        let count: u64 = connection
            .prepare_cached(&schema.sql(&sql))
            .and_then(|mut count| count.query_row([&value], |row| row::unsigned(row, 0)))
            .map_err(classify)?;
        if count > 1 {
            let what = "email_column: several users have this address, up to upper and lower case";
            return Err(Error::schema(NAME, what));
        }
    }
    let user = find_where(connection, schema, &condition, &value)?;
    account(connection, schema, user)
}

fn account(
    connection: &Connection,
    schema: &Schema,
    user: Option<User>,
) -> Result<Option<Account>> {
    let Some(user) = user else { return Ok(None) };
    let credential_epoch = read::epoch(connection, schema, &user.id)?;
    Ok(Some(Account { user, credential_epoch }))
}

pub(crate) fn update(
    connection: &Connection,
    schema: &Schema,
    (id, version): (&UserId, u64),
    change: &UserChange,
) -> Result<UserUpdate> {
    needs_own_table(schema, "changing users in the application's own table")?;
    let key = schema.known_key(id)?;
    let Some(old) = find_where(connection, schema, "u.{id} = ?1", &key)? else {
        return Ok(UserUpdate::Missing);
    };
    if old.version != version {
        return Ok(UserUpdate::Conflict { current: old.version });
    }
    let user = change.apply(&old);
    if change.changes_credentials() {
        bump(connection, schema, id, None)?;
    }
    let sql = schema.sql(
        "UPDATE {p}users SET email = ?2, email_normalized = ?3, password_hash = ?4, \
         is_verified = ?5, role = ?6, claims = ?7, version = ?8 WHERE id = ?1",
    );
    let bound = params![
        id.as_str(),
        user.email.as_ref().map(Email::as_str),
        user.email.as_ref().map(Email::normalized),
        user.password_hash.as_ref().map(PasswordHash::expose),
        user.is_verified,
        user.role.as_str(),
        user.claims.as_str(),
        user.version.cast_signed(),
    ];
    connection.execute(&sql, bound).map_err(classify)?;
    let sessions = ending::ids_of(connection, schema, &key)?;
    Ok(UserUpdate::Updated { user: Box::new(user), sessions })
}

pub(crate) fn delete(
    connection: &Connection,
    schema: &Schema,
    id: &UserId,
    quarantine_until: Timestamp,
) -> Result<Option<Deleted>> {
    let Some(key) = schema.key(id) else {
        return Ok(None);
    };
    if !exists(connection, schema, id)? {
        return Ok(None);
    }
    bump(connection, schema, id, Some(quarantine_until))?;
    let sessions = ending::ids_of(connection, schema, &key)?;
    let sql = schema.sql("DELETE FROM {p}sessions WHERE user_id = ?1");
    connection.execute(&sql, [&key]).map_err(classify)?;
    let removed = connection.execute(&schema.sql("DELETE FROM {users} WHERE {id} = ?1"), [&key]);
    removed.map_err(classify).map_err(|cause| match cause.kind() {
        ErrorKind::UnknownUser => {
            let what = "deleting a user whom other tables of the application refer to";
            Error::unsupported(NAME, what).caused_by(cause)
        }
        _ => cause,
    })?;
    Ok(Some(Deleted { sessions }))
}

/// Lets an id that rests until `held_until` rest until `until` instead.
pub(crate) fn settle(
    connection: &Connection,
    schema: &Schema,
    id: &UserId,
    (held_until, until): (Timestamp, Timestamp),
) -> Result<()> {
    let sql = schema.sql(
        "UPDATE {p}session_users SET deleted_until = ?3 WHERE user_id = ?1 AND deleted_until = ?2",
    );
    let bound = params![id.as_str(), held_until.as_millis(), until.as_millis()];
    connection.execute(&sql, bound).map_err(classify).map(drop)
}

pub(crate) fn list(connection: &Connection, schema: &Schema, page: &Page) -> Result<Listing<User>> {
    needs_own_table(schema, "listing users of the application's own table")?;
    let (at, key) = read::position(page);
    let key = String::from_utf8(key).map_err(|_| Error::invalid(NAME, "cursor"))?;
    let sql = schema.sql(&format!(
        "SELECT {USER_COLUMNS} FROM {{p}}users u WHERE (u.created_at, u.id) > (?1, ?2) \
         ORDER BY u.created_at, u.id LIMIT ?3"
    ));
    let limit = i64::from(page.limit.get()) + 1;
    let items = connection
        .prepare_cached(&sql)
        .and_then(|mut list| list.query_map(params![at, key, limit], row::user)?.collect())
        .map_err(classify)?;
    Ok(read::cut(items, page, |last: &User| Cursor {
        at: last.created_at,
        key: last.id.as_str().as_bytes().to_vec(),
    }))
}

pub(crate) fn count(connection: &Connection, schema: &Schema) -> Result<u64> {
    let sql = schema.sql("SELECT count(*) FROM {users}");
    connection.query_row(&sql, [], |row| row::unsigned(row, 0)).map_err(classify)
}
