//! Statements that record use. Touches come in batches of strangers: a session that somebody else has
//! locked keeps no other one from being written, and nobody is waited for while others are held.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;

use session_store_core::{Error, ErrorKind, Result, SessionId, Touch, Touched};
use sqlx::{PgConnection, PgPool};

use crate::ending::bytes;
use crate::error::{classify, error, has_waited};
use crate::row;
use crate::schema::Schema;
use crate::transaction::{Tries, begin, begin_impatient, finish};

/// A touch, and which of the batch it is.
type Numbered = (usize, Touch);

/// Writes what nobody else has locked, and waits for the others one after the other. If that takes too
/// long for one, the call ends with what could be written by then, and this error.
pub(crate) async fn touch(
    pool: &PgPool,
    schema: &Schema,
    touches: &[Touch],
) -> Result<Vec<Touched>> {
    let mut outcomes = vec![Touched::Missing; touches.len()];
    let mut left: Vec<Numbered> = touches.iter().copied().enumerate().collect();
    // One that is alone keeps nobody waiting.
    let mut awaited = match &ids(&left).into_iter().collect::<Vec<_>>()[..] {
        [] => return Ok(outcomes),
        [only] => Some(*only),
        _ => None,
    };
    loop {
        match (awaited, pass(pool, schema, &left, awaited).await) {
            (_, Ok(done)) => {
                for (number, outcome) in done.outcomes {
                    outcomes[number] = outcome;
                }
                left.retain(|(_, touch)| done.locked.contains(&touch.id));
            }
            (Some(id), Err(source)) if has_waited(&source) => {
                left.retain(|(_, touch)| touch.id != id);
                // Meanwhile somebody may have let go of those behind it.
                if !left.is_empty() {
                    pass(pool, schema, &left, None).await?;
                }
                return Err(error(ErrorKind::Unavailable).caused_by(Locked { id, source }));
            }
            (_, Err(error)) => return Err(error),
        }
        let Some((_, next)) = left.first() else { return Ok(outcomes) };
        awaited = Some(next.id);
    }
}

fn ids(touches: &[Numbered]) -> BTreeSet<SessionId> {
    touches.iter().map(|(_, touch)| touch.id).collect()
}

/// What became of those that could be written, and which ones somebody else has locked.
struct Pass {
    outcomes: Vec<(usize, Touched)>,
    locked: BTreeSet<SessionId>,
}

/// One transaction. `awaited` is waited for, but not for long.
async fn pass(
    pool: &PgPool,
    schema: &Schema,
    touches: &[Numbered],
    awaited: Option<SessionId>,
) -> Result<Pass> {
    let mut tries = Tries::default();
    loop {
        let mut on = match awaited {
            Some(_) => begin_impatient(pool).await?,
            None => begin(pool).await?,
        };
        let outcome = touch_free(&mut on, schema, touches, awaited).await;
        if let ControlFlow::Break(done) = finish(on, outcome, &mut tries).await? {
            return Ok(done);
        }
    }
}

async fn touch_free(
    on: &mut PgConnection,
    schema: &Schema,
    touches: &[Numbered],
    awaited: Option<SessionId>,
) -> Result<Pass> {
    let ids = ids(touches);
    let mut locked = BTreeSet::new();
    // If only one is left, the change itself waits for it.
    if ids.len() > 1 {
        if let Some(id) = awaited {
            let sql = "SELECT 1 FROM {p}sessions WHERE id = $1 FOR NO KEY UPDATE";
            let lock = sqlx::query(schema.sql(sql)).bind(id.as_bytes().as_slice());
            lock.execute(&mut *on).await.map_err(classify)?;
        }
        locked = lock_free(on, schema, ids).await?;
    }
    let mut outcomes = Vec::with_capacity(touches.len());
    let mut left: Vec<_> =
        touches.iter().copied().filter(|(_, touch)| !locked.contains(&touch.id)).collect();
    while !left.is_empty() {
        // Of each session one at a time: whether the second finds it active may be up to the first.
        let (mut round, mut later) = (BTreeMap::new(), Vec::new());
        for (number, touch) in left {
            match round.entry(touch.id) {
                Entry::Vacant(free) => drop(free.insert((number, touch))),
                Entry::Occupied(_) => later.push((number, touch)),
            }
        }
        touch_each(on, schema, &round, &mut outcomes).await?;
        left = later;
    }
    Ok(Pass { outcomes, locked })
}

/// Locks those of `ids` that nobody else has locked, without waiting, as strongly as the change itself: who
/// merely refers to a session is not in the way. Returns the others, unless they are not there at all.
async fn lock_free(
    on: &mut PgConnection,
    schema: &Schema,
    mut ids: BTreeSet<SessionId>,
) -> Result<BTreeSet<SessionId>> {
    let sql = "SELECT id FROM {p}sessions WHERE id = ANY($1) FOR NO KEY UPDATE SKIP LOCKED";
    let free = sqlx::query(schema.sql(sql)).bind(bytes(&ids));
    for row in &free.fetch_all(&mut *on).await.map_err(classify)? {
        ids.remove(&row::id(row, 0)?);
    }
    if ids.is_empty() {
        return Ok(ids);
    }
    let sql = "SELECT id FROM {p}sessions WHERE id = ANY($1)";
    let there = sqlx::query(schema.sql(sql)).bind(bytes(&ids));
    let rows = there.fetch_all(on).await.map_err(classify)?;
    rows.iter().map(|row| row::id(row, 0)).collect()
}

/// Touches of different sessions; those that are found active are added to `outcomes`.
async fn touch_each(
    on: &mut PgConnection,
    schema: &Schema,
    round: &BTreeMap<SessionId, Numbered>,
    outcomes: &mut Vec<(usize, Touched)>,
) -> Result<()> {
    let (seen, expires): (Vec<_>, Vec<_>) = round
        .values()
        .map(|(_, touch)| (touch.seen_at.as_millis(), touch.expires_at.as_millis()))
        .unzip();
    let sql = "UPDATE {p}sessions s SET last_seen_at = greatest(s.last_seen_at, t.seen), \
         expires_at = greatest(s.expires_at, least(t.expires, \
                               coalesce(s.absolute_expires_at, t.expires))) \
         FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS t (id, seen, expires) \
         WHERE s.id = t.id AND s.revoked_at IS NULL AND s.expires_at > t.seen \
         AND (s.absolute_expires_at IS NULL OR s.absolute_expires_at > t.seen) \
         RETURNING s.id, s.expires_at";
    let rows = sqlx::query(schema.sql(sql))
        .bind(bytes(round.keys()))
        .bind(seen)
        .bind(expires)
        .fetch_all(on)
        .await
        .map_err(classify)?;
    for row in &rows {
        if let Some((number, _)) = round.get(&row::id(row, 0)?) {
            outcomes.push((*number, Touched::Active { expires_at: row::time(row, 1)? }));
        }
    }
    Ok(())
}

/// A session that somebody else did not let go of.
#[derive(Debug)]
struct Locked {
    id: SessionId,
    source: Error,
}

impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id;
        write!(
            f,
            "the session {id} is locked by somebody else, and was waited for in vain; see pg_locks \
             and pg_stat_activity, and end it there if it hangs"
        )
    }
}

impl std::error::Error for Locked {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
