//! A sweep of a table that was not swept for a long time.

use std::sync::atomic::{AtomicU64, Ordering};

use session_store_core::{PrimaryStore, Reason, Selection, SweepBounds, Touch};

use crate::fixture::{HOUR, NOW, server, session, store, user};

const LIVE: u32 = 1_000_000;
const BATCH: u32 = 20_000;

#[tokio::test]
async fn a_million_are_swept_beside_traffic() {
    let on = server();
    let store = store(&on, "million").await;
    let schema = on.schema("million");
    let (now, soon) = (NOW.as_millis(), NOW.plus(2 * HOUR).as_millis());
    // The first million is live, the second has expired, every row at a moment of its own.
    on.run(format!(
        "INSERT INTO {schema}.sessions (id, secret_hash, created_at, last_seen_at, expires_at, \
         idle_timeout, rotated_at, remember, amr, data, version, credential_epoch) \
         SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), decode(repeat('07', 32), 'hex'), 0, 0, \
         CASE WHEN n <= {LIVE} THEN {soon} ELSE {now} - n END, 3600000, 0, false, '[]', '{{}}', 1, 0 \
         FROM generate_series(1, 2 * {LIVE}) n; ANALYZE {schema}.sessions"
    ))
    .await
    .unwrap();
    let bounds = SweepBounds { expired_before: NOW, revoked_before: NOW };
    let (mut removed, mut batches) = (0, 0);
    let served = AtomicU64::new(0);
    let is_done = AtomicU64::new(0);
    let sweeping = async {
        loop {
            let swept = store.sweep(&bounds, BATCH).await.unwrap();
            (removed, batches) = (removed + swept.removed, batches + 1);
            if !swept.more {
                break;
            }
        }
        is_done.store(1, Ordering::Relaxed);
    };
    let traffic = async {
        let mut number = LIVE;
        while is_done.load(Ordering::Relaxed) == 0 {
            number -= 10;
            let live = session(number, None).session.id;
            let found = store.find(&live).await.unwrap();
            assert!(found.snapshot.is_some(), "a live session was swept");
            let touch = Touch { id: live, seen_at: NOW, expires_at: NOW.plus(3 * HOUR) };
            store.touch(&[touch]).await.unwrap();
            let new = session(3 * LIVE + number, Some("ada"));
            store.insert(&new, NOW).await.unwrap();
            let one = Selection::One { id: new.session.id, owner: Some(user("ada")) };
            store.revoke(&one, Reason::Logout, NOW.plus(HOUR)).await.unwrap();
            served.fetch_add(1, Ordering::Relaxed);
        }
    };
    tokio::join!(sweeping, traffic);
    assert_eq!((removed, batches), (u64::from(LIVE), LIVE / BATCH));
    assert!(served.load(Ordering::Relaxed) > 10, "the sweep let nobody through");
    let census = store.census(NOW, None).await.unwrap();
    assert_eq!((census.active, census.expired), (u64::from(LIVE), 0));
}
