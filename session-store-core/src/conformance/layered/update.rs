//! Updates: no older version after they returned.

use futures_util::future::{join, join_all};

use super::super::checks;
use super::super::report::{Violation, ensure, expect};
use super::super::runner::Outcome;
use super::super::sample::{json, user_id};
use super::super::wire::{Op, Point};
use super::{DONE, Node, PairBench, two_nodes};
use crate::layered::Visibility;
use crate::primary::SessionChange;
use crate::session::Reason;
use crate::sessions::{DataUpdate, Extended};
use crate::token::{SessionId, Token};
use crate::user::{Role, UserChange};

checks! { ($) layered_update: PairBench;
    "K6-U01 L-31 L-38 X8-L-02" a_slow_reader_can_not_bring_the_old_version
        "A reader held before its fill does not bring back the version from before an update.",
    "K6-U02" a_revocation_beats_an_update_under_way
        "An update held before its cache step does not bring back a session revoked meanwhile.",
    "K6-U03" a_refused_swap_removes "An update whose swap is refused removes the entry.",
    "K6-U05 L-07 P-57" a_shorter_session_is_forgotten "An update that shortens removes the entry.",
    "K6-U06" an_ended_session_can_not_be_extended
        "Extending a revoked session removes the entry and revives nothing.",
    "K6-U07" a_burst_touches_once "50 concurrent hits cause at most one primary write.",
    "K6-U08 L-24 X8-L-03 X8-L-04" a_rotation_shows_everywhere
        "After a rotation the new secret is accepted on every node, also with a cold cache.",
    "X8-L-40" a_role_that_was_taken_back_stays_so
        "A reader held before it mends an entry brings nothing of between two changes of a user.",
    "L-37 X8-L-05" a_failed_update_changes_nothing "An update the primary refused is not in the cache.",
}

async fn set(node: &Node, token: &Token, text: &str) -> Result<DataUpdate, Violation> {
    let Some(live) = node.app.authenticate(token).await.live() else {
        return Err(Violation::new("not accepted"));
    };
    Ok(node.app.set_data(&live, json(text)?).await?)
}

async fn shown(node: &Node, id: SessionId) -> Result<String, Violation> {
    let found = node.look(id).await?.snapshot;
    Ok(found.map_or(String::new(), |found| found.session.data.as_str().to_owned()))
}

async fn a_slow_reader_can_not_bring_the_old_version(on: &PairBench) -> Outcome {
    for (op, point) in [(Op::Find, Point::After), (Op::Swap, Point::Before)] {
        let (one, other, token) = two_nodes(on).await?;
        on.runtime.settle().await;
        let Some(live) = other.app.authenticate_fresh(&token).await.live() else {
            return expect("absent", "live");
        };
        let wire = if op == Op::Find { &one.db } else { &one.cache };
        let mut held = wire.hold(op, point);
        let reader = one.accepts(&token);
        let writer = async {
            held.reached().await;
            let done = other.app.set_data(&live, json("2")?).await?;
            held.release();
            Ok::<_, Violation>(done)
        };
        let (_, done) = join(reader, writer).await;
        ensure(matches!(done?, DataUpdate::Updated { .. }), "not updated")?;
        on.runtime.settle().await;
        for node in [&one, &other] {
            expect(shown(node, token.id()).await?, "2".to_owned())?;
        }
    }
    DONE
}

async fn a_revocation_beats_an_update_under_way(on: &PairBench) -> Outcome {
    let (one, other, token) = two_nodes(on).await?;
    ensure(one.accepts(&token).await, "not accepted")?;
    on.runtime.settle().await;
    let mut held = one.cache.hold(Op::Swap, Point::Before);
    let update = set(&one, &token, "2");
    let revoke = async {
        held.reached().await;
        let done = other.app.admin_revoke(token.id(), Reason::Admin).await;
        held.release();
        done
    };
    let (_, done) = join(update, revoke).await;
    let _ = done?;
    on.runtime.settle().await;
    ensure(!on.is_cached(token.id()).await?, "an update brought a revoked session back")?;
    ensure(!one.accepts(&token).await, "accepted after a revocation")
}

async fn a_refused_swap_removes(on: &PairBench) -> Outcome {
    let (one, other, token) = two_nodes(on).await?;
    ensure(one.accepts(&token).await, "not accepted")?;
    on.runtime.settle().await;
    one.cache.reset();
    one.cache.fail(Op::Swap);
    let _ = set(&one, &token, "2").await?;
    expect(one.cache.count(Op::Remove), 1)?;
    expect(shown(&other, token.id()).await?, "2".to_owned())?;
    on.runtime.settle().await;
    one.cache.reset();
    let _ = set(&one, &token, "3").await?;
    // A swap that was made needs no removal.
    expect((one.cache.count(Op::Swap), one.cache.count(Op::Remove)), (1, 0))?;
    expect(shown(&other, token.id()).await?, "3".to_owned())
}

async fn a_shorter_session_is_forgotten(on: &PairBench) -> Outcome {
    let (one, other, token) = two_nodes(on).await?;
    ensure(one.accepts(&token).await, "not accepted")?;
    on.runtime.settle().await;
    let soon = one.app.now().plus(std::time::Duration::from_mins(2));
    let visibility = Visibility::Immediate;
    expect(other.app.extend(&token, soon).await?, Extended::Until { deadline: soon, visibility })?;
    ensure(!on.is_cached(token.id()).await?, "the longer entry stayed")?;
    ensure(one.accepts(&token).await, "not accepted before the new deadline")?;
    on.runtime.settle().await;
    on.runtime.advance(std::time::Duration::from_mins(2));
    ensure(!one.accepts(&token).await, "accepted after the new deadline")?;
    // Use of before, not written yet, does not make it longer again.
    let token = on.log_in_warm(&one).await?;
    on.runtime.advance(std::time::Duration::from_hours(48));
    ensure(one.accepts(&token).await, "not accepted")?;
    let soon = one.app.now().plus(std::time::Duration::from_mins(2));
    let extended = one.app.extend(&token, soon).await?;
    ensure(matches!(extended, Extended::Until { .. }), "not shortened")?;
    one.app.flush_touches().await?;
    let stored = on.primary.find(&token.id()).await?.snapshot.map(|found| found.session.expires_at);
    expect(stored, Some(soon))?;
    // Whoever saw the entry could swap it, which would leave a shorter session its longer time.
    let token = on.log_in_warm(&one).await?;
    let answer = one.look(token.id()).await?;
    let version = answer.snapshot.as_ref().map_or(0, |found| found.session.version);
    let soon = one.app.now().plus(std::time::Duration::from_mins(2));
    let change = SessionChange { expires_at: Some(soon), ..SessionChange::default() };
    let (seen, now) = (answer.seen, one.app.now());
    ensure(seen.is_some(), "no entry was seen")?;
    one.app.store().update((token.id(), version), change, seen, now).await?;
    ensure(!on.is_cached(token.id()).await?, "the longer entry was swapped")
}

async fn an_ended_session_can_not_be_extended(on: &PairBench) -> Outcome {
    let (one, other, token) = two_nodes(on).await?;
    let Some(live) = one.app.authenticate(&token).await.live() else {
        return expect("absent", "live");
    };
    on.runtime.settle().await;
    other.cache.fail(Op::Remove);
    let _ = other.app.admin_revoke(token.id(), Reason::Admin).await?;
    // The entry could not be removed; the update finds nothing to change and removes it.
    let done = one.app.set_data(&live, json("2")?).await?;
    ensure(matches!(done, DataUpdate::Absent(_)), "a revoked session was updated")?;
    ensure(!on.is_cached(token.id()).await?, "the entry stayed")?;
    let later = one.app.now().plus(std::time::Duration::from_hours(1));
    let extended = one.app.extend(&token, later).await?;
    ensure(matches!(extended, Extended::Absent(_)), "a revoked session was extended")?;
    ensure(!one.accepts(&token).await, "a revoked session was accepted")
}

async fn a_burst_touches_once(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in_warm(&node).await?;
    on.runtime.advance(std::time::Duration::from_hours(24));
    ensure(node.accepts(&token).await, "not accepted")?;
    on.runtime.settle().await;
    node.db.reset();
    let all = join_all((0..50).map(|_| node.accepts(&token))).await;
    ensure(all.iter().all(|accepted| *accepted), "not all were accepted")?;
    node.app.flush_touches().await?;
    node.app.flush_touches().await?;
    expect(node.db.count(Op::Touch), 1)
}

async fn a_rotation_shows_everywhere(on: &PairBench) -> Outcome {
    for is_cold in [false, true] {
        let (one, other, token) = two_nodes(on).await?;
        ensure(other.accepts(&token).await, "not accepted")?;
        on.runtime.settle().await;
        if is_cold {
            on.evict(token.id()).await?;
        }
        let crate::sessions::RotationOutcome::Rotated { token: new, .. } =
            one.app.rotate(&token).await?
        else {
            return Err(Violation::new("not rotated"));
        };
        for node in [&one, &other] {
            ensure(node.accepts(&new).await, "the new secret is refused")?;
            on.runtime.settle().await;
        }
        expect(new.id(), token.id())?;
    }
    DONE
}

async fn a_failed_update_changes_nothing(on: &PairBench) -> Outcome {
    let (one, other, token) = two_nodes(on).await?;
    ensure(one.accepts(&token).await, "not accepted")?;
    on.runtime.settle().await;
    let Some(live) = one.app.authenticate(&token).await.live() else {
        return expect("absent", "live");
    };
    one.db.fail(Op::Update);
    ensure(one.app.set_data(&live, json("2")?).await.is_err(), "no error")?;
    expect(shown(&other, token.id()).await?, "{}".to_owned())?;
    one.db.lose_reply(Op::Update);
    ensure(one.app.set_data(&live, json("3")?).await.is_err(), "no error")?;
    // It happened: nobody may see the old version.
    expect(shown(&other, token.id()).await?, "3".to_owned())?;
    let late = one.app.set_data(&live, json("4")?).await?;
    expect(late, DataUpdate::Conflict)
}

async fn a_role_that_was_taken_back_stays_so(on: &PairBench) -> Outcome {
    let (one, other, token) = two_nodes(on).await?;
    ensure(one.accepts(&token).await && other.accepts(&token).await, "not accepted")?;
    let id = user_id(1)?;
    let change = |role| {
        Ok::<_, Violation>(UserChange { role: Some(Role::new(role)?), ..UserChange::default() })
    };
    let role = async || {
        let live = other.app.authenticate(&token).await.live();
        live.and_then(|live| live.user().map(|user| user.role.as_str().to_owned()))
    };
    one.app.update_user(&id, 1, change("user")?).await?;
    expect(role().await.as_deref(), Some("user"))?;
    on.runtime.settle().await;
    let mut removal = one.cache.hold(Op::Remove, Point::Before);
    let mut mend = other.cache.hold(Op::Swap, Point::Before);
    // Whoever shows a wrong secret, and anybody may, has the entry compared with the truth.
    let stranger = Token::for_session(token.id())?;
    let meeting = async {
        removal.reached().await;
        let is_in = other.accepts(&stranger).await;
        mend.reached().await;
        removal.release();
        is_in
    };
    let (up, is_in) = join(one.app.update_user(&id, 2, change("admin")?), meeting).await;
    ensure(!is_in, "a wrong secret was accepted")?;
    expect(up?.visibility, Visibility::Immediate)?;
    expect(one.app.update_user(&id, 3, change("user")?).await?.visibility, Visibility::Immediate)?;
    // The entry is once more what it was when it was seen.
    ensure(one.accepts(&token).await, "not accepted")?;
    on.runtime.settle().await;
    mend.release();
    on.runtime.settle().await;
    expect(role().await.as_deref(), Some("user"))
}
