//! Statements about users.

use session_store_core::{
    Account, CredentialEpoch, Cursor, Deleted, Email, Error, Listing, Page, PasswordHash, Result,
    Timestamp, User, UserChange, UserId, UserUpdate,
};

use super::database::{Database, Statement, Value, ids};
use super::ending;
use super::error::{NAME, corrupt};
use super::read;
use super::row::{USER_COLUMNS, UserRow};
use super::write::check_size;

/// What may change about a user, in the order of both statements below.
fn values(user: &User) -> [Value; 8] {
    [
        (&user.id).into(),
        user.email.as_ref().map(Email::as_str).into(),
        user.email.as_ref().map(Email::normalized).into(),
        user.password_hash.as_ref().map(PasswordHash::expose).into(),
        user.is_verified.into(),
        user.role.as_str().into(),
        user.claims.as_str().into(),
        user.version.into(),
    ]
}

pub(crate) async fn insert(database: &Database, user: &User, now: Timestamp) -> Result<()> {
    check_size("user claims", Some(&user.claims))?;
    let resting = database.say(
        "INSERT INTO {p}session_guard (reason) SELECT 2 FROM {p}session_users \
         WHERE user_id = ?1 AND deleted_until > ?2",
        [(&user.id).into(), now.into()],
    );
    let times = [user.created_at.into(), user.last_login_at.into()];
    let insert = database.say(
        "INSERT INTO {p}users (id, email, email_normalized, password_hash, is_verified, role, \
         claims, version, created_at, last_login_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        values(user).into_iter().chain(times),
    );
    database.write(vec![resting, insert]).await.map(drop)
}

fn find_where(database: &Database, condition: &str, value: Value) -> Statement {
    let sql = format!(
        "SELECT {USER_COLUMNS}, coalesce(e.credential_epoch, 0) AS credential_epoch \
         FROM {{p}}users u LEFT JOIN {{p}}session_users e ON e.user_id = u.id WHERE {condition}"
    );
    database.say(&sql, [value])
}

async fn account(database: &Database, asked: Statement) -> Result<Option<Account>> {
    let row: Option<UserRow> = database.read(vec![asked]).await?.next().first()?;
    let account = |row: UserRow| {
        let credential_epoch = CredentialEpoch(row.credential_epoch);
        Ok(Account { user: row.user()?, credential_epoch })
    };
    row.map(account).transpose()
}

pub(crate) async fn find(database: &Database, id: &UserId) -> Result<Option<Account>> {
    account(database, find_where(database, "u.id = ?1", id.into())).await
}

pub(crate) async fn find_by_email(
    database: &Database,
    normalized: &str,
) -> Result<Option<Account>> {
    account(database, find_where(database, "u.email_normalized = ?1", normalized.into())).await
}

pub(crate) async fn update(
    database: &Database,
    (id, version): (&UserId, u64),
    change: &UserChange,
) -> Result<UserUpdate> {
    let Some(Account { user: old, .. }) = find(database, id).await? else {
        return Ok(UserUpdate::Missing);
    };
    if old.version != version {
        return Ok(UserUpdate::Conflict { current: old.version });
    }
    let user = change.apply(&old);
    check_size("user claims", Some(&user.claims))?;
    let mut batch = Vec::new();
    if change.changes_credentials() {
        batch.push(database.say(
            "INSERT INTO {p}session_users (user_id, credential_epoch) SELECT ?1, 1 \
             WHERE EXISTS (SELECT 1 FROM {p}users WHERE id = ?1 AND version = ?2) \
             ON CONFLICT (user_id) DO UPDATE SET credential_epoch = credential_epoch + 1",
            [id.into(), version.into()],
        ));
    }
    let skipped = batch.len();
    batch.push(database.say(
        "UPDATE {p}users SET email = ?2, email_normalized = ?3, password_hash = ?4, \
         is_verified = ?5, role = ?6, claims = ?7, version = ?8 WHERE id = ?1 AND version = ?9 \
         RETURNING id",
        values(&user).into_iter().chain([version.into()]),
    ));
    batch.push(ending::ids_of(database, id));
    let mut answers = database.write(batch).await?;
    answers.skip(skipped);
    if answers.next().is_empty() {
        // Somebody was faster, after it was read.
        return Ok(find(database, id).await?.map_or(UserUpdate::Missing, |found| {
            UserUpdate::Conflict { current: found.user.version }
        }));
    }
    let sessions = ids(&answers.next().column::<String>("id")?)?;
    Ok(UserUpdate::Updated { user: Box::new(user), sessions })
}

pub(crate) async fn delete(
    database: &Database,
    id: &UserId,
    quarantine_until: Timestamp,
) -> Result<Option<Deleted>> {
    let batch = vec![
        database.say(
            "INSERT INTO {p}session_users (user_id, credential_epoch, deleted_until) \
             SELECT ?1, 1, ?2 WHERE EXISTS (SELECT 1 FROM {p}users WHERE id = ?1) \
             ON CONFLICT (user_id) DO UPDATE SET credential_epoch = credential_epoch + 1, \
             deleted_until = max(coalesce(deleted_until, 0), ?2)",
            [id.into(), quarantine_until.into()],
        ),
        ending::ids_of(database, id),
        database.say("DELETE FROM {p}sessions WHERE user_id = ?1", [id.into()]),
        database.say("DELETE FROM {p}users WHERE id = ?1 RETURNING id", [id.into()]),
    ];
    let mut answers = database.write(batch).await?;
    answers.skip(1);
    let sessions = ids(&answers.next().column::<String>("id")?)?;
    answers.skip(1);
    let is_deleted = !answers.next().is_empty();
    Ok(is_deleted.then_some(Deleted { sessions }))
}

/// Lets an id that rests until `held_until` rest until `until` instead.
pub(crate) async fn settle(
    database: &Database,
    id: &UserId,
    (held_until, until): (Timestamp, Timestamp),
) -> Result<()> {
    let settled = database.say(
        "UPDATE {p}session_users SET deleted_until = ?3 WHERE user_id = ?1 AND deleted_until = ?2",
        [id.into(), held_until.into(), until.into()],
    );
    database.write(vec![settled]).await.map(drop)
}

pub(crate) async fn list(database: &Database, page: &Page) -> Result<Listing<User>> {
    let (at, key) = read::position(page);
    let key = String::from_utf8(key).map_err(|_| Error::invalid(NAME, "cursor"))?;
    let sql = format!(
        "SELECT {USER_COLUMNS} FROM {{p}}users u WHERE (u.created_at, u.id) > (?1, ?2) \
         ORDER BY u.created_at, u.id LIMIT ?3"
    );
    let limit = i64::from(page.limit.get()) + 1;
    let asked = database.say(&sql, [at, key.into(), limit.into()]);
    let rows: Vec<UserRow> = database.read(vec![asked]).await?.next().all()?;
    let items = rows.iter().map(UserRow::user).collect::<Result<_>>()?;
    Ok(read::cut(items, page, |last: &User| Cursor {
        at: last.created_at,
        key: last.id.as_str().as_bytes().to_vec(),
    }))
}

pub(crate) async fn count(database: &Database) -> Result<u64> {
    let asked = database.say("SELECT count(*) AS users FROM {p}users", []);
    let found = database.read(vec![asked]).await?.next().column::<u64>("users")?;
    found.first().copied().ok_or_else(corrupt)
}
