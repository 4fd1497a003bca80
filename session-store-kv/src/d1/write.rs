//! Statements that create and change sessions.

use session_store_core::{
    CredentialEpoch, Error, ErrorKind, Inserted, Json, NewSession, Promotion, Result,
    SessionChange, SessionId, SessionIds, SessionLimit, Snapshot, State, Timestamp, Touch, Touched,
    Update, Updated, UserId,
};

use super::config::D1Config;
use super::database::{Answers, Database, Statement, Value, ids};
use super::error::{Guard, NAME, error, is_changed};
use super::read::{self, ACTIVE};
use super::row;

/// The largest document, data of a session or claims of a user, in bytes. D1 stores rows of two megabytes.
pub(crate) const MAX_DATA_BYTES: usize = 1 << 20;

/// How many touches are one batch.
const TOUCHES: usize = 100;

/// A login that is to be checked.
struct Owner<'a> {
    user: &'a UserId,
    epoch: CredentialEpoch,
    limit: Option<SessionLimit>,
    /// The session that is to be theirs.
    id: &'a SessionId,
    now: Timestamp,
}

/// Aborts the batch for the first reason that holds. The conditions are ours; none holds text from
/// outside.
fn guard(
    database: &Database,
    conditions: &[(&str, Guard)],
    values: impl IntoIterator<Item = Value>,
) -> Statement {
    let cases: Vec<_> = conditions
        .iter()
        .map(|(condition, reason)| format!("WHEN {condition} THEN {}", *reason as u8))
        .collect();
    let sql = format!(
        "INSERT INTO {{p}}session_guard (reason) SELECT reason FROM \
         (SELECT CASE {} ELSE 0 END AS reason) WHERE reason <> 0",
        cases.join(" ")
    );
    database.say(&sql, values)
}

impl Owner<'_> {
    /// How many sessions the user may have beside this one.
    fn room(&self) -> Option<i64> {
        self.limit.map(|limit| i64::from(limit.max.max(1)) - 1)
    }

    /// Checks user, epoch and limit, records the login and makes room: one batch's beginning, of
    /// which [`Owner::evicted`] reads the answers. `taken` is checked first.
    fn statements(&self, database: &Database, taken: &str, also: Guard) -> Vec<Statement> {
        let others = format!("user_id = ?2 AND id <> ?3 AND {ACTIVE}");
        let count = format!("(SELECT count(*) FROM {{p}}sessions WHERE {others})");
        let surplus = format!(
            "SELECT id FROM {{p}}sessions WHERE {others} ORDER BY last_seen_at, id \
             LIMIT CASE WHEN ?4 IS NULL THEN 0 ELSE max(0, {count} - ?4) END"
        );
        let mut conditions = vec![
            (taken, also),
            ("NOT EXISTS (SELECT 1 FROM {p}users WHERE id = ?2)", Guard::UnknownUser),
            (
                "?5 < coalesce((SELECT credential_epoch FROM {p}session_users \
                 WHERE user_id = ?2), 0)",
                Guard::StaleCredentials,
            ),
        ];
        let is_full = format!("?4 IS NOT NULL AND {count} > ?4");
        if self.limit.is_some_and(|limit| !limit.evict) {
            conditions.push((&is_full, Guard::TooMany));
        }
        let now = Value::from(self.now);
        let bound = || [now.clone(), self.user.into(), self.id.into(), self.room().into()];
        let checked = bound().into_iter().chain([self.epoch.0.into()]);
        vec![
            guard(database, &conditions, checked),
            database.say(
                "INSERT INTO {p}session_users (user_id, credential_epoch) VALUES (?1, 0) \
                 ON CONFLICT DO NOTHING",
                [self.user.into()],
            ),
            database.say(&surplus, bound()),
            database.say(
                &format!(
                    "UPDATE {{p}}sessions SET revoked_at = ?1, revoked_reason = 'limit', \
                     version = version + 1 WHERE id IN ({surplus})"
                ),
                bound(),
            ),
            database.say(
                "UPDATE {p}users SET last_login_at = ?2 WHERE id = ?1",
                [self.user.into(), now.clone()],
            ),
        ]
    }

    /// Reads the answers of [`Owner::statements`].
    fn evicted(answers: &mut Answers) -> Result<SessionIds> {
        answers.skip(2);
        let evicted = ids(&answers.next().column::<String>("id")?)?;
        answers.skip(2);
        Ok(evicted)
    }
}

pub(crate) async fn insert(
    database: &Database,
    new: &NewSession,
    now: Timestamp,
) -> Result<Inserted> {
    const TAKEN: &str = "EXISTS (SELECT 1 FROM {p}sessions WHERE id = ?3)";
    let session = &new.session;
    check_size("session data", Some(&session.data))?;
    if session.has_ended(now) {
        return Err(error(ErrorKind::InvalidExpiry));
    }
    let mut batch = Vec::new();
    if let Some(user) = &session.user_id {
        let (epoch, limit) = (session.credential_epoch, new.limit);
        let owner = Owner { user, epoch, limit, id: &session.id, now };
        batch = owner.statements(database, TAKEN, Guard::Taken);
    }
    batch.push(database.say(
        "INSERT INTO {p}sessions (id, user_id, secret_hash, previous_hash, previous_until, \
         created_at, authenticated_at, last_seen_at, expires_at, absolute_expires_at, \
         idle_timeout, rotated_at, ip, user_agent, device, remember, aal, amr, external_sid, \
         data, version, credential_epoch, revoked_at, revoked_reason) VALUES (?1, ?2, ?3, ?4, \
         ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, \
         ?23, ?24)",
        row::values(session),
    ));
    let mut answers = database.write(batch).await?;
    let evicted = match &session.user_id {
        Some(_) => Owner::evicted(&mut answers)?,
        None => SessionIds::new(),
    };
    Ok(Inserted { evicted })
}

pub(crate) async fn update(
    database: &Database,
    config: &D1Config,
    (id, version): (&SessionId, u64),
    change: &SessionChange,
    now: Timestamp,
) -> Result<Update> {
    check_size("session data", change.data.as_ref())?;
    if change.expires_at.is_some_and(|deadline| deadline <= now) {
        return Err(error(ErrorKind::InvalidExpiry));
    }
    let mut batch = match &change.promotion {
        None => Vec::new(),
        Some(promotion) => {
            let found = read::find(database, config, id).await?.snapshot;
            if let Some(outcome) = obstacle(found.as_ref(), version, now) {
                return Ok(outcome);
            }
            promote(database, (id, version), (found, promotion), now)?
        }
    };
    let is_login = !batch.is_empty();
    batch.push(change_of(database, (id, version), change, now));
    batch.push(read::snapshot(database, id));
    let mut answers = match database.write(batch).await {
        Ok(answers) => answers,
        Err(changed) if is_changed(&changed) => {
            let found = read::find(database, config, id).await?.snapshot;
            return obstacle(found.as_ref(), version, now).ok_or(changed);
        }
        Err(failed) => return Err(failed),
    };
    let evicted = if is_login { Owner::evicted(&mut answers)? } else { SessionIds::new() };
    let is_made = !answers.next().is_empty();
    let found: Option<row::SessionRow> = answers.next().first()?;
    let mut found = found.map(|row| row.snapshot()).transpose()?;
    if !is_made {
        return Ok(obstacle(found.as_ref(), version, now).unwrap_or(Update::Missing));
    }
    if let Some(user) = found.as_mut().and_then(|found| found.user.as_mut())
        && !config.project_email
    {
        user.email = None;
    }
    Ok(found.map_or(Update::Missing, |snapshot| {
        Update::Updated(Box::new(Updated { snapshot, evicted }))
    }))
}

/// Why a session can't be changed from `version`; `None` when it can.
fn obstacle(found: Option<&Snapshot>, version: u64, now: Timestamp) -> Option<Update> {
    match found {
        Some(found) if found.session.state(now) == State::Active => {
            let current = found.session.version;
            (current != version).then_some(Update::Conflict { current })
        }
        _ => Some(Update::Missing),
    }
}

fn promote(
    database: &Database,
    (id, version): (&SessionId, u64),
    (found, promotion): (Option<Snapshot>, &Promotion),
    now: Timestamp,
) -> Result<Vec<Statement>> {
    let user = &promotion.user_id;
    let owner = found.and_then(|found| found.session.user_id);
    if owner.is_some_and(|owner| owner != *user) {
        return Err(Error::invalid(NAME, "promotion of a session that has another user"));
    }
    let (epoch, limit) = (promotion.credential_epoch, promotion.limit);
    let owner = Owner { user, epoch, limit, id, now };
    // A number of ours, not a text of anybody's.
    let changed = format!(
        "NOT EXISTS (SELECT 1 FROM {{p}}sessions WHERE id = ?3 AND version = {version} \
         AND (user_id IS NULL OR user_id = ?2) AND {ACTIVE})"
    );
    Ok(owner.statements(database, &changed, Guard::Changed))
}

/// The fields that change, and no others: a touch may happen at the same time.
fn change_of(
    database: &Database,
    (id, version): (&SessionId, u64),
    change: &SessionChange,
    now: Timestamp,
) -> Statement {
    let mut set = vec!["version = version + 1".to_owned()];
    let mut values: Vec<Value> = vec![now.into(), id.into(), version.into()];
    let mut field = |name: &str, value: Value| {
        values.push(value);
        set.push(format!("{name} = ?{}", values.len()));
    };
    for (name, value) in fields(change) {
        field(name, value);
    }
    if change.rotation.is_none()
        && let Some(until) = change.previous_until
    {
        values.push(until.into());
        set.push(format!(
            "previous_until = CASE WHEN previous_hash IS NULL THEN previous_until ELSE ?{} END",
            values.len()
        ));
    }
    let sql = format!(
        "UPDATE {{p}}sessions SET {} WHERE id = ?2 AND version = ?3 AND {ACTIVE} \
         AND (user_id IS NULL OR EXISTS (SELECT 1 FROM {{p}}users u WHERE u.id = user_id)) \
         RETURNING id",
        set.join(", ")
    );
    database.say(&sql, values)
}

/// The columns that `change` sets, by the names of the schema.
fn fields(change: &SessionChange) -> Vec<(&'static str, Value)> {
    let mut fields: Vec<(&'static str, Value)> = Vec::new();
    if let Some(deadline) = change.expires_at {
        fields.push(("expires_at", deadline.into()));
    }
    if let Some(data) = &change.data {
        fields.push(("data", data.as_str().into()));
    }
    if let Some(metadata) = &change.metadata {
        fields.push(("ip", metadata.ip.map(|ip| ip.to_string()).into()));
        fields.push(("user_agent", metadata.user_agent.clone().into()));
        fields.push(("device", metadata.device.clone().into()));
    }
    if let Some(rotation) = &change.rotation {
        let previous = rotation.previous;
        let until = previous.and_then(|previous| change.previous_until.or(previous.until));
        fields.push(("secret_hash", rotation.secret_hash.into()));
        fields.push(("previous_hash", previous.map(|previous| previous.hash).into()));
        fields.push(("previous_until", until.into()));
        fields.push(("rotated_at", rotation.rotated_at.into()));
    }
    if let Some(elevation) = &change.elevation {
        fields.push(("authenticated_at", elevation.authenticated_at.into()));
        fields.push(("aal", elevation.aal.map(u32::from).into()));
        fields.push(("amr", row::amr(&elevation.amr)));
    }
    if let Some(promotion) = &change.promotion {
        fields.push(("user_id", (&promotion.user_id).into()));
        fields.push(("credential_epoch", promotion.credential_epoch.0.into()));
        fields.push(("remember", promotion.remember.into()));
        fields.push(("idle_timeout", promotion.idle_timeout.as_millis().into()));
        fields.push(("absolute_expires_at", promotion.absolute_expires_at.into()));
        fields.push(("external_sid", promotion.external_sid.clone().into()));
    }
    fields
}

pub(crate) async fn touch(database: &Database, touches: &[Touch]) -> Result<Vec<Touched>> {
    let sql = "UPDATE {p}sessions SET last_seen_at = max(last_seen_at, ?2), \
               expires_at = max(expires_at, min(?3, coalesce(absolute_expires_at, ?3))) \
               WHERE id = ?1 AND revoked_at IS NULL AND expires_at > ?2 \
               AND (absolute_expires_at IS NULL OR absolute_expires_at > ?2) \
               RETURNING expires_at";
    let mut done = Vec::with_capacity(touches.len());
    for part in touches.chunks(TOUCHES) {
        let one = |touch: &Touch| {
            database.say(sql, [(&touch.id).into(), touch.seen_at.into(), touch.expires_at.into()])
        };
        let mut answers = database.write(part.iter().map(one).collect()).await?;
        for _ in part {
            let moved = answers.next().column::<i64>("expires_at")?;
            let active = |millis: &i64| {
                let expires_at = Timestamp::from_millis(*millis);
                Touched::Active { expires_at }
            };
            done.push(moved.first().map_or(Touched::Missing, active));
        }
    }
    Ok(done)
}

/// Refuses a document, which `what` names, that D1 might not store.
pub(crate) fn check_size(what: &'static str, document: Option<&Json>) -> Result<()> {
    if document.is_some_and(|document| document.as_str().len() > MAX_DATA_BYTES) {
        return Err(error(ErrorKind::TooLarge { what, limit: MAX_DATA_BYTES }));
    }
    Ok(())
}
