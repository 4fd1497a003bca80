//! Finding sessions.

use super::super::checks;
use super::super::harness::Deed;
use super::super::report::{ensure, expect};
use super::super::runner::Outcome;
use super::super::sample::{HOUR, NOW, at, guest, id, new, session, user_id};
use super::PrimaryBench;
use crate::primary::{Selection, Which};
use crate::session::{Reason, Session, State};

checks! { ($) primary_find: PrimaryBench;
    "P-07 X8-P-14" nothing_is_found_and_nothing_created
        "A session that was never stored is absent, and finding nothing creates nothing.",
    "P-10 X8-P-04" the_deadline_itself_is_expired
        "A session is active until its deadline and expired from that millisecond on.",
    "P-11" expired_rows_are_returned_as_stored "An expired session is returned as stored.",
    "P-13" revoked_rows_are_returned_as_stored
        "A revoked session is returned with the moment and the reason.",
    "P-14" a_session_without_its_user_is_absent "A session whose user is gone is absent.",
    "P-15" other_handles_see_it_at_once "What one handle has acknowledged, another one finds.",
    "P-17" finding_changes_nothing "Finding a session changes nothing about it.",
    "P-107" a_dropped_future_leaves_no_half "A dropped insert is there whole, or not at all.",
}

async fn nothing_is_found_and_nothing_created(on: &PrimaryBench) -> Outcome {
    expect(on.store.find(&id(1)).await?.snapshot, None)?;
    expect(on.store.census(NOW, None).await?, crate::primary::Census::default())
}

async fn the_deadline_itself_is_expired(on: &PrimaryBench) -> Outcome {
    on.store.insert(&new(guest(1)), NOW).await?;
    let Some(found) = on.stored(id(1)).await? else {
        return expect(false, true);
    };
    expect(found.state(at(HOUR - 1)), State::Active)?;
    expect(found.state(at(HOUR)), State::Expired)?;
    expect(found.state(at(HOUR + 1)), State::Expired)
}

async fn expired_rows_are_returned_as_stored(on: &PrimaryBench) -> Outcome {
    let short = Session { expires_at: at(1), ..guest(1) };
    on.store.insert(&new(short.clone()), NOW).await?;
    expect(on.stored(id(1)).await?, Some(short))?;
    expect(on.stored(id(1)).await?.map(|found| found.state(at(1))), Some(State::Expired))
}

async fn revoked_rows_are_returned_as_stored(on: &PrimaryBench) -> Outcome {
    on.store.insert(&new(guest(1)), NOW).await?;
    let one = Selection::One { id: id(1), owner: None };
    on.store.revoke(&one, Reason::Admin, at(5)).await?;
    let end = on.stored(id(1)).await?.and_then(|found| found.revoked);
    expect(end.map(|end| (end.at, end.reason)), Some((at(5), Reason::Admin)))?;
    expect(
        on.stored(id(1)).await?.map(|found| found.state(at(5))),
        Some(State::Revoked(Reason::Admin)),
    )
}

async fn a_session_without_its_user_is_absent(on: &PrimaryBench) -> Outcome {
    on.log_in(1).await?;
    let user = user_id(1)?;
    if !on.by_hand(&Deed::DeleteUser(user.clone())).await? {
        on.store.delete_user(&user, NOW).await?;
    }
    expect(on.store.find(&id(1)).await?.snapshot, None)
}

async fn other_handles_see_it_at_once(on: &PrimaryBench) -> Outcome {
    on.register(1).await?;
    for number in 1..=20 {
        on.store.insert(&new(session(number, 1)?), NOW).await?;
        ensure(on.second.find(&id(number)).await?.snapshot.is_some(), "not found by another")?;
        let one = Selection::One { id: id(number), owner: None };
        on.second.revoke(&one, Reason::Logout, NOW).await?;
        let found = on.stored(id(number)).await?.map(|found| found.state(NOW));
        expect(found, Some(State::Revoked(Reason::Logout)))?;
    }
    Ok(())
}

async fn finding_changes_nothing(on: &PrimaryBench) -> Outcome {
    on.log_in(1).await?;
    let before = on.stored(id(1)).await?;
    on.store.list(&user_id(1)?, Which::All, &crate::primary::Page::first(9)).await?;
    on.store.census(at(5), None).await?;
    expect(on.stored(id(1)).await?, before)
}

async fn a_dropped_future_leaves_no_half(on: &PrimaryBench) -> Outcome {
    on.register(1).await?;
    for number in 1..=20 {
        let whole = session(number, 1)?;
        let record = new(whole.clone());
        {
            let mut insert = on.store.insert(&record, NOW);
            // One poll starts it; the drop is the client that went away.
            let _ = futures_util::poll!(&mut insert);
        }
        let found = on.stored(whole.id).await?;
        ensure(found.is_none_or(|found| found == whole), "a half session is stored")?;
    }
    on.store.insert(&new(session(99, 1)?), NOW).await?;
    ensure(on.stored(id(99)).await?.is_some(), "the store is unusable after dropped calls")
}
