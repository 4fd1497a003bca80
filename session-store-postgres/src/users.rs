//! Statements about users.

use std::ops::ControlFlow;

use session_store_core::{
    Account, Cursor, Deleted, Email, Error, ErrorKind, Listing, Page, PasswordHash, Result,
    Timestamp, User, UserChange, UserId, UserUpdate,
};
use sqlx::{PgConnection, PgPool};

use crate::error::{NAME, classify, error};
use crate::row::{self, USER_COLUMNS};
use crate::schema::{Schema, quote};
use crate::transaction::{Tries, begin_lasting, finish};
use crate::{ending, read};

pub(crate) fn needs_own_table(schema: &Schema, what: &'static str) -> Result<()> {
    if schema.owns_users() {
        return Ok(());
    }
    Err(Error::unsupported(NAME, what))
}

/// Locks the row of the user, in the mode that is given; whether there is one of exactly this id.
pub(crate) async fn lock(
    on: &mut PgConnection,
    schema: &Schema,
    user: &UserId,
    mode: &str,
) -> Result<bool> {
    if !schema.is_key(user) {
        return Ok(false);
    }
    let sql = format!("SELECT {{id}}::text FROM {{users}} WHERE {{id}} = $1{{key}} {mode}");
    let query = sqlx::query(schema.sql(&sql)).bind(user.as_str());
    let found = query.fetch_optional(on).await.map_err(classify)?;
    // A column may compare without case; two spellings would be two epochs.
    let stored = found.as_ref().map(|row| row::user_id(row, 0)).transpose()?.flatten();
    Ok(stored.as_ref() == Some(user))
}

/// Makes every login that was verified before this moment fail; the row is never removed, so the
/// epoch never restarts.
async fn bump(
    on: &mut PgConnection,
    schema: &Schema,
    user: &UserId,
    deleted_until: Option<Timestamp>,
) -> Result<()> {
    let sql = "INSERT INTO {p}session_users AS k (user_id, credential_epoch, deleted_until) \
         VALUES ($1, 1, $2) ON CONFLICT (user_id) DO UPDATE SET \
         credential_epoch = k.credential_epoch + 1, \
         deleted_until = greatest(k.deleted_until, excluded.deleted_until)";
    let query = sqlx::query(schema.sql(sql))
        .bind(user.as_str())
        .bind(deleted_until.map(Timestamp::as_millis));
    query.execute(on).await.map_err(classify).map(drop)
}

/// Bumps the epoch of a user who exists or once did; whether there was one. A stranger leaves no row
/// behind. The row stays locked.
pub(crate) async fn bump_known(
    on: &mut PgConnection,
    schema: &Schema,
    user: &UserId,
) -> Result<bool> {
    if !schema.is_key(user) {
        return Ok(false);
    }
    let sql = "SELECT 1 WHERE EXISTS (SELECT 1 FROM {p}session_users WHERE user_id = $1) \
         OR EXISTS (SELECT 1 FROM {users} WHERE {id} = $1{key})";
    let query = sqlx::query(schema.sql(sql)).bind(user.as_str());
    if query.fetch_optional(&mut *on).await.map_err(classify)?.is_none() {
        return Ok(false);
    }
    bump(on, schema, user, None).await?;
    Ok(true)
}

pub(crate) async fn insert(
    on: &mut PgConnection,
    schema: &Schema,
    user: &User,
    now: Timestamp,
) -> Result<()> {
    // A row to lock, or else a deletion that is under way is not waited for, and its quarantine not
    // seen.
    let sql = "INSERT INTO {p}session_users (user_id, credential_epoch) VALUES ($1, 0) \
         ON CONFLICT DO NOTHING";
    let query = sqlx::query(schema.sql(sql)).bind(user.id.as_str());
    query.execute(&mut *on).await.map_err(classify)?;
    let sql = "SELECT deleted_until FROM {p}session_users WHERE user_id = $1 FOR NO KEY UPDATE";
    let query = sqlx::query(schema.sql(sql)).bind(user.id.as_str());
    let found = query.fetch_optional(&mut *on).await.map_err(classify)?;
    let until = found.as_ref().map(|row| row::maybe_time(row, 0)).transpose()?.flatten();
    if until.is_some_and(|until| now < until) {
        return Err(error(ErrorKind::UnknownUser));
    }
    let sql = "INSERT INTO {p}users (id, email, email_normalized, password_hash, is_verified, role, \
         created_at, last_login_at, claims, version) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let query = sqlx::query(schema.sql(sql))
        .bind(user.id.as_str())
        .bind(user.email.as_ref().map(Email::as_str))
        .bind(user.email.as_ref().map(Email::normalized))
        .bind(user.password_hash.as_ref().map(PasswordHash::expose))
        .bind(user.is_verified)
        .bind(user.role.as_str())
        .bind(user.created_at.as_millis())
        .bind(user.last_login_at.map(Timestamp::as_millis))
        .bind(user.claims.as_str())
        .bind(user.version.cast_signed());
    query.execute(on).await.map_err(classify).map(drop)
}

/// At most two users of whom `condition` holds, each with the epoch of the same moment: who read the
/// password of before must not get the epoch of after.
async fn find_where(
    on: &mut PgConnection,
    schema: &Schema,
    condition: &str,
    value: &str,
) -> Result<Vec<Account>> {
    let columns = if schema.owns_users() {
        USER_COLUMNS.to_owned()
    } else {
        let users = schema.existing.as_ref().and_then(|users| users.email_column.as_deref());
        let email = match users {
            Some(column) => format!("u.{}::text", quote("email_column", column)?),
            None => "NULL::text".to_owned(),
        };
        format!("{{projection}}, {email}")
    };
    let sql = format!(
        "SELECT {columns}, (SELECT k.credential_epoch FROM {{p}}session_users k \
         WHERE k.user_id = u.{{id}}::text) FROM {{users}} u WHERE {condition} LIMIT 2"
    );
    let query = sqlx::query(schema.sql(&sql)).bind(value);
    let rows = query.fetch_all(on).await.map_err(classify)?;
    let read = if schema.owns_users() { row::user } else { row::projected_user };
    let account = |row| {
        let credential_epoch = row::last_epoch(row)?;
        Ok(Account { user: read(row)?, credential_epoch })
    };
    rows.iter().map(account).collect()
}

pub(crate) async fn find(
    on: &mut PgConnection,
    schema: &Schema,
    id: &UserId,
) -> Result<Option<Account>> {
    if !schema.is_key(id) {
        return Ok(None);
    }
    let found = find_where(on, schema, "u.{id} = $1{key}", id.as_str()).await?;
    Ok(found.into_iter().find(|account| account.user.id == *id))
}

pub(crate) async fn find_by_email(
    on: &mut PgConnection,
    schema: &Schema,
    normalized: &str,
) -> Result<Option<Account>> {
    let condition = match &schema.existing {
        None => "u.email_normalized = $1".to_owned(),
        Some(users) => match &users.email_column {
            Some(column) => format!("lower(u.{}::text) = $1", quote("email_column", column)?),
            None => {
                return Err(Error::unsupported(NAME, "no email_column is configured"));
            }
        },
    };
    let mut found = find_where(on, schema, &condition, normalized).await?;
    if found.len() > 1 {
        // Nobody may get another one's account because their addresses differ in case only.
        let what = "email_column: several users have this address, up to upper and lower case";
        return Err(Error::schema(NAME, what));
    }
    Ok(found.pop())
}

pub(crate) async fn update(
    on: &mut PgConnection,
    schema: &Schema,
    (id, version): (&UserId, u64),
    change: &UserChange,
) -> Result<UserUpdate> {
    if change.changes_credentials() && !bump_known(on, schema, id).await? {
        return Ok(UserUpdate::Missing);
    }
    let sql = format!("SELECT {USER_COLUMNS} FROM {{p}}users u WHERE u.id = $1 FOR NO KEY UPDATE");
    let query = sqlx::query(schema.sql(&sql)).bind(id.as_str());
    let found = query.fetch_optional(&mut *on).await.map_err(classify)?;
    let Some(old) = found.as_ref().map(row::user).transpose()? else {
        return Ok(UserUpdate::Missing);
    };
    if old.version != version {
        return Ok(UserUpdate::Conflict { current: old.version });
    }
    let user = change.apply(&old);
    let sql = "UPDATE {p}users SET email = $2, email_normalized = $3, password_hash = $4, \
         is_verified = $5, role = $6, claims = $7, version = $8 WHERE id = $1";
    let query = sqlx::query(schema.sql(sql))
        .bind(id.as_str())
        .bind(user.email.as_ref().map(Email::as_str))
        .bind(user.email.as_ref().map(Email::normalized))
        .bind(user.password_hash.as_ref().map(PasswordHash::expose))
        .bind(user.is_verified)
        .bind(user.role.as_str())
        .bind(user.claims.as_str())
        .bind(user.version.cast_signed());
    query.execute(&mut *on).await.map_err(classify)?;
    let sessions = ending::ids_of(on, schema, id).await?;
    Ok(UserUpdate::Updated { user: Box::new(user), sessions })
}

pub(crate) async fn delete(
    on: &mut PgConnection,
    schema: &Schema,
    id: &UserId,
    quarantine_until: Timestamp,
) -> Result<Option<Deleted>> {
    if !bump_known(on, schema, id).await? || !lock(on, schema, id, "FOR UPDATE").await? {
        return Ok(None);
    }
    bump(on, schema, id, Some(quarantine_until)).await?;
    // Under the lock: whoever logs in now waits, and then finds nobody.
    let sessions = ending::ids_of(on, schema, id).await?;
    let sql =
        schema.sql("SELECT 1 FROM {p}sessions WHERE user_id = $1{key} ORDER BY id FOR UPDATE");
    sqlx::query(sql).bind(id.as_str()).execute(&mut *on).await.map_err(classify)?;
    let sql = schema.sql("DELETE FROM {p}sessions WHERE user_id = $1{key}");
    sqlx::query(sql).bind(id.as_str()).execute(&mut *on).await.map_err(classify)?;
    let sql = schema.sql("DELETE FROM {users} WHERE {id} = $1{key}");
    let removed = sqlx::query(sql).bind(id.as_str()).execute(on).await.map_err(classify);
    removed.map_err(|cause| match cause.kind() {
        ErrorKind::UnknownUser => {
            let what = "deleting a user whom other tables of the application refer to";
            Error::unsupported(NAME, what).caused_by(cause)
        }
        _ => cause,
    })?;
    Ok(Some(Deleted { sessions }))
}

/// Lets an id that rests until `held_until` rest until `until` instead.
pub(crate) async fn settle(
    pool: &PgPool,
    schema: &Schema,
    id: &UserId,
    (held_until, until): (Timestamp, Timestamp),
) -> Result<()> {
    let sql =
        "UPDATE {p}session_users SET deleted_until = $3 WHERE user_id = $1 AND deleted_until = $2";
    let mut tries = Tries::default();
    loop {
        let mut on = begin_lasting(pool).await?;
        let query = sqlx::query(schema.sql(sql))
            .bind(id.as_str())
            .bind(held_until.as_millis())
            .bind(until.as_millis());
        let outcome = query.execute(&mut *on).await.map_err(classify).map(drop);
        if let ControlFlow::Break(done) = finish(on, outcome, &mut tries).await? {
            return Ok(done);
        }
    }
}

pub(crate) async fn list(
    on: &mut PgConnection,
    schema: &Schema,
    page: &Page,
) -> Result<Listing<User>> {
    needs_own_table(schema, "listing users of the application's own table")?;
    let (at, key) = read::position(page);
    let key = String::from_utf8(key).map_err(|_| Error::invalid(NAME, "cursor"))?;
    let sql = schema.sql(&format!(
        "SELECT {USER_COLUMNS} FROM {{p}}users u WHERE (u.created_at, u.id) > ($1, $2) \
         ORDER BY u.created_at, u.id LIMIT $3"
    ));
    let query = sqlx::query(sql).bind(at).bind(key).bind(i64::from(page.limit.get()) + 1);
    let rows = query.fetch_all(on).await.map_err(classify)?;
    let items = rows.iter().map(row::user).collect::<Result<Vec<_>>>()?;
    Ok(read::cut(items, page, |last: &User| Cursor {
        at: last.created_at,
        key: last.id.as_str().as_bytes().to_vec(),
    }))
}

pub(crate) async fn count(on: &mut PgConnection, schema: &Schema) -> Result<u64> {
    let sql = schema.sql("SELECT count(*) FROM {users}");
    let row = sqlx::query(sql).fetch_one(on).await.map_err(classify)?;
    row::unsigned(&row, 0)
}
