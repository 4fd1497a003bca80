//! Revoking sessions.

use futures_util::future::{join, join_all};

use super::super::checks;
use super::super::report::{Violation, ensure, expect};
use super::super::runner::Outcome;
use super::super::sample::{HOUR, NOW, at, guest, id, new, session, user_id};
use super::PrimaryBench;
use crate::error::ErrorKind;
use crate::primary::{RevokedSessions, Selection};
use crate::session::{Reason, Session, State};

checks! { ($) primary_revoke: PrimaryBench;
    "P-70" the_first_revocation_stands
        "A second revocation keeps moment and reason of the first, and names the session again.",
    "P-71" another_users_session_is_safe "A selection with an owner never touches another's session.",
    "P-72" all_of_a_user_are_ended_and_counted
        "Revoking all returns exactly the active sessions, and every one is dead.",
    "P-73" a_racing_login_is_ended_or_refused
        "A login that races a revoke-all is among the ended, is refused, or came later.",
    "P-74" all_but_one_spares_the_one "Revoking the others leaves exactly the current session.",
    "P-76" everyone_goes_in_steps "Revoking everybody ends at most the limit per call, until none.",
}

fn sorted(mut done: RevokedSessions) -> RevokedSessions {
    done.revoked.sort_unstable();
    done.earlier.sort_unstable();
    done
}

async fn the_first_revocation_stands(on: &PrimaryBench) -> Outcome {
    on.store.insert(&new(guest(1)), NOW).await?;
    let one = Selection::One { id: id(1), owner: None };
    let first = on.store.revoke(&one, Reason::Logout, at(1)).await?;
    expect(first, RevokedSessions { revoked: vec![id(1)], earlier: vec![] })?;
    let second = on.second.revoke(&one, Reason::Admin, at(2)).await?;
    expect(second, RevokedSessions { revoked: vec![], earlier: vec![id(1)] })?;
    let end = on.stored(id(1)).await?.and_then(|found| found.revoked);
    expect(end.map(|end| (end.at, end.reason)), Some((at(1), Reason::Logout)))?;
    let unknown = Selection::One { id: id(9), owner: None };
    expect(on.store.revoke(&unknown, Reason::Admin, NOW).await?, RevokedSessions::default())
}

async fn another_users_session_is_safe(on: &PrimaryBench) -> Outcome {
    on.log_in(1).await?;
    let theirs = Selection::One { id: id(1), owner: Some(user_id(2)?) };
    let done = on.store.revoke(&theirs, Reason::LogoutRemote, NOW).await?;
    expect(done, RevokedSessions::default())?;
    expect(on.stored(id(1)).await?.map(|found| found.state(NOW)), Some(State::Active))?;
    let own = Selection::One { id: id(1), owner: Some(user_id(1)?) };
    expect(on.store.revoke(&own, Reason::LogoutRemote, NOW).await?.revoked, vec![id(1)])
}

async fn all_of_a_user_are_ended_and_counted(on: &PrimaryBench) -> Outcome {
    on.register(2).await?;
    for number in 1..=5 {
        on.store.insert(&new(session(number, 1)?), NOW).await?;
    }
    for number in 6..=7 {
        let short = Session { expires_at: at(1), ..session(number, 1)? };
        on.store.insert(&new(short), NOW).await?;
    }
    on.store.insert(&new(session(8, 2)?), NOW).await?;
    on.store.revoke(&Selection::Ids(vec![id(5)]), Reason::Logout, NOW).await?;
    let all = Selection::AllOf(user_id(1)?);
    let done = sorted(on.store.revoke(&all, Reason::LogoutEverywhere, at(1)).await?);
    expect(done, RevokedSessions { revoked: (1..=4).map(id).collect(), earlier: vec![id(5)] })?;
    for number in 1..=7 {
        let state = on.stored(id(number)).await?.map(|found| found.state(at(1)));
        ensure(state != Some(State::Active), "a session survived a revoke-all")?;
    }
    expect(on.stored(id(8)).await?.map(|found| found.state(at(1))), Some(State::Active))
}

async fn a_racing_login_is_ended_or_refused(on: &PrimaryBench) -> Outcome {
    on.register(1).await?;
    for round in 0..10u16 {
        let user = user_id(1)?;
        let account = on.store.find_user(&user).await?;
        let epoch = account.map(|account| account.credential_epoch).unwrap_or_default();
        let mut logins = Vec::new();
        for number in 0..4 {
            let login = session(1 + round * 10 + number, 1)?;
            logins.push(new(Session { credential_epoch: epoch, ..login }));
        }
        let all = Selection::AllOf(user);
        let insert = join_all(logins.iter().map(|login| on.store.insert(login, NOW)));
        let revoke = on.second.revoke(&all, Reason::LogoutEverywhere, NOW);
        let (inserted, revoked) = join(insert, revoke).await;
        let revoked = revoked?.revoked;
        for (login, result) in logins.iter().zip(inserted) {
            let state = on.stored(login.session.id).await?.map(|found| found.state(NOW));
            match (result, state) {
                (Err(error), None) if *error.kind() == ErrorKind::StaleCredentials => {}
                (Ok(_), Some(State::Revoked(_))) => {
                    ensure(revoked.contains(&login.session.id), "ended but not returned")?;
                }
                other => return Err(Violation::new(format!("a login survived: {other:?}"))),
            }
        }
    }
    Ok(())
}

async fn all_but_one_spares_the_one(on: &PrimaryBench) -> Outcome {
    on.log_in(4).await?;
    let before = on.store.find_user(&user_id(1)?).await?.map(|found| found.credential_epoch);
    let others = Selection::AllBut(user_id(1)?, id(2));
    let done = sorted(on.store.revoke(&others, Reason::LogoutEverywhere, NOW).await?);
    expect(done.revoked, vec![id(1), id(3), id(4)])?;
    let spared = on.stored(id(2)).await?;
    expect(spared.as_ref().map(|found| found.state(NOW)), Some(State::Active))?;
    expect(spared.as_ref().map(|found| found.version), Some(1))?;
    let account = on.store.find_user(&user_id(1)?).await?;
    let epoch = account.map(|account| account.credential_epoch);
    ensure(epoch > before, "a login that was verified before would still be let in")?;
    expect(spared.map(|found| found.credential_epoch), epoch)?;
    let unknown = Selection::AllBut(user_id(1)?, id(99));
    expect(on.store.revoke(&unknown, Reason::Admin, NOW).await?.revoked, vec![id(2)])
}

async fn everyone_goes_in_steps(on: &PrimaryBench) -> Outcome {
    on.register(3).await?;
    // Dead ones, whatever their place, must not fill a step: the loop over the steps would end.
    for number in (1..=10).chain(51..=65) {
        on.store.insert(&new(Session { expires_at: at(1), ..guest(number) }), NOW).await?;
    }
    for number in 11..=35 {
        on.store.insert(&new(session(number, 1 + number % 3)?), NOW).await?;
    }
    on.store.insert(&new(Session { created_at: at(1), ..session(40, 1)? }), NOW).await?;
    let mut counts = Vec::new();
    for _ in 0..4 {
        let step = Selection::Everyone { created_before: NOW, limit: 10 };
        counts.push(on.store.revoke(&step, Reason::Admin, at(1)).await?.revoked.len());
    }
    expect(counts, vec![10, 10, 5, 0])?;
    // The one that was created later is left.
    expect(on.stored(id(40)).await?.map(|found| found.state(at(1))), Some(State::Active))?;
    expect(on.store.census(at(HOUR - 1), None).await?.active, 1)
}
