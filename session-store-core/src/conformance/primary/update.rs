//! Changing sessions: versions, resurrection, rotation, promotion.

use std::time::Duration;

use futures_util::future::join_all;

use super::super::checks;
use super::super::report::{INVALID_INPUT, Violation, expect, refused};
use super::super::runner::Outcome;
use super::super::sample::{HOUR, NOW, at, guest, id, json, new, session, updated, user_id};
use super::PrimaryBench;
use crate::error::ErrorKind;
use crate::primary::{Elevation, Promotion, Rotation, Selection, SessionChange, Touched, Update};
use crate::session::{Previous, Reason, SessionLimit, State};
use crate::time::Ttl;
use crate::token::SecretHash;
use crate::user::CredentialEpoch;

checks! { ($) primary_update: PrimaryBench;
    "P-30 X8-P-02" a_missing_session_is_not_created
        "An update of a missing session is Missing, and none is created.",
    "P-31" work_in_flight_cannot_revive "A reader's late touch or update does not bring it back.",
    "P-32" a_partial_update_cannot_revive
        "Changing one field of a deleted session leaves nothing behind.",
    "P-33" a_revoked_session_stays_revoked "A revoked session can't be updated or touched.",
    "P-34" an_expired_session_stays_expired "An expired session can't be brought back.",
    "P-35" the_version_grows_by_one "An update with the current version makes it one later.",
    "P-36 X8-P-03" another_version_is_a_conflict
        "An update with another version is a conflict that names the current one.",
    "P-37" thirty_two_writers_lose_nothing "Of 32 writers with retry every change is there.",
    "P-38" touches_and_updates_do_not_collide
        "A touch leaves the version alone, and both effects are there.",
    "P-40 P-43" a_rotation_is_one_write
        "A rotation changes hash, previous and time together, and never the absolute deadline.",
    "P-56" deadlines_in_the_past_are_refused "An update to a deadline that has passed is refused.",
    "X8-P-16" a_promotion_is_a_login
        "A promotion obeys epoch, limit and unknown users, and can't change a user.",
}

fn data(text: &str) -> Result<SessionChange, Violation> {
    Ok(SessionChange { data: Some(json(text)?), ..SessionChange::default() })
}

async fn a_missing_session_is_not_created(on: &PrimaryBench) -> Outcome {
    expect(on.store.update(&id(1), 1, &data("1")?, NOW).await?, Update::Missing)?;
    expect(on.stored(id(1)).await?, None)
}

async fn work_in_flight_cannot_revive(on: &PrimaryBench) -> Outcome {
    on.log_in(1).await?;
    let loaded = on.stored(id(1)).await?;
    on.second.delete_user(&user_id(1)?, NOW).await?;
    let version = loaded.map_or(1, |found| found.version);
    let touch = super::super::sample::touch(1, 1, 2 * HOUR);
    expect(on.store.touch(&[touch]).await?, vec![Touched::Missing])?;
    expect(on.store.update(&id(1), version, &data("2")?, NOW).await?, Update::Missing)?;
    expect(on.stored(id(1)).await?, None)
}

async fn a_partial_update_cannot_revive(on: &PrimaryBench) -> Outcome {
    on.log_in(1).await?;
    on.store.delete_user(&user_id(1)?, NOW).await?;
    let one_field = SessionChange { previous_until: Some(at(1)), ..SessionChange::default() };
    expect(on.store.update(&id(1), 1, &one_field, NOW).await?, Update::Missing)?;
    expect(on.store.census(NOW, None).await?, crate::primary::Census::default())
}

async fn a_revoked_session_stays_revoked(on: &PrimaryBench) -> Outcome {
    on.store.insert(&new(guest(1)), NOW).await?;
    on.store.revoke(&Selection::Ids(vec![id(1)]), Reason::Logout, NOW).await?;
    let stored = on.stored(id(1)).await?;
    let version = stored.as_ref().map_or(0, |found| found.version);
    expect(on.store.update(&id(1), version, &data("1")?, NOW).await?, Update::Missing)?;
    let touch = super::super::sample::touch(1, 1, 2 * HOUR);
    expect(on.store.touch(&[touch]).await?, vec![Touched::Missing])?;
    expect(on.stored(id(1)).await?, stored)
}

async fn an_expired_session_stays_expired(on: &PrimaryBench) -> Outcome {
    on.store.insert(&new(guest(1)), NOW).await?;
    let longer = SessionChange { expires_at: Some(at(9 * HOUR)), ..SessionChange::default() };
    expect(on.store.update(&id(1), 1, &longer, at(HOUR)).await?, Update::Missing)?;
    let touch = super::super::sample::touch(1, HOUR, 9 * HOUR);
    expect(on.store.touch(&[touch]).await?, vec![Touched::Missing])?;
    expect(on.stored(id(1)).await?.map(|found| found.state(at(HOUR))), Some(State::Expired))
}

async fn the_version_grows_by_one(on: &PrimaryBench) -> Outcome {
    on.store.insert(&new(guest(1)), NOW).await?;
    let first = updated(on.store.update(&id(1), 1, &data("1")?, NOW).await?)?;
    expect((first.version, first.data.as_str()), (2, "1"))?;
    let second = updated(on.second.update(&id(1), 2, &data("2")?, NOW).await?)?;
    expect(on.stored(id(1)).await?, Some(second))
}

async fn another_version_is_a_conflict(on: &PrimaryBench) -> Outcome {
    on.store.insert(&new(guest(1)), NOW).await?;
    updated(on.store.update(&id(1), 1, &data("1")?, NOW).await?)?;
    for version in [0, 1, 3] {
        let result = on.second.update(&id(1), version, &data("9")?, NOW).await?;
        expect(result, Update::Conflict { current: 2 })?;
    }
    expect(on.stored(id(1)).await?.map(|found| found.data.as_str() == "1"), Some(true))
}

async fn thirty_two_writers_lose_nothing(on: &PrimaryBench) -> Outcome {
    on.store.insert(&new(guest(1)), NOW).await?;
    let one = |number: usize| async move {
        let store = [&on.store, &on.second][number % 2];
        // Each conflict is the success of another writer, of whom there are 31.
        for _ in 0..32 {
            let Some(found) = on.stored(id(1)).await? else {
                return expect(false, true);
            };
            let count: u32 = found.data.read().unwrap_or(0);
            let change = data(&(count + 1).to_string())?;
            match store.update(&id(1), found.version, &change, NOW).await? {
                Update::Updated(_) => return Ok(()),
                Update::Conflict { .. } => {}
                Update::Missing => return expect("missing", "there"),
            }
        }
        Err(Violation::new("a conflict although nobody else has written"))
    };
    for result in join_all((0..32).map(one)).await {
        result?;
    }
    let found = on.stored(id(1)).await?;
    expect(found.map(|found| (found.version, found.data.as_str() == "32")), Some((33, true)))
}

async fn touches_and_updates_do_not_collide(on: &PrimaryBench) -> Outcome {
    on.store.insert(&new(guest(1)), NOW).await?;
    let touch = super::super::sample::touch(1, 60_000, 2 * HOUR);
    on.second.touch(&[touch]).await?;
    let after = updated(on.store.update(&id(1), 1, &data("1")?, NOW).await?)?;
    expect((after.last_seen_at, after.expires_at), (at(60_000), at(2 * HOUR)))?;
    on.second.touch(&[super::super::sample::touch(1, 120_000, 3 * HOUR)]).await?;
    let found = on.stored(id(1)).await?;
    expect(found.map(|found| (found.version, found.expires_at)), Some((2, at(3 * HOUR))))
}

async fn a_rotation_is_one_write(on: &PrimaryBench) -> Outcome {
    on.store.insert(&new(guest(1)), NOW).await?;
    let before = guest(1);
    for turn in 1..=3u8 {
        let previous =
            Some(Previous { hash: SecretHash::from_bytes([turn; 32]), until: Some(at(10)) });
        let secret_hash = SecretHash::from_bytes([turn + 1; 32]);
        let rotation = Rotation { secret_hash, previous, rotated_at: at(i64::from(turn)) };
        let change = SessionChange { rotation: Some(rotation), ..SessionChange::default() };
        let after = updated(on.store.update(&id(1), turn.into(), &change, NOW).await?)?;
        expect((after.secret_hash, after.previous), (secret_hash, previous))?;
        expect(after.rotated_at, at(i64::from(turn)))?;
        expect(after.absolute_expires_at, before.absolute_expires_at)?;
        expect((after.created_at, after.data), (before.created_at, before.data.clone()))?;
    }
    let stale = Rotation {
        secret_hash: SecretHash::from_bytes([77; 32]),
        previous: None,
        rotated_at: at(9),
    };
    let change = SessionChange { rotation: Some(stale), ..SessionChange::default() };
    expect(on.store.update(&id(1), 1, &change, NOW).await?, Update::Conflict { current: 4 })?;
    let hash = on.stored(id(1)).await?.map(|found| found.secret_hash);
    expect(hash, Some(SecretHash::from_bytes([4; 32])))
}

async fn deadlines_in_the_past_are_refused(on: &PrimaryBench) -> Outcome {
    on.store.insert(&new(guest(1)), NOW).await?;
    let past = SessionChange { expires_at: Some(NOW), ..SessionChange::default() };
    let result = on.store.update(&id(1), 1, &past, NOW).await;
    refused(result, &ErrorKind::InvalidExpiry)?;
    expect(on.stored(id(1)).await?, Some(guest(1)))
}

fn promote(number: u16, epoch: u64, max: u32, evict: bool) -> Result<SessionChange, Violation> {
    let promotion = Promotion {
        user_id: user_id(number)?,
        credential_epoch: CredentialEpoch(epoch),
        limit: Some(SessionLimit { max, evict }),
        remember: true,
        idle_timeout: Ttl::new(Duration::from_hours(2)).unwrap_or(Ttl::MIN),
        absolute_expires_at: Some(at(9 * HOUR)),
        external_sid: Some("sid".to_owned()),
    };
    let elevation = Elevation { authenticated_at: NOW, aal: Some(1), amr: vec![] };
    Ok(SessionChange {
        promotion: Some(promotion),
        elevation: Some(elevation),
        ..SessionChange::default()
    })
}

async fn a_promotion_is_a_login(on: &PrimaryBench) -> Outcome {
    on.log_in(1).await?;
    on.store.insert(&new(guest(2)), NOW).await?;
    let full = on.store.update(&id(2), 1, &promote(1, 0, 1, false)?, NOW).await;
    refused(full, &ErrorKind::TooManySessions)?;
    let unknown = on.store.update(&id(2), 1, &promote(9, 0, 9, true)?, NOW).await;
    refused(unknown, &ErrorKind::UnknownUser)?;
    on.store.revoke(&Selection::AllOf(user_id(1)?), Reason::Admin, NOW).await?;
    let stale = on.store.update(&id(2), 1, &promote(1, 0, 9, true)?, NOW).await;
    refused(stale, &ErrorKind::StaleCredentials)?;
    expect(on.stored(id(2)).await?, Some(guest(2)))?;
    let fresh = crate::session::Session { credential_epoch: CredentialEpoch(1), ..session(3, 1)? };
    on.store.insert(&new(fresh), NOW).await?;
    match on.store.update(&id(2), 1, &promote(1, 1, 1, true)?, at(1)).await? {
        Update::Updated(done) => {
            expect(done.evicted, vec![id(3)])?;
            expect(done.snapshot.user.map(|user| user.id), Some(user_id(1)?))?;
        }
        other => return Err(Violation::new(format!("not promoted: {other:?}"))),
    }
    let stored = on.stored(id(2)).await?.unwrap_or(guest(2));
    expect((stored.remember, stored.external_sid.as_deref()), (true, Some("sid")))?;
    expect(stored.idle_timeout.as_duration(), Duration::from_hours(2))?;
    expect(stored.absolute_expires_at, Some(at(9 * HOUR)))?;
    let account = on.store.find_user(&user_id(1)?).await?;
    expect(account.and_then(|account| account.user.last_login_at), Some(at(1)))?;
    on.store.insert_user(&super::super::sample::user(2)?, NOW).await?;
    let theft = on.store.update(&id(2), 2, &promote(2, 0, 9, true)?, NOW).await;
    refused(theft, &INVALID_INPUT)
}
