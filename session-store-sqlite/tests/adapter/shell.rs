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
