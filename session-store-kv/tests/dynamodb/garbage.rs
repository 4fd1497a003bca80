//! Items that can't be read: damaged, or of another version.

use aws_sdk_dynamodb::types::AttributeValue;
use session_store_core::{
    ErrorKind, Page, PrimaryStore, Reason, Selection, Session, State, SweepBounds, Swept,
    Timestamp, Which,
};

use crate::lab::{Item, Lab, NOW, ada, bounds, guest, id, later, new, session, text};

/// An item of which nothing but the key makes sense.
fn garbage(pk: &str, sk: &str) -> Item {
    let number = AttributeValue::N("7".to_owned());
    let fields = [("pk", text(pk)), ("sk", text(sk)), ("k", number)];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[tokio::test]
async fn a_sweep_passes_by_garbage_and_counts_it() {
    let lab = Lab::new("garbageplaces").await;
    for number in 1..=40 {
        PrimaryStore::insert(&lab.store, &new(guest(number)), NOW).await.unwrap();
    }
    for shard in 0..8 {
        let at = format!("{:016x}#what", later(5).as_millis());
        for letter in ["e#", "x#", "r#"] {
            lab.put(garbage(&format!("Q#{shard}"), &format!("{letter}{at}"))).await;
            lab.put(garbage(&format!("Q#{shard}"), &format!("{letter}0"))).await;
        }
    }
    lab.set_format(&format!("S#{}", id(7)), 2).await;
    assert_eq!(lab.store.unreadable(), 0);
    // In small steps as well as in one.
    let first = PrimaryStore::sweep(&lab.store, &bounds(3600, 3600), 9).await.unwrap();
    assert_eq!(first, Swept { removed: 9, more: true });
    let rest = PrimaryStore::sweep(&lab.store, &bounds(3600, 3600), 100).await.unwrap();
    assert_eq!(rest, Swept { removed: 30, more: false });
    assert_eq!(lab.store.unreadable(), 48 + 1);
    // Mended, it goes like all others.
    lab.set_format(&format!("S#{}", id(7)), 1).await;
    let rest = PrimaryStore::sweep(&lab.store, &bounds(3600, 3600), 100).await.unwrap();
    assert_eq!((rest.removed, lab.store.unreadable()), (1, 48));
}

#[tokio::test]
async fn a_session_that_can_not_be_read_is_ended_with_all_others_and_named() {
    let lab = Lab::new("garbageall").await;
    lab.log_in(3).await;
    lab.set_format(&format!("S#{}", id(2)), 2).await;
    let all = Selection::AllOf(ada());
    let mut done = PrimaryStore::revoke(&lab.store, &all, Reason::Admin, later(1)).await.unwrap();
    done.revoked.sort_unstable();
    assert_eq!((done.revoked, done.earlier), (vec![id(1), id(3)], vec![id(2)]));
    assert_eq!(lab.count("job").await, 0);
    // Once it can be read, it is seen to be ended.
    lab.set_format(&format!("S#{}", id(2)), 1).await;
    let found = PrimaryStore::find(&lab.store, &id(2)).await.unwrap().snapshot.unwrap();
    assert_eq!(found.session.state(NOW), State::Revoked(Reason::Admin));
}

#[tokio::test]
async fn a_revocation_of_everybody_ends_all_that_can_be_read_and_tells_of_the_rest() {
    let lab = Lab::new("garbageeveryone").await;
    for number in 1..=9 {
        PrimaryStore::insert(&lab.store, &new(guest(number)), NOW).await.unwrap();
    }
    lab.set_format(&format!("S#{}", id(5)), 2).await;
    lab.put(garbage("Q#0", "e#nothing")).await;
    // And one whose user can't be read.
    lab.register().await;
    PrimaryStore::insert(&lab.store, &new(session(10)), NOW).await.unwrap();
    lab.set_format("U#ada", 2).await;
    let everyone = Selection::Everyone { created_before: later(1), limit: 3 };
    let mut ended = 0;
    let failed = loop {
        match PrimaryStore::revoke(&lab.store, &everyone, Reason::Admin, later(1)).await {
            Ok(done) => ended += done.revoked.len(),
            Err(failed) => break failed,
        }
        assert!(ended <= 8);
    };
    assert_eq!(ended, 8);
    assert!(matches!(failed.kind(), ErrorKind::SchemaMismatch { .. }), "{failed}");
}

#[tokio::test]
async fn of_several_sessions_those_that_can_be_read_are_ended() {
    let lab = Lab::new("garbageids").await;
    lab.log_in(3).await;
    lab.set_format(&format!("S#{}", id(2)), 2).await;
    let three = Selection::Ids((1..=3).map(id).collect());
    let failed = PrimaryStore::revoke(&lab.store, &three, Reason::Admin, NOW).await.unwrap_err();
    assert!(matches!(failed.kind(), ErrorKind::SchemaMismatch { .. }), "{failed}");
    for number in [1, 3] {
        let found = PrimaryStore::find(&lab.store, &id(number)).await.unwrap().snapshot.unwrap();
        assert_eq!(found.session.state(NOW), State::Revoked(Reason::Admin));
    }
}

#[tokio::test]
async fn a_census_counts_past_what_is_none_of_ours() {
    let lab = Lab::new("garbagecensus").await;
    lab.log_in(2).await;
    lab.put(garbage("somebody", "else")).await;
    assert_eq!(PrimaryStore::census(&lab.store, NOW, None).await.unwrap().active, 2);
    let never = SweepBounds { expired_before: later(1), revoked_before: Timestamp::EPOCH };
    assert_eq!(PrimaryStore::sweep(&lab.store, &never, 9).await.unwrap(), Swept::default());
}

#[tokio::test]
async fn neither_a_damaged_entry_nor_a_damaged_note_keeps_a_user() {
    for (namespace, is_deleted) in [("garbagelogout", false), ("garbagedeletion", true)] {
        let lab = Lab::new(namespace).await;
        lab.log_in(3).await;
        let entry = format!("s#{:016x}#{}", NOW.as_millis(), id(2));
        lab.put(garbage("U#ada", &entry)).await;
        lab.put(garbage("U#ada", "s#nobody's")).await;
        let note = AttributeValue::Ss(vec!["a login of nobody".to_owned()]);
        lab.set("U#ada", "recent", Some(note)).await;
        let mark = AttributeValue::L(vec![text("no barrier")]);
        lab.set("U#ada", "marks", Some(mark)).await;
        let listed =
            PrimaryStore::list(&lab.store, &ada(), Which::Live(NOW), &Page::first(9)).await;
        assert_eq!(listed.unwrap().items.len(), 3);
        let mut named = if is_deleted {
            let done = PrimaryStore::delete_user(&lab.store, &ada(), later(1)).await.unwrap();
            done.unwrap().sessions
        } else {
            let all = Selection::AllOf(ada());
            let done =
                PrimaryStore::revoke(&lab.store, &all, Reason::Admin, later(1)).await.unwrap();
            [done.revoked, done.earlier].concat()
        };
        named.sort_unstable();
        assert_eq!(named, [id(1), id(2), id(3)]);
        for number in 1..=3 {
            let found = PrimaryStore::find(&lab.store, &id(number)).await.unwrap().snapshot;
            assert!(found.is_none_or(|found| found.session.state(NOW) != State::Active));
        }
        assert_eq!(lab.count("job").await, 0);
    }
}

#[tokio::test]
async fn a_damaged_entry_costs_neither_the_session_that_is_spared_nor_anybody_elses() {
    let lab = Lab::new("garbagespared").await;
    lab.log_in(2).await;
    PrimaryStore::insert(&lab.store, &new(guest(3)), NOW).await.unwrap();
    for number in [1, 3] {
        let entry = format!("s#{:016x}#{}", NOW.as_millis(), id(number));
        lab.put(garbage("U#ada", &entry)).await;
    }
    let others = Selection::AllBut(ada(), id(1));
    let done = PrimaryStore::revoke(&lab.store, &others, Reason::Admin, later(1)).await.unwrap();
    assert_eq!(done.revoked, [id(2)]);
    let state = async |number| {
        let found = PrimaryStore::find(&lab.store, &id(number)).await.unwrap().snapshot.unwrap();
        found.session.state(later(1))
    };
    assert_eq!((state(1).await, state(3).await), (State::Active, State::Active));
    PrimaryStore::delete_user(&lab.store, &ada(), later(1)).await.unwrap();
    assert_eq!(state(3).await, State::Active);
}

#[tokio::test]
async fn a_revocation_of_everybody_tells_of_the_rest_though_somebody_has_expired() {
    let lab = Lab::new("garbageexpired").await;
    for number in 1..=2 {
        PrimaryStore::insert(&lab.store, &new(guest(number)), NOW).await.unwrap();
    }
    let brief = Session { expires_at: later(5), ..guest(3) };
    PrimaryStore::insert(&lab.store, &new(brief), NOW).await.unwrap();
    lab.set_format(&format!("S#{}", id(2)), 2).await;
    let everyone = Selection::Everyone { created_before: later(1), limit: 9 };
    let revoke =
        async || PrimaryStore::revoke(&lab.store, &everyone, Reason::Admin, later(6)).await;
    assert_eq!(revoke().await.unwrap().revoked, [id(1)]);
    let failed = revoke().await.unwrap_err();
    assert!(matches!(failed.kind(), ErrorKind::SchemaMismatch { .. }), "{failed}");
}
