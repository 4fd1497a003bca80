//! Who waits for whom: each race that the locks are for, with the other side held where it hurts.

use std::time::Duration;

use session_store_core::{
    CacheName, CacheRegistration, CacheScope, CredentialEpoch, Edit, ErrorKind, PasswordHash,
    PrimaryStore, Promotion, Reason, Selection, SessionChange, Ttl, User, UserChange, UserUpdate,
};
use session_store_postgres::PostgresHarness;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

use crate::fixture::{HOUR, NOW, address, server, session, store, user};

/// A transaction of somebody else, held open until it is told what to do.
pub(crate) async fn shell(on: &PostgresHarness, namespace: &str) -> sqlx::PgConnection {
    let mut shell = sqlx::PgConnection::connect(&address()).await.unwrap();
    let path = format!("SET search_path TO {}; BEGIN", on.schema(namespace));
    shell.execute(sqlx::raw_sql(AssertSqlSafe(path))).await.unwrap();
    shell
}

pub(crate) async fn say(shell: &mut sqlx::PgConnection, sql: &str) {
    shell.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
}

/// Waits until somebody waits for a lock that `shell` holds.
pub(crate) async fn is_waited_for(shell: &mut sqlx::PgConnection) {
    let row = sqlx::query("SELECT pg_backend_pid()").fetch_one(shell).await.unwrap();
    let holder: i32 = row.get(0);
    let mut other = sqlx::PgConnection::connect(&address()).await.unwrap();
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))";
    for _ in 0..2000 {
        let row = sqlx::query(sql).bind(holder).fetch_one(&mut other).await.unwrap();
        if row.get::<i64, _>(0) > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("nobody waits for the lock");
}

#[tokio::test]
async fn nobody_registers_past_a_deletion_that_is_under_way() {
    let on = server();
    let store = store(&on, "past").await;
    store.insert_user(&User::new(user("eve"), NOW), NOW).await.unwrap();
    // Never logged in, and another node deletes her: the commit is still to come.
    let mut other = shell(&on, "past").await;
    let until = NOW.plus(HOUR).as_millis();
    say(
        &mut other,
        &format!(
            "INSERT INTO session_users AS k (user_id, credential_epoch, deleted_until) \
             VALUES ('eve', 1, {until}) ON CONFLICT (user_id) DO UPDATE SET \
             deleted_until = {until}; DELETE FROM users WHERE id = 'eve'"
        ),
    )
    .await;
    let again = tokio::spawn({
        let store = store.clone();
        async move { store.insert_user(&User::new(user("eve"), NOW), NOW).await }
    });
    is_waited_for(&mut other).await;
    say(&mut other, "COMMIT").await;
    assert_eq!(again.await.unwrap().unwrap_err().kind(), &ErrorKind::UnknownUser);
}

#[tokio::test]
async fn a_password_and_its_epoch_are_of_one_moment() {
    let on = server();
    let store = store(&on, "moment").await;
    let mut ada = User::new(user("ada2"), NOW);
    ada.password_hash = Some(PasswordHash::new("0").unwrap());
    store.insert_user(&ada, NOW).await.unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(2);
    let changing = async {
        let mut version = ada.version;
        for number in 1_u64.. {
            if std::time::Instant::now() > end {
                break;
            }
            let hash = PasswordHash::new(number.to_string()).unwrap();
            let change = UserChange { password_hash: Edit::Set(hash), ..UserChange::default() };
            let updated = store.update_user(&ada.id, version, &change).await.unwrap();
            let UserUpdate::Updated { user, .. } = updated else { panic!("{updated:?}") };
            version = user.version;
        }
    };
    let reading = async {
        while std::time::Instant::now() < end {
            let account = store.find_user(&ada.id).await.unwrap().unwrap();
            let hash = account.user.password_hash.unwrap().expose().to_owned();
            assert_eq!(hash, account.credential_epoch.0.to_string());
        }
    };
    tokio::join!(changing, reading);
}

#[tokio::test]
async fn a_promotion_does_not_slip_past_a_revocation_of_all() {
    let on = server();
    let store = store(&on, "promote").await;
    let guest = session(1, None);
    store.insert(&guest, NOW).await.unwrap();
    let mut other = shell(&on, "promote").await;
    // Another node logs Ada out everywhere; its commit is still to come.
    say(
        &mut other,
        "INSERT INTO session_users AS k (user_id, credential_epoch) VALUES ('ada', 1) \
         ON CONFLICT (user_id) DO UPDATE SET credential_epoch = k.credential_epoch + 1",
    )
    .await;
    let promotion = tokio::spawn({
        let store = store.clone();
        async move {
            let promotion = Promotion {
                user_id: user("ada"),
                credential_epoch: CredentialEpoch(0),
                limit: None,
                remember: false,
                idle_timeout: Ttl::new(HOUR).unwrap(),
                absolute_expires_at: None,
                external_sid: None,
            };
            let change = SessionChange { promotion: Some(promotion), ..SessionChange::default() };
            store.update(&session(1, None).session.id, 1, &change, NOW).await
        }
    });
    is_waited_for(&mut other).await;
    say(&mut other, "COMMIT").await;
    // The password was verified before the revocation.
    assert_eq!(promotion.await.unwrap().unwrap_err().kind(), &ErrorKind::StaleCredentials);
    let found = store.find(&guest.session.id).await.unwrap().snapshot.unwrap();
    assert_eq!(found.session.user_id, None);
}

#[tokio::test]
async fn a_login_waits_for_a_role_typed_by_hand() {
    let on = server();
    let store = store(&on, "role").await;
    let cache = CacheRegistration {
        name: CacheName::new("main").unwrap(),
        scope: CacheScope::Shared,
        ttl: Ttl::new(Duration::from_mins(5)).unwrap(),
    };
    store.register(&cache).await.unwrap();
    let mut other = shell(&on, "role").await;
    say(&mut other, "UPDATE users SET role = 'admin' WHERE id = 'ada'").await;
    let new = session(9, Some("ada"));
    let login = tokio::spawn({
        let (store, new) = (store.clone(), new.clone());
        async move { store.insert(&new, NOW).await }
    });
    is_waited_for(&mut other).await;
    say(&mut other, "COMMIT").await;
    login.await.unwrap().unwrap();
    let found = store.find(&new.session.id).await.unwrap().snapshot.unwrap();
    assert_eq!(found.user.unwrap().role.as_str(), "admin");
    // The entry was written before the session was there, and names it all the same.
    let drained = store.drain(&cache.name, 100).await.unwrap();
    let ids: Vec<_> = drained.entries.iter().flat_map(|entry| entry.sessions.clone()).collect();
    assert!(ids.contains(&new.session.id), "{drained:?}");
}

/// Nobody has a row of Ada's to lock: so it is in an application's own table before the first login.
async fn unknown(on: &PostgresHarness, namespace: &str) {
    let schema = on.schema(namespace);
    on.run(format!("DELETE FROM {schema}.session_users")).await.unwrap();
}

#[tokio::test]
async fn a_first_login_waits_for_a_revocation_of_all() {
    let on = server();
    let store = store(&on, "first_held").await;
    unknown(&on, "first_held").await;
    // Another node logs her out everywhere.
    let mut other = shell(&on, "first_held").await;
    say(
        &mut other,
        "INSERT INTO session_users AS k (user_id, credential_epoch) VALUES ('ada', 1) \
         ON CONFLICT (user_id) DO UPDATE SET credential_epoch = k.credential_epoch + 1",
    )
    .await;
    let login = tokio::spawn({
        let store = store.clone();
        async move { store.insert(&session(1, Some("ada")), NOW).await }
    });
    is_waited_for(&mut other).await;
    say(&mut other, "COMMIT").await;
    assert_eq!(login.await.unwrap().unwrap_err().kind(), &ErrorKind::StaleCredentials);
}

#[tokio::test]
async fn a_revocation_of_all_waits_for_a_first_login() {
    let on = server();
    let store = store(&on, "all_held").await;
    unknown(&on, "all_held").await;
    let mut other = shell(&on, "all_held").await;
    // The login of another node; its commit is still to come.
    say(
        &mut other,
        "INSERT INTO session_users (user_id, credential_epoch) VALUES ('ada', 0); \
         SELECT 1 FROM session_users WHERE user_id = 'ada' FOR NO KEY UPDATE; \
         INSERT INTO sessions (id, user_id, secret_hash, created_at, last_seen_at, expires_at, \
         idle_timeout, rotated_at, remember, amr, data, version, credential_epoch) VALUES \
         (decode(lpad('1', 32, '0'), 'hex'), 'ada', decode(repeat('07', 32), 'hex'), 0, 0, \
          9000000000000, 1000, 0, false, '[]', '{}', 1, 0)",
    )
    .await;
    let ending = tokio::spawn({
        let store = store.clone();
        async move { store.revoke(&Selection::AllOf(user("ada")), Reason::Admin, NOW).await }
    });
    is_waited_for(&mut other).await;
    say(&mut other, "COMMIT").await;
    assert_eq!(ending.await.unwrap().unwrap().revoked, [session(1, None).session.id]);
}

#[tokio::test]
async fn a_login_with_the_old_password_is_refused() {
    let on = server();
    let store = store(&on, "old").await;
    // She has logged in before, so that the row is there.
    store.insert(&session(1, Some("ada")), NOW).await.unwrap();
    let epoch = store.find_user(&user("ada")).await.unwrap().unwrap().credential_epoch;
    let mut other = shell(&on, "old").await;
    say(
        &mut other,
        "UPDATE session_users SET credential_epoch = credential_epoch + 1 WHERE user_id = 'ada'; \
         UPDATE users SET password_hash = 'new', version = version + 1 WHERE id = 'ada'",
    )
    .await;
    // The old password was right when it was looked at.
    let mut new = session(2, Some("ada"));
    new.session.credential_epoch = epoch;
    let login = tokio::spawn({
        let store = store.clone();
        async move { store.insert(&new, NOW).await }
    });
    is_waited_for(&mut other).await;
    say(&mut other, "COMMIT").await;
    assert_eq!(login.await.unwrap().unwrap_err().kind(), &ErrorKind::StaleCredentials);
}

#[tokio::test]
async fn a_step_that_others_have_ended_is_not_the_last_one() {
    let on = server();
    let store = store(&on, "steps").await;
    for number in 1..=4 {
        store.insert(&session(number, Some("ada")), NOW).await.unwrap();
    }
    // Somebody else revokes everybody too, in steps of two, and is at the first one.
    let mut other = shell(&on, "steps").await;
    say(
        &mut other,
        "UPDATE sessions SET revoked_at = 1, revoked_reason = 'admin', version = version + 1 \
         WHERE id IN (SELECT id FROM sessions ORDER BY expires_at, id LIMIT 2)",
    )
    .await;
    let ending = tokio::spawn({
        let store = store.clone();
        let everyone = Selection::Everyone { created_before: NOW, limit: 2 };
        async move { store.revoke(&everyone, Reason::Admin, NOW).await }
    });
    is_waited_for(&mut other).await;
    say(&mut other, "COMMIT").await;
    // A step without any would say that all are done.
    let left = [session(3, None).session.id, session(4, None).session.id];
    assert_eq!(ending.await.unwrap().unwrap().revoked, left);
}
