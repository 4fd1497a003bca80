//! Listing and counting sessions.

use futures_util::future::join_all;

use super::super::checks;
use super::super::report::{INVALID_INPUT, ensure, expect, refused};
use super::super::runner::Outcome;
use super::super::sample::{HOUR, NOW, at, guest, id, new, session, user_id};
use super::PrimaryBench;
use crate::primary::{Census, Cursor, Page, Selection, Which};
use crate::session::{Reason, Session};

checks! { ($) primary_list: PrimaryBench;
    "P-65" live_and_all_are_told_apart "Live lists the active sessions, All every stored one.",
    "P-66" parallel_logins_are_all_listed "Of 32 sessions created at once, all are listed.",
    "P-67" pages_have_no_gap "Sessions of one millisecond are paged without gap or repetition.",
    "P-68" hostile_cursors_are_refused "A cursor that is none is refused, and shows nobody else's.",
    "P-87" the_census_is_right "The census counts what is stored, in all and per user.",
}

async fn live_and_all_are_told_apart(on: &PrimaryBench) -> Outcome {
    on.log_in(2).await?;
    on.store.insert(&new(Session { expires_at: at(1), ..session(3, 1)? }), NOW).await?;
    on.store.revoke(&Selection::Ids(vec![id(2)]), Reason::Logout, NOW).await?;
    let ids = async |which| {
        let listing = on.store.list(&user_id(1)?, which, &Page::first(9)).await?;
        let ids: Vec<_> = listing.items.iter().map(|found| found.id).collect();
        Ok::<_, super::super::report::Violation>(ids)
    };
    expect(ids(Which::Live(at(1))).await?, vec![id(1)])?;
    expect(ids(Which::All).await?, vec![id(1), id(2), id(3)])?;
    let nobody = on.store.list(&user_id(9)?, Which::All, &Page::first(9)).await?;
    expect(nobody.items, vec![])
}

async fn parallel_logins_are_all_listed(on: &PrimaryBench) -> Outcome {
    on.register(1).await?;
    let mut logins = Vec::new();
    for number in 1..=32 {
        logins.push(new(session(number, 1)?));
    }
    let stores = [&on.store, &on.second];
    let inserts = logins.iter().enumerate().map(|(n, login)| stores[n % 2].insert(login, NOW));
    for done in join_all(inserts).await {
        done?;
    }
    let listing = on.store.list(&user_id(1)?, Which::Live(NOW), &Page::first(100)).await?;
    expect((listing.items.len(), listing.next), (32, None))
}

async fn pages_have_no_gap(on: &PrimaryBench) -> Outcome {
    on.log_in(25).await?;
    let mut page = Page::first(7);
    let mut seen = Vec::new();
    loop {
        let listing = on.second.list(&user_id(1)?, Which::Live(NOW), &page).await?;
        ensure(listing.items.len() <= 7, "a page is too long")?;
        seen.extend(listing.items.into_iter().map(|found| found.id));
        if seen.len() == 14 {
            // One by a clock that is ahead, and one by a clock that is behind.
            for (number, created_at) in [(90, at(1)), (91, at(-1))] {
                let other = Session { created_at, ..session(number, 1)? };
                on.store.insert(&new(other), NOW).await?;
            }
        }
        ensure(seen.len() <= 26, "the pages do not end")?;
        let Some(next) = listing.next else { break };
        page = page.behind(Cursor::parse(&next.to_string())?);
    }
    expect(seen, (1..=25).chain([90]).map(id).collect())
}

async fn hostile_cursors_are_refused(on: &PrimaryBench) -> Outcome {
    on.log_in(2).await?;
    let wrong = &INVALID_INPUT;
    for text in ["", "x", "../../etc/passwd", "AAAA", "'; --"] {
        refused(Cursor::parse(text), wrong)?;
    }
    let short = Page::first(9).behind(Cursor { at: NOW, key: vec![1] });
    refused(on.store.list(&user_id(1)?, Which::All, &short).await, wrong)?;
    let foreign = Page::first(9).behind(Cursor { at: NOW, key: id(1).as_bytes().to_vec() });
    expect(on.store.list(&user_id(2)?, Which::All, &foreign).await?.items, vec![])
}

async fn the_census_is_right(on: &PrimaryBench) -> Outcome {
    on.log_in(3).await?;
    on.store.insert(&new(guest(4)), NOW).await?;
    let old = Session { created_at: at(-48 * HOUR), expires_at: at(1), ..guest(5) };
    on.store.insert(&new(old), NOW).await?;
    on.store.revoke(&Selection::Ids(vec![id(3)]), Reason::Logout, NOW).await?;
    let all = on.store.census(at(1), None).await?;
    let wanted = Census {
        active: 3,
        guests: 1,
        users: 1,
        expired: 1,
        revoked: 1,
        created_last_day: 4,
        revoked_last_day: 1,
    };
    expect(all, wanted)?;
    let one = on.store.census(at(1), Some(&user_id(1)?)).await?;
    expect((one.active, one.guests, one.users, one.revoked), (2, 0, 1, 1))?;
    expect(on.store.census(at(1), Some(&user_id(9)?)).await?, Census::default())
}
