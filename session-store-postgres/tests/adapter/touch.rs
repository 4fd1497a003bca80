//! Touches that come in one batch.

use std::time::Duration;

use session_store_core::{PrimaryStore, Touch, Touched};

use crate::fixture::{HOUR, NOW, server, session, store};

#[tokio::test]
async fn touches_of_one_session_are_one_after_the_other() {
    let on = server();
    let store = store(&on, "twice").await;
    let minutes = |count: u64| NOW.plus(Duration::from_mins(count));
    for number in 1..=3 {
        store.insert(&session(number, Some("ada")), NOW).await.unwrap();
    }
    let touch = |number, at: u64| Touch {
        id: session(number, None).session.id,
        seen_at: minutes(at),
        expires_at: minutes(at).plus(HOUR),
    };
    // They end at 60: the second touch of the first is in time because of the first one.
    let touches =
        [touch(1, 59), touch(2, 10), touch(1, 90), touch(3, 90), touch(3, 59), touch(1, 20)];
    let active = |at: u64| Touched::Active { expires_at: minutes(at).plus(HOUR) };
    let wanted = [active(59), active(10), active(90), Touched::Missing, active(59), active(90)];
    assert_eq!(store.touch(&touches).await.unwrap(), wanted);
    let found = store.find(&session(1, None).session.id).await.unwrap().snapshot.unwrap();
    assert_eq!(found.session.last_seen_at, minutes(90));
    assert_eq!(found.session.expires_at, minutes(90).plus(HOUR));
}
