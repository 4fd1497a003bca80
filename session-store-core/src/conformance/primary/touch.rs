//! Touching sessions.

use super::super::checks;
use super::super::report::expect;
use super::super::runner::Outcome;
use super::super::sample::{HOUR, NOW, at, guest, id, new, touch};
use super::PrimaryBench;
use crate::primary::Touched;
use crate::session::Session;

checks! { ($) primary_touch: PrimaryBench;
    "P-51" a_touch_moves_the_idle_deadline
        "A touch moves last use and deadline, and not the absolute deadline.",
    "P-52" an_older_touch_moves_nothing_back "A late touch of an earlier use moves nothing back.",
    "P-54" a_touch_never_shortens "A touch with a nearer deadline leaves the later one.",
    "P-55" the_absolute_deadline_caps "A touch never moves the deadline past the absolute one.",
    "P-77" empty_lists_are_no_error "Empty lists of touches and ids do nothing, without an error.",
}

fn moved(to: i64) -> Vec<Touched> {
    vec![Touched::Active { expires_at: at(to) }]
}

async fn a_touch_moves_the_idle_deadline(on: &PrimaryBench) -> Outcome {
    on.store.insert(&new(guest(1)), NOW).await?;
    expect(on.store.touch(&[touch(1, 60_000, HOUR + 60_000)]).await?, moved(HOUR + 60_000))?;
    let wanted = Session { last_seen_at: at(60_000), expires_at: at(HOUR + 60_000), ..guest(1) };
    expect(on.stored(id(1)).await?, Some(wanted))
}

async fn an_older_touch_moves_nothing_back(on: &PrimaryBench) -> Outcome {
    on.store.insert(&new(guest(1)), NOW).await?;
    on.store.touch(&[touch(1, 60_000, 2 * HOUR)]).await?;
    expect(on.second.touch(&[touch(1, 30_000, 3 * HOUR)]).await?, moved(3 * HOUR))?;
    let found = on.stored(id(1)).await?.map(|found| found.last_seen_at);
    expect(found, Some(at(60_000)))
}

async fn a_touch_never_shortens(on: &PrimaryBench) -> Outcome {
    on.store.insert(&new(guest(1)), NOW).await?;
    expect(on.store.touch(&[touch(1, 1, 2)]).await?, moved(HOUR))?;
    let batch = [touch(1, 2, HOUR + 2), touch(9, 2, HOUR), touch(1, 3, HOUR + 1)];
    let active = Touched::Active { expires_at: at(HOUR + 2) };
    expect(on.store.touch(&batch).await?, vec![active, Touched::Missing, active])
}

async fn the_absolute_deadline_caps(on: &PrimaryBench) -> Outcome {
    on.store.insert(&new(guest(1)), NOW).await?;
    expect(on.store.touch(&[touch(1, 1, 99 * HOUR)]).await?, moved(24 * HOUR))?;
    let capped = Session { expires_at: at(9 * HOUR), absolute_expires_at: Some(at(5)), ..guest(2) };
    on.store.insert(&new(capped), NOW).await?;
    // Past the absolute deadline the session is dead, whatever the other one says.
    expect(on.store.touch(&[touch(2, 5, HOUR)]).await?, vec![Touched::Missing])
}

async fn empty_lists_are_no_error(on: &PrimaryBench) -> Outcome {
    expect(on.store.touch(&[]).await?, vec![])?;
    let none = crate::primary::Selection::Ids(vec![]);
    let done = on.store.revoke(&none, crate::session::Reason::Admin, NOW).await?;
    expect(done, crate::primary::RevokedSessions::default())
}
