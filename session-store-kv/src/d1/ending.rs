//! Statements that end and remove sessions.

use serde::Deserialize;
use session_store_core::{
    Reason, Result, RevokedSessions, Selection, SweepBounds, Swept, Timestamp, UserId,
};

use super::database::{Database, Statement, Value, id, list};
use super::log;
use super::read::{ACTIVE, EXPIRED};

/// Both halves are bounded before they are merged, so that a sweep reads no more than it removes.
const DEAD: &str = "SELECT id FROM ( \
     SELECT * FROM (SELECT id, expires_at AS died FROM {p}sessions WHERE expires_at <= ?1 \
                    ORDER BY expires_at, id LIMIT ?3) \
     UNION ALL \
     SELECT * FROM (SELECT id, revoked_at AS died FROM {p}sessions WHERE revoked_at <= ?2 \
                    ORDER BY revoked_at, id LIMIT ?3)) \
     GROUP BY id ORDER BY min(died), id LIMIT ?3";

/// What a session is worth, by the columns that decide it. The rest of the row is not read: one
/// that nobody can read any more must not keep a user from logging out everywhere.
#[derive(Deserialize)]
struct Standing {
    id: String,
    standing: u8,
}

const REVOKED: u8 = 0;
const LIVING: u8 = 1;

pub(crate) async fn revoke(
    database: &Database,
    selection: &Selection,
    reason: Reason,
    now: Timestamp,
) -> Result<RevokedSessions> {
    if let Selection::Ids(ids) = selection
        && ids.is_empty()
    {
        return Ok(RevokedSessions::default());
    }
    let (before, (condition, values), after) = select(database, selection);
    let values = || [now.into(), reason.as_str().into()].into_iter().chain(values.clone());
    let skipped = before.len();
    let mut batch = before;
    // The reason is bound though only the second statement names it.
    batch.push(database.say(
        &format!(
            "SELECT id, CASE WHEN revoked_at IS NOT NULL THEN {REVOKED} \
             WHEN {ACTIVE} THEN {LIVING} ELSE 2 END AS standing, ?2 AS reason \
             FROM {{p}}sessions WHERE {condition}"
        ),
        values(),
    ));
    batch.push(database.say(
        &format!(
            "UPDATE {{p}}sessions SET revoked_at = ?1, revoked_reason = ?2, version = version + 1 \
             WHERE revoked_at IS NULL AND id IN (SELECT id FROM {{p}}sessions WHERE {condition})"
        ),
        values(),
    ));
    batch.extend(after);
    let mut answers = database.write(batch).await?;
    answers.skip(skipped);
    let mut done = RevokedSessions::default();
    for found in answers.next().all::<Standing>()? {
        match found.standing {
            REVOKED => done.earlier.push(id(&found.id)?),
            LIVING => done.revoked.push(id(&found.id)?),
            _ => {}
        }
    }
    Ok(done)
}

/// A condition on sessions, and what is bound from `?3` on.
type Condition = (String, Vec<Value>);

/// What is done first, which sessions are meant, and what is done last.
fn select(
    database: &Database,
    selection: &Selection,
) -> (Vec<Statement>, Condition, Vec<Statement>) {
    let only = |condition: &str, values: Vec<Value>| {
        (Vec::new(), (condition.to_owned(), values), Vec::new())
    };
    match selection {
        Selection::One { id, owner: None } => only("id = ?3", vec![id.into()]),
        Selection::One { id, owner: Some(owner) } => {
            only("id = ?3 AND user_id = ?4", vec![id.into(), owner.into()])
        }
        Selection::AllOf(user) => {
            let meant = ("user_id = ?3 ORDER BY id".to_owned(), vec![user.into()]);
            (vec![bump_known(database, user)], meant, Vec::new())
        }
        Selection::AllBut(user, spared) => {
            let values = vec![user.into(), spared.into()];
            let meant = ("user_id = ?3 AND id <> ?4 ORDER BY id".to_owned(), values);
            // The spared session keeps its trust: it gets the new epoch, without a new version.
            let restamp = database.say(
                "UPDATE {p}sessions SET credential_epoch = \
                 (SELECT credential_epoch FROM {p}session_users WHERE user_id = ?2) \
                 WHERE id = ?1 AND user_id = ?2",
                [spared.into(), user.into()],
            );
            (vec![bump_known(database, user)], meant, vec![restamp])
        }
        Selection::Everyone { created_before, limit } => {
            // Active ones first: a step without any tells the caller that all are done.
            let part = |kind: &str, limit: &str| {
                format!(
                    "SELECT * FROM (SELECT id FROM {{p}}sessions WHERE {kind} \
                     AND created_at <= ?3 ORDER BY expires_at, id LIMIT {limit})"
                )
            };
            let (active, expired) = (part(ACTIVE, "?4"), part(EXPIRED, "?4"));
            let condition =
                format!("id IN (SELECT id FROM ({active} UNION ALL {expired}) LIMIT ?4)");
            only(&condition, vec![(*created_before).into(), (*limit).into()])
        }
        Selection::Ids(ids) => {
            only("id IN (SELECT value FROM json_each(?3))", vec![list(ids.iter())])
        }
    }
}

/// Bumps the epoch of a user who exists or once did; a stranger leaves no row behind.
fn bump_known(database: &Database, user: &UserId) -> Statement {
    database.say(
        "INSERT INTO {p}session_users (user_id, credential_epoch) SELECT ?1, 1 \
         WHERE EXISTS (SELECT 1 FROM {p}users WHERE id = ?1) \
         OR EXISTS (SELECT 1 FROM {p}session_users WHERE user_id = ?1) \
         ON CONFLICT (user_id) DO UPDATE SET credential_epoch = credential_epoch + 1",
        [user.into()],
    )
}

/// The statement that names every stored session of a user.
pub(crate) fn ids_of(database: &Database, user: &UserId) -> Statement {
    let sql = "SELECT id FROM {p}sessions WHERE user_id = ?1 ORDER BY created_at, id";
    database.say(sql, [user.into()])
}

pub(crate) async fn sweep(database: &Database, bounds: &SweepBounds, limit: u32) -> Result<Swept> {
    let bound = |limit: i64| {
        [bounds.expired_before.into(), bounds.revoked_before.into(), Value::Integer(limit)]
    };
    let limit = i64::from(limit);
    let control = |sweeping: i64| {
        database.say("UPDATE {p}session_control SET sweeping = ?1", [sweeping.into()])
    };
    let mut batch = vec![
        database.say(&format!("SELECT count(*) AS dead FROM ({DEAD})"), bound(limit + 1)),
        control(1),
        database.say(&format!("DELETE FROM {{p}}sessions WHERE id IN ({DEAD})"), bound(limit)),
        control(0),
    ];
    batch.extend(log::purge(database));
    let between = batch.len() - 2;
    let mut answers = database.write(batch).await?;
    let dead = answers.next().column::<i64>("dead")?;
    let dead = dead.first().copied().unwrap_or_default();
    answers.skip(between);
    let is_log_left = answers.next().column::<i64>("more")?.first().is_some_and(|more| *more != 0);
    let more = dead > limit || is_log_left;
    Ok(Swept { removed: dead.min(limit).unsigned_abs(), more })
}
