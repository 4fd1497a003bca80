//! SQL typed by hand into the system's shell, with foreign keys off, reaches the caches.

use crate::support::{HOUR, NOW, drain, file, id, register, session, shell, store, user};
use session_store_core::{Edit, PasswordHash, PrimaryStore, Touch, UserChange};

#[tokio::test]
async fn every_way_to_end_a_session_by_hand_is_logged() {
    for sql in [
        "DELETE FROM users WHERE id = 'ada'",
        "DELETE FROM sessions",
        "UPDATE sessions SET revoked_at = 1, revoked_reason = 'admin'",
        "UPDATE sessions SET version = version + 1",
        "UPDATE sessions SET expires_at = 0",
        "UPDATE sessions SET absolute_expires_at = 0",
        "UPDATE users SET is_verified = 1",
        "UPDATE users SET claims = '{\"banned\":true}'",
        "UPDATE users SET email = 'ada@example.org'",
        "UPDATE users SET id = 'eve'",
    ] {
        let (_folder, path) = file();
        let store = store(&path).await;
        let cache = register(&store).await;
        store.insert(&session(1, Some("ada")), NOW).await.unwrap();
        assert_eq!(drain(&store, &cache).await, [], "a login is no news to a cache");
        shell(&path, sql);
        assert_eq!(drain(&store, &cache).await, [id(1)], "{sql}");
    }
}

/// What is typed, and whether a cache may hold what was before.
const TYPED: &[(&str, bool)] = &[
    ("secret_hash = zeroblob(32)", true),
    ("previous_hash = zeroblob(32)", true),
    ("previous_hash = NULL", true),
    ("previous_until = 5", true),
    ("created_at = 5", true),
    ("authenticated_at = 5", true),
    ("last_seen_at = last_seen_at + 5", false),
    ("last_seen_at = 5", false),
    ("expires_at = expires_at + 5", false),
    ("expires_at = expires_at - 5", true),
    ("absolute_expires_at = 9000000000000", true),
    ("idle_timeout = 5", true),
    ("rotated_at = 5", true),
    ("ip = '192.0.2.7'", true),
    ("user_agent = 'x'", true),
    ("device = 'x'", true),
    ("remember = NOT remember", true),
    ("aal = 1", true),
    ("amr = '[\"pwd\"]'", true),
    ("external_sid = 'x'", true),
    ("data = '{\"a\":1}'", true),
    ("version = version + 1", true),
    ("credential_epoch = 7", true),
    ("user_id = NULL", true),
    ("revoked_at = 5", true),
    ("revoked_reason = 'admin'", true),
    ("id = zeroblob(16)", true),
];

#[tokio::test]
async fn every_column_typed_by_hand_is_logged_unless_a_touch_moves_it() {
    let (_folder, path) = file();
    let store = store(&path).await;
    let cache = register(&store).await;
    store.insert(&session(1, Some("ada")), NOW).await.unwrap();
    for (sql, is_logged) in TYPED {
        shell(&path, &format!("UPDATE sessions SET {sql}"));
        let wanted = if *is_logged { vec![id(1)] } else { vec![] };
        assert_eq!(drain(&store, &cache).await, wanted, "{sql}");
    }
}

#[tokio::test]
async fn what_no_cache_holds_is_not_logged() {
    let (_folder, path) = file();
    let store = store(&path).await;
    let cache = register(&store).await;
    store.insert(&session(1, Some("ada")), NOW).await.unwrap();
    let seen_at = NOW.plus(HOUR / 2);
    let touch = Touch { id: id(1), seen_at, expires_at: seen_at.plus(HOUR) };
    store.touch(&[touch]).await.unwrap();
    let password_hash = Edit::Set(PasswordHash::new("$argon2id$other").unwrap());
    let change = UserChange { password_hash, ..UserChange::default() };
    store.update_user(&user("ada"), 1, &change).await.unwrap();
    shell(&path, "UPDATE users SET last_login_at = 5, role = role");
    assert!(store.drain(&cache, 9).await.unwrap().entries.is_empty());
}
