//! When an entry of the log may go although nobody has drained it.

use session_store_core::{ErrorKind, PrimaryStore, SweepBounds, Timestamp};
use session_store_sqlite::{Access, SqliteConfig, SqliteStore};

use crate::support::{NOW, file, register, session, shell, store};

/// Nothing is dead before it.
const NOTHING: SweepBounds =
    SweepBounds { expired_before: Timestamp::EPOCH, revoked_before: Timestamp::EPOCH };

#[tokio::test]
async fn a_log_that_nobody_drains_is_purged_in_steps() {
    let (_folder, path) = file();
    let store = store(&path).await;
    let cache = register(&store).await;
    // Every second one was seen long ago.
    shell(
        &path,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000) \
         INSERT INTO session_log (session_id, seen_at) \
         SELECT randomblob(16), CASE WHEN i % 2 = 0 THEN 0 END FROM n; \
         INSERT INTO session_log_acks (seq, cache) SELECT seq, 'other' FROM session_log;",
    );
    for step in 1..=3 {
        let swept = store.sweep(&NOTHING, 10).await.unwrap();
        let left = store.drain(&cache, 6000).await.unwrap().entries.len();
        // What was only seen now is kept for as long as somebody may need it.
        assert_eq!((left, swept.more), (6000 - 1000 * step, step < 3));
    }
    shell(&path, "UPDATE session_log SET seen_at = 0 WHERE seq <= 4500");
    // Taken away by hand, so that only what was noted of them is left.
    shell(&path, "DELETE FROM session_log WHERE seq > 4500");
    for step in 1..=3 {
        let swept = store.sweep(&NOTHING, 10).await.unwrap();
        assert_eq!(swept.more, step < 3, "{step}");
    }
    assert_eq!(store.drain(&cache, 10).await.unwrap().entries, []);
    let count = "CREATE TABLE none (count CHECK (count = 0)); \
         INSERT INTO none SELECT count(*) FROM session_log_acks";
    shell(&path, count);
}

#[tokio::test]
async fn an_entry_is_kept_for_a_ttl_from_when_it_could_be_seen() {
    let (_folder, path) = file();
    let store = store(&path).await;
    let cache = register(&store).await;
    store.insert(&session(1, Some("ada")), NOW).await.unwrap();
    // Typed an hour ago, and committed now: meanwhile caches were filled with what was before.
    let typed = "BEGIN; DELETE FROM sessions; \
         UPDATE session_log SET logged_at = logged_at - 3600000; COMMIT";
    shell(&path, typed);
    // Now, four minutes later, and when the five of the cache are over.
    for (minutes, left) in [(0, 1), (0, 1), (4, 1), (2, 0)] {
        shell(&path, &format!("UPDATE session_log SET seen_at = seen_at - {minutes} * 60000"));
        store.sweep(&NOTHING, 10).await.unwrap();
        assert_eq!(store.drain(&cache, 10).await.unwrap().entries.len(), left, "{minutes}");
    }
}

#[tokio::test]
async fn tables_of_before_the_first_release_are_refused() {
    let (_folder, path) = file();
    let _open = store(&path).await;
    shell(&path, "DROP INDEX session_log_by_sight; ALTER TABLE session_log DROP COLUMN seen_at");
    for access in [Access::Migrate, Access::ReadWrite] {
        let mut config = SqliteConfig::new(&path);
        config.access = access;
        let refused = SqliteStore::open(&config).unwrap_err();
        let is_named = matches!(refused.kind(), ErrorKind::SchemaMismatch { what }
            if what.contains("seen_at"));
        assert!(is_named, "{refused}");
    }
}
