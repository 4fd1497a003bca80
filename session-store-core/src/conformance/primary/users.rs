//! Users, and what becomes of their sessions.

use futures_util::future::join;

use super::super::checks;
use super::super::report::{Violation, ensure, expect, refused};
use super::super::runner::Outcome;
use super::super::sample::{HOUR, NOW, at, id, json, new, session, user, user_id};
use super::PrimaryBench;
use crate::error::ErrorKind;
use crate::primary::Page;
use crate::user::{Edit, Email, PasswordHash, Role, User, UserChange, UserUpdate};

checks! { ($) primary_users: PrimaryBench;
    "X8-U-02" a_taken_user_is_a_conflict
        "A taken id or address is a conflict, and the stored user is unchanged.",
    "X8-U-03" every_field_of_a_user_comes_back
        "A user is found by id and by normalized address, with every field.",
    "X8-U-04" a_user_changes_by_version "A change needs the current version and creates nobody.",
    "X8-U-05" users_are_listed_in_pages "Users are listed in order, without gap or repetition.",
    "P-60 P-61 X8-U-01" deleting_a_user_removes_the_sessions
        "All sessions of a deleted user are gone and named; other users keep theirs.",
    "P-62" a_login_racing_a_deletion_leaves_no_orphan
        "A login that races the deletion is removed with the user, or is refused.",
    "P-63" deleting_nobody_is_no_error "Deleting an unknown user is None.",
    "X8-U-06" a_deleted_id_rests "A deleted id can't be registered again before its quarantine ends.",
    "X8-U-07" a_rest_is_settled
        "The end of a quarantine is moved, sooner or later, and that of another deletion is not.",
}

fn full() -> Result<User, Violation> {
    Ok(User {
        email: Some(Email::parse("Ada@Example.org")?),
        password_hash: Some(PasswordHash::new("$argon2id$x")?),
        is_verified: true,
        role: Role::new("admin")?,
        last_login_at: Some(at(-5)),
        claims: json(r#"{"team":1}"#)?,
        ..user(1)?
    })
}

async fn a_taken_user_is_a_conflict(on: &PrimaryBench) -> Outcome {
    on.store.insert_user(&full()?, NOW).await?;
    let conflict = &ErrorKind::Conflict;
    refused(on.second.insert_user(&user(1)?, NOW).await, conflict)?;
    let twin = User { email: Some(Email::parse("ada@EXAMPLE.org")?), ..user(2)? };
    refused(on.store.insert_user(&twin, NOW).await, conflict)?;
    let found = on.store.find_user(&user_id(1)?).await?.map(|account| account.user);
    expect(found, Some(full()?))?;
    expect(on.store.count_users().await?, 1)
}

async fn every_field_of_a_user_comes_back(on: &PrimaryBench) -> Outcome {
    on.store.insert_user(&full()?, NOW).await?;
    let by_id = on.store.find_user(&user_id(1)?).await?;
    expect(by_id.as_ref().map(|account| account.user.clone()), Some(full()?))?;
    expect(on.second.find_user_by_email("ada@example.org").await?, by_id)?;
    expect(on.store.find_user_by_email("Ada@Example.org").await?, None)?;
    expect(on.store.find_user(&user_id(2)?).await?, None)?;
    on.store.insert(&new(session(1, 1)?), at(7)).await?;
    let seen = on.store.find_user(&user_id(1)?).await?.and_then(|found| found.user.last_login_at);
    expect(seen, Some(at(7)))?;
    let shown = on.store.find(&id(1)).await?.snapshot.and_then(|snapshot| snapshot.user);
    expect(shown.map(|user| (user.role, user.is_verified, user.claims)), {
        let user = full()?;
        Some((user.role, user.is_verified, user.claims))
    })
}

async fn a_user_changes_by_version(on: &PrimaryBench) -> Outcome {
    on.log_in(2).await?;
    let change = UserChange {
        role: Some(Role::new("admin")?),
        email: Edit::Set(Email::parse("new@example.org")?),
        ..UserChange::default()
    };
    let UserUpdate::Updated { user, mut sessions } =
        on.store.update_user(&user_id(1)?, 1, &change).await?
    else {
        return Err(Violation::new("not updated"));
    };
    sessions.sort_unstable();
    expect((user.version, sessions), (2, vec![id(1), id(2)]))?;
    expect(on.store.find_user(&user_id(1)?).await?.map(|found| found.user), Some(*user))?;
    let late = on.second.update_user(&user_id(1)?, 1, &UserChange::default()).await?;
    expect(late, UserUpdate::Conflict { current: 2 })?;
    let nobody = on.store.update_user(&user_id(9)?, 1, &change).await?;
    expect(nobody, UserUpdate::Missing)?;
    expect(on.store.count_users().await?, 1)
}

async fn users_are_listed_in_pages(on: &PrimaryBench) -> Outcome {
    for number in 1..=25 {
        // Some share the moment of their registration.
        let sample = User { created_at: at(i64::from(number / 4)), ..user(number)? };
        on.store.insert_user(&sample, NOW).await?;
    }
    let mut page = Page::first(4);
    let mut seen = Vec::new();
    loop {
        let listing = on.store.list_users(&page).await?;
        ensure(listing.items.len() <= 4, "a page is too long")?;
        seen.extend(listing.items.into_iter().map(|user| (user.created_at, user.id)));
        if seen.len() == 8 {
            // One by a clock that is ahead, and one by a clock that is behind.
            for (number, created_at) in [(90, at(99)), (91, at(-1))] {
                on.store.insert_user(&User { created_at, ..user(number)? }, NOW).await?;
            }
        }
        ensure(seen.len() <= 26, "the pages do not end")?;
        let Some(next) = listing.next else { break };
        page = page.behind(next);
    }
    let mut ordered = seen.clone();
    ordered.sort_unstable();
    ordered.dedup();
    expect((seen.len(), seen), (26, ordered))?;
    expect(on.store.count_users().await?, 27)
}

async fn deleting_a_user_removes_the_sessions(on: &PrimaryBench) -> Outcome {
    on.log_in(3).await?;
    on.store.insert_user(&user(2)?, NOW).await?;
    on.store.insert(&new(session(9, 2)?), NOW).await?;
    let deleted = on.store.delete_user(&user_id(1)?, at(1)).await?;
    let mut gone = deleted.map(|deleted| deleted.sessions).unwrap_or_default();
    gone.sort_unstable();
    expect(gone, vec![id(1), id(2), id(3)])?;
    for number in 1..=3 {
        expect(on.second.find(&id(number)).await?.snapshot, None)?;
    }
    let census = on.store.census(NOW, None).await?;
    expect((census.active, census.revoked, census.expired), (1, 0, 0))?;
    expect(on.store.find_user(&user_id(1)?).await?, None)?;
    ensure(on.stored(id(9)).await?.is_some(), "another user lost a session")
}

async fn a_login_racing_a_deletion_leaves_no_orphan(on: &PrimaryBench) -> Outcome {
    for number in 1..=10 {
        on.store.insert_user(&user(number)?, NOW).await?;
        let login = new(session(number, number)?);
        let user = user_id(number)?;
        let (insert, delete) = (on.second.insert(&login, NOW), on.store.delete_user(&user, NOW));
        let (inserted, deleted) = if number % 2 == 0 {
            join(insert, delete).await
        } else {
            let (deleted, inserted) = join(delete, insert).await;
            (inserted, deleted)
        };
        let gone = deleted?.map(|deleted| deleted.sessions).unwrap_or_default();
        match inserted {
            Ok(_) => expect(gone, vec![id(number)])?,
            Err(error) => expect(error.kind(), &ErrorKind::UnknownUser)?,
        }
        expect(on.store.find(&id(number)).await?.snapshot, None)?;
    }
    expect(on.store.census(NOW, None).await?, crate::primary::Census::default())
}

async fn deleting_nobody_is_no_error(on: &PrimaryBench) -> Outcome {
    expect(on.store.delete_user(&user_id(1)?, NOW).await?, None)?;
    on.register(1).await?;
    ensure(on.store.delete_user(&user_id(1)?, NOW).await?.is_some(), "not deleted")?;
    expect(on.store.delete_user(&user_id(1)?, NOW).await?, None)
}

async fn a_deleted_id_rests(on: &PrimaryBench) -> Outcome {
    on.log_in(1).await?;
    let before = on.store.find_user(&user_id(1)?).await?.map(|found| found.credential_epoch);
    on.store.delete_user(&user_id(1)?, at(HOUR)).await?;
    let early = on.second.insert_user(&user(1)?, at(HOUR - 1)).await;
    refused(early, &ErrorKind::UnknownUser)?;
    on.store.insert_user(&user(1)?, at(HOUR)).await?;
    let after = on.store.find_user(&user_id(1)?).await?.map(|found| found.credential_epoch);
    ensure(after > before, "the epoch of a deleted user started again")?;
    // A session of the earlier incarnation can't be created any more.
    let stale = on.store.insert(&new(session(2, 1)?), NOW).await;
    refused(stale, &ErrorKind::StaleCredentials)
}

async fn a_rest_is_settled(on: &PrimaryBench) -> Outcome {
    on.log_in(1).await?;
    let (ada, rests) = (user_id(1)?, &ErrorKind::UnknownUser);
    // Nobody was deleted yet.
    on.store.settle_deletion(&ada, at(HOUR), at(2 * HOUR)).await?;
    ensure(on.stored(id(1)).await?.is_some(), "a session is gone")?;
    on.store.delete_user(&ada, at(HOUR)).await?;
    on.second.settle_deletion(&ada, at(HOUR + 1), at(1)).await?;
    on.second.settle_deletion(&user_id(2)?, at(HOUR), at(1)).await?;
    refused(on.store.insert_user(&user(1)?, at(HOUR - 1)).await, rests)?;
    on.second.settle_deletion(&ada, at(HOUR), at(5)).await?;
    refused(on.store.insert_user(&user(1)?, at(4)).await, rests)?;
    on.store.settle_deletion(&ada, at(5), at(2 * HOUR)).await?;
    refused(on.second.insert_user(&user(1)?, at(2 * HOUR - 1)).await, rests)?;
    on.store.insert_user(&user(1)?, at(2 * HOUR)).await?;
    // A call that was late.
    on.store.settle_deletion(&ada, at(2 * HOUR), at(3 * HOUR)).await?;
    let found = on.second.find_user(&ada).await?.map(|account| account.user);
    expect((found, on.store.count_users().await?), (Some(user(1)?), 1))
}
