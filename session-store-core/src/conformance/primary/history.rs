//! Many operations at once, and rows that nobody should have written.

use std::collections::HashMap;

use futures_util::future::join_all;
use parking_lot::Mutex;

use super::super::checks;
use super::super::harness::Deed;
use super::super::report::{Violation, ensure, expect, refused};
use super::super::runner::Outcome;
use super::super::sample::{HOUR, NOW, at, guest, id, new, session, touch, user_id};
use super::PrimaryBench;
use crate::error::ErrorKind;
use crate::primary::{Selection, SessionChange, Touched, Update};
use crate::session::{Reason, Session, State};
use crate::time::Timestamp;

checks! { ($) primary_history: PrimaryBench;
    "P-19" a_row_that_can_not_be_read_is_corrupt
        "A damaged row is Corrupt and not absent, hurts no other, and can still be ended.",
    "P-50" no_history_contradicts_itself
        "What one of 16 workers was told is true for all that begin later.",
    "P-64" deleting_a_user_of_many_sessions "A thousand sessions go with their user.",
    "P-95" the_ends_of_time_are_kept "The first and the last moment that can be named come back.",
}

async fn a_row_that_can_not_be_read_is_corrupt(on: &PrimaryBench) -> Outcome {
    on.log_in(3).await?;
    if !on.by_hand(&Deed::Damage(id(1))).await? || !on.by_hand(&Deed::Damage(id(3))).await? {
        return Ok(());
    }
    refused(on.store.find(&id(1)).await, &ErrorKind::Corrupt)?;
    ensure(on.stored(id(2)).await?.is_some(), "another row can't be read either")?;
    let one = Selection::One { id: id(1), owner: None };
    let ended = on.store.revoke(&one, Reason::Admin, at(1)).await?;
    expect(ended.revoked, vec![id(1)])?;
    let gone = on.store.delete_user(&user_id(1)?, at(1)).await?;
    let mut gone = gone.map(|deleted| deleted.sessions).unwrap_or_default();
    gone.sort_unstable();
    expect(gone, vec![id(1), id(2), id(3)])?;
    expect(on.store.find(&id(1)).await?.snapshot, None)
}

/// What has been acknowledged of one session.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    is_stored: bool,
    is_revoked: bool,
    version: u64,
}

/// What everybody knows, by the number of the session.
type History = Mutex<HashMap<u16, Known>>;

async fn no_history_contradicts_itself(on: &PrimaryBench) -> Outcome {
    let history = History::default();
    let workers = (1..=16_u32).map(|worker| {
        let history = &history;
        async move {
            // Each worker has a fixed sequence; how they meet is up to the store.
            let mut state = worker;
            for _ in 0..24 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let number = u16::try_from(1 + (state >> 16) % 4).unwrap_or(1);
                step(on, history, worker, number, state >> 20 & 7).await?;
            }
            Ok(())
        }
    });
    join_all(workers).await.into_iter().collect()
}

async fn step(
    on: &PrimaryBench,
    history: &History,
    worker: u32,
    number: u16,
    deed: u32,
) -> Outcome {
    let store = if worker.is_multiple_of(2) { &on.store } else { &on.second };
    let before = history.lock().get(&number).copied().unwrap_or_default();
    let learn = |lesson: &dyn Fn(&mut Known)| lesson(history.lock().entry(number).or_default());
    match deed {
        0 => match store.insert(&new(guest(number)), NOW).await {
            Ok(_) => {
                ensure(!before.is_stored, "an id was given away twice")?;
                learn(&|known| known.is_stored = true);
            }
            Err(error) => expect(error.kind(), &ErrorKind::Conflict)?,
        },
        1 if before.version > 2 => {
            let one = Selection::One { id: id(number), owner: None };
            store.revoke(&one, Reason::Logout, NOW).await?;
            learn(&|known| known.is_revoked = true);
        }
        2..=4 if before.is_stored => {
            let version = before.version.max(1);
            let change = SessionChange::default();
            let update = store.update(&id(number), version, &change, NOW).await?;
            if let Update::Updated(updated) = update {
                ensure(!before.is_revoked, "a revoked session was changed")?;
                let version = updated.snapshot.session.version;
                learn(&|known| known.version = known.version.max(version));
            }
        }
        _ => {
            let found = store.find(&id(number)).await?.snapshot.map(|found| found.session);
            ensure(found.is_some() || !before.is_stored, "an acknowledged session is absent")?;
            let Some(found) = found else { return Ok(()) };
            ensure(found.version >= before.version, "an acknowledged change is lost")?;
            let is_active = found.state(NOW) == State::Active;
            ensure(!(is_active && before.is_revoked), "a revoked session is active")?;
        }
    }
    Ok(())
}

async fn deleting_a_user_of_many_sessions(on: &PrimaryBench) -> Outcome {
    on.register(1).await?;
    for hundred in 0..10_u16 {
        let logins = (1..=100).map(|number| async move {
            let session = session(hundred * 100 + number, 1)?;
            Ok::<_, Violation>(on.store.insert(&new(session), NOW).await?)
        });
        join_all(logins).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    let deleted = on.store.delete_user(&user_id(1)?, NOW).await?;
    expect(deleted.map(|deleted| deleted.sessions.len()), Some(1_000))?;
    expect(on.store.census(NOW, None).await?, crate::primary::Census::default())
}

async fn the_ends_of_time_are_kept(on: &PrimaryBench) -> Outcome {
    let eternal = Session {
        created_at: Timestamp::EPOCH,
        last_seen_at: Timestamp::EPOCH,
        expires_at: Timestamp::MAX,
        absolute_expires_at: Some(Timestamp::MAX),
        ..guest(1)
    };
    on.store.insert(&new(eternal.clone()), NOW).await?;
    expect(on.stored(id(1)).await?, Some(eternal))?;
    let endless = Session { absolute_expires_at: None, ..guest(2) };
    on.store.insert(&new(endless), NOW).await?;
    let long = crate::primary::Touch { expires_at: Timestamp::MAX, ..touch(2, HOUR - 1, HOUR) };
    expect(on.store.touch(&[long]).await?, vec![Touched::Active { expires_at: Timestamp::MAX }])?;
    expect(on.stored(id(2)).await?.map(|found| found.last_seen_at), Some(at(HOUR - 1)))
}
