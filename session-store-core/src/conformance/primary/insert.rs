//! Inserting sessions.

use futures_util::future::join_all;

use super::super::checks;
use super::super::report::{TOO_LARGE, ensure, expect, refused};
use super::super::runner::Outcome;
use super::super::sample::{HOUR, NOW, at, guest, id, json, limited, new, session, user_id};
use super::PrimaryBench;
use crate::error::ErrorKind;
use crate::json::Json;
use crate::primary::SessionChange;
use crate::session::{Metadata, Previous, Reason, Session, State};
use crate::token::SecretHash;
use crate::user::{CredentialEpoch, Edit, PasswordHash, UserChange};

checks! { ($) primary_insert: PrimaryBench;
    "P-01" every_field_comes_back "A session comes back with every field as it was given.",
    "P-03" an_unknown_user_is_refused "A session of an unknown user is refused and not stored.",
    "P-04 P-05 X8-P-01" a_taken_id_is_a_conflict
        "A taken id is a conflict, expired or not, and the stored session is unchanged.",
    "P-06 X8-P-06" a_past_deadline_is_refused
        "A deadline that is not after now is refused, and nothing is stored.",
    "P-100" the_limit_of_data_is_exact "Data at the declared size is stored, one byte more refused.",
    "P-85" the_limit_holds_under_parallel_logins
        "Of 20 parallel logins under a limit of 3, the least recently used are ended.",
    "P-86" a_full_user_is_refused_and_the_dead_do_not_count
        "In reject mode one too many is refused; expired and revoked sessions do not count.",
    "P-90 P-102" any_text_is_kept "Every text comes back as it was given, whatever it contains.",
    "P-92 P-94" deadlines_are_never_later "A deadline comes back equal, or earlier within the precision.",
    "P-59" nothing_is_immortal "At the end of time every session is expired, and is swept.",
    "P-98" neighbours_do_not_meet "Two namespaces never see each other's rows.",
    "K6-A04" stale_credentials_are_refused
        "A login that verified credentials changed or revoked since is refused.",
}

async fn every_field_comes_back(on: &PrimaryBench) -> Outcome {
    on.register(1).await?;
    let full = Session {
        previous: Some(Previous { hash: SecretHash::from_bytes([9; 32]), until: Some(at(5)) }),
        authenticated_at: Some(at(-1)),
        metadata: Metadata {
            ip: Some([127, 0, 0, 1].into()),
            user_agent: Some("agent".to_owned()),
            device: Some("phone".to_owned()),
        },
        remember: true,
        aal: Some(2),
        amr: vec!["pwd".to_owned(), "otp".to_owned()],
        external_sid: Some("sid".to_owned()),
        data: json(r#"{"cart":[1,2.50]}"#)?,
        ..session(1, 1)?
    };
    on.store.insert(&new(full.clone()), NOW).await?;
    expect(on.stored(full.id).await?, Some(full))?;
    let empty = Session { absolute_expires_at: None, ..guest(2) };
    on.store.insert(&new(empty.clone()), NOW).await?;
    expect(on.stored(empty.id).await?, Some(empty))
}

async fn an_unknown_user_is_refused(on: &PrimaryBench) -> Outcome {
    let lost = session(1, 7)?;
    refused(on.store.insert(&new(lost), NOW).await, &ErrorKind::UnknownUser)?;
    expect(on.stored(id(1)).await?, None)
}

async fn a_taken_id_is_a_conflict(on: &PrimaryBench) -> Outcome {
    on.register(2).await?;
    let first = session(1, 1)?;
    on.store.insert(&new(first.clone()), NOW).await?;
    let later = at(2 * HOUR);
    for (now, number) in [(NOW, 2), (later, 2)] {
        let thief = Session { expires_at: at(9 * HOUR), ..session(1, number)? };
        refused(on.store.insert(&new(thief), now).await, &ErrorKind::Conflict)?;
    }
    expect(on.stored(id(1)).await?, Some(first))?;
    let (one, two) = (new(guest(3)), new(Session { remember: true, ..guest(3) }));
    let both = join_all([on.store.insert(&one, NOW), on.second.insert(&two, NOW)]).await;
    expect(both.iter().filter(|result| result.is_ok()).count(), 1)
}

async fn a_past_deadline_is_refused(on: &PrimaryBench) -> Outcome {
    for expires_at in [at(0), at(-1), crate::time::Timestamp::EPOCH] {
        let dead = Session { expires_at, ..guest(1) };
        let result = on.store.insert(&new(dead), NOW).await;
        refused(result, &ErrorKind::InvalidExpiry)?;
    }
    expect(on.stored(id(1)).await?, None)
}

async fn the_limit_of_data_is_exact(on: &PrimaryBench) -> Outcome {
    let limit = on.store.promise().max_data_bytes;
    let document = |length: usize| json(&format!("\"{}\"", "x".repeat(length - 2)));
    let fits = Session { data: document(limit)?, ..guest(1) };
    on.store.insert(&new(fits.clone()), NOW).await?;
    expect(on.stored(id(1)).await?.map(|found| found.data == fits.data), Some(true))?;
    let large = Session { data: document(limit + 1)?, ..guest(2) };
    let wanted = &TOO_LARGE;
    refused(on.store.insert(&new(large.clone()), NOW).await, wanted)?;
    expect(on.stored(id(2)).await?, None)?;
    let change = SessionChange { data: Some(large.data), ..SessionChange::default() };
    refused(on.store.update(&id(1), 1, &change, NOW).await, wanted)?;
    expect(on.stored(id(1)).await?.map(|found| found.data == fits.data), Some(true))
}

async fn the_limit_holds_under_parallel_logins(on: &PrimaryBench) -> Outcome {
    on.register(1).await?;
    let mut logins = Vec::new();
    for number in 1..=20 {
        let seen = Session { last_seen_at: at(i64::from(number)), ..session(number, 1)? };
        logins.push(limited(seen, 3, true));
    }
    let stores = [&on.store, &on.second];
    let inserts = logins.iter().enumerate().map(|(n, new)| stores[n % 2].insert(new, NOW));
    let mut evicted = Vec::new();
    for done in join_all(inserts).await {
        evicted.extend(done?.evicted);
    }
    expect(evicted.len(), 17)?;
    for id in evicted {
        let reason = on.stored(id).await?.map(|found| found.state(NOW));
        expect(reason, Some(State::Revoked(Reason::Limit)))?;
    }
    expect(on.store.census(NOW, None).await?.active, 3)?;
    // Alone, the order is known: the one that was used longest ago goes.
    on.store
        .insert(&limited(Session { last_seen_at: at(99), ..session(50, 1)? }, 1, true), NOW)
        .await?;
    let last = Session { last_seen_at: at(98), ..session(51, 1)? };
    let done = on.store.insert(&limited(last, 1, true), NOW).await?;
    expect(done.evicted, vec![id(50)])?;
    for (number, seen) in [(52, 10), (53, 97)] {
        let other = Session { last_seen_at: at(seen), ..session(number, 1)? };
        on.store.insert(&new(other), NOW).await?;
    }
    let newest = Session { last_seen_at: at(1), ..session(54, 1)? };
    let done = on.store.insert(&limited(newest, 2, true), NOW).await?;
    expect(done.evicted, vec![id(52), id(53)])
}

async fn a_full_user_is_refused_and_the_dead_do_not_count(on: &PrimaryBench) -> Outcome {
    on.log_in(2).await?;
    let one_more = limited(session(3, 1)?, 2, false);
    let wanted = &ErrorKind::TooManySessions;
    refused(on.store.insert(&one_more, NOW).await, wanted)?;
    expect(on.stored(id(3)).await?, None)?;
    let one = crate::primary::Selection::One { id: id(1), owner: None };
    on.store.revoke(&one, Reason::Admin, NOW).await?;
    on.store.insert(&one_more, NOW).await?;
    // After an hour the rest has expired.
    let later = Session { expires_at: at(3 * HOUR), ..session(4, 1)? };
    on.store.insert(&limited(later, 1, false), at(2 * HOUR)).await?;
    Ok(())
}

async fn any_text_is_kept(on: &PrimaryBench) -> Outcome {
    let texts = [
        "'; DROP TABLE sessions; --",
        "$1 ?1 :id %_\\ *?[]",
        "line\r\nbreak\ttab",
        "\u{202e}عربى e\u{301} é 👩‍👩‍👧 \u{2028}",
        " a ",
        "A",
        "a",
    ];
    for (number, text) in (1..).zip(texts) {
        let owner = crate::user::UserId::new(text)?;
        on.store.insert_user(&crate::user::User::new(owner.clone(), NOW), NOW).await?;
        let odd = Session {
            user_id: Some(owner),
            metadata: Metadata {
                user_agent: Some(text.to_owned()),
                device: Some(text.to_owned()),
                ip: None,
            },
            amr: vec![text.to_owned()],
            external_sid: Some(text.to_owned()),
            data: Json::of(text)?,
            ..guest(number)
        };
        on.store.insert(&new(odd.clone()), NOW).await?;
        expect(on.stored(odd.id).await?, Some(odd))?;
    }
    expect(on.store.count_users().await?, texts.len() as u64)
}

async fn deadlines_are_never_later(on: &PrimaryBench) -> Outcome {
    let precision = on.store.promise().precision;
    for millis in [1, 499, 500, 999, 1_001, HOUR + 999] {
        let odd =
            Session { expires_at: at(millis), ..guest(u16::try_from(millis % 9_999).unwrap_or(1)) };
        on.store.insert(&new(odd.clone()), NOW).await?;
        let found = on.stored(odd.id).await?.map_or(NOW, |found| found.expires_at);
        ensure(found <= odd.expires_at, "a deadline came back later")?;
        ensure(odd.expires_at.since(found) < precision, "a deadline lost more than the precision")?;
    }
    let last = Session {
        expires_at: at(HOUR),
        absolute_expires_at: Some(crate::time::Timestamp::MAX),
        ..guest(10_000)
    };
    on.store.insert(&new(last.clone()), NOW).await?;
    expect(on.stored(last.id).await?, Some(last))
}

async fn nothing_is_immortal(on: &PrimaryBench) -> Outcome {
    on.store.insert(&new(guest(1)), NOW).await?;
    on.store.insert(&new(Session { absolute_expires_at: None, ..guest(2) }), NOW).await?;
    let last = crate::time::Timestamp::MAX;
    on.store.insert(&new(Session { expires_at: last, ..guest(3) }), NOW).await?;
    let touch = super::super::sample::touch(2, 1, i64::MAX / 4);
    on.store.touch(&[touch]).await?;
    expect(on.store.census(last, None).await?.active, 0)?;
    let bounds = crate::primary::SweepBounds { expired_before: last, revoked_before: NOW };
    expect(on.store.sweep(&bounds, 10).await?.removed, 3)
}

async fn neighbours_do_not_meet(on: &PrimaryBench) -> Outcome {
    on.log_in(1).await?;
    expect(on.neighbour.find(&id(1)).await?.snapshot, None)?;
    expect(on.neighbour.find_user(&user_id(1)?).await?, None)?;
    on.neighbour.insert(&new(guest(1)), NOW).await?;
    let all = crate::primary::Selection::Everyone { created_before: NOW, limit: 10 };
    on.neighbour.revoke(&all, Reason::Admin, NOW).await?;
    expect(on.stored(id(1)).await?.map(|found| found.state(NOW)), Some(State::Active))?;
    expect(on.neighbour.count_users().await?, 0)
}

async fn stale_credentials_are_refused(on: &PrimaryBench) -> Outcome {
    on.register(1).await?;
    let user = user_id(1)?;
    let found = on.store.find_user(&user).await?;
    let verified = found.map_or(CredentialEpoch::default(), |account| account.credential_epoch);
    let login = |number| {
        Ok::<_, super::super::report::Violation>(Session {
            credential_epoch: verified,
            ..session(number, 1)?
        })
    };
    on.store.insert(&new(login(1)?), NOW).await?;
    let change = UserChange {
        password_hash: Edit::Set(PasswordHash::new("another")?),
        ..UserChange::default()
    };
    on.store.update_user(&user, 1, &change).await?;
    let wanted = &ErrorKind::StaleCredentials;
    refused(on.store.insert(&new(login(2)?), NOW).await, wanted)?;
    expect(on.stored(id(2)).await?, None)?;
    let fresh = on.store.find_user(&user).await?.map_or(verified, |user| user.credential_epoch);
    let again = Session { credential_epoch: fresh, ..session(3, 1)? };
    on.store.insert(&new(again), NOW).await?;
    let all = crate::primary::Selection::AllOf(user);
    on.store.revoke(&all, Reason::LogoutEverywhere, NOW).await?;
    let late = Session { credential_epoch: fresh, ..session(4, 1)? };
    refused(on.second.insert(&new(late), NOW).await, wanted)
}
