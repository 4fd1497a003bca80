//! An application's own table of users.

use session_store_core::{
    CacheName, CacheRegistration, CacheScope, ErrorKind, PrimaryStore, SessionId, Ttl,
};
use session_store_postgres::{
    ExistingUsers, IdType, PostgresConfig, PostgresHarness, PostgresStore, Users,
};

use crate::fixture::{HOUR, NOW, server, session, user};

/// The types of a key, a key, and what is none.
const KEYS: [(IdType, &str, &str, &str); 3] = [
    (IdType::Text, "text", "ada", "bob"),
    (IdType::Uuid, "uuid", "6f1c3a52-0d5c-4b4e-9a7e-2f3f6f0f9b11", "no-uuid"),
    (IdType::Integer, "bigint", "7", "007"),
];

/// A table with one user in it, who may read.
async fn people(
    on: &PostgresHarness,
    namespace: &str,
    (id_type, sql_type, key): (IdType, &str, &str),
) -> PostgresConfig {
    let mut config = on.fresh(namespace).await.unwrap();
    let schema = on.schema(namespace);
    on.run(format!(
        "CREATE TABLE {schema}.\"The People\" \
         (nr {sql_type} PRIMARY KEY, may text, facts jsonb, mail text, note text); \
         INSERT INTO {schema}.\"The People\" VALUES ('{key}', 'read', '{{\"a\": 1}}')"
    ))
    .await
    .unwrap();
    let mut people = ExistingUsers::new("The People", "nr", id_type);
    people.role_column = Some("may".to_owned());
    people.claims_column = Some("facts".to_owned());
    people.triggers = true;
    config.users = Users::Existing(people);
    config
}

#[tokio::test]
async fn an_applications_own_users_have_keys_of_three_types() {
    for (id_type, sql_type, key, stranger) in KEYS {
        let namespace = format!("own_{sql_type}");
        let on = server();
        let config = people(&on, &namespace, (id_type, sql_type, key)).await;
        let store = PostgresStore::connect(&config).await.unwrap();
        let found = store.find_user(&user(key)).await.unwrap().unwrap();
        assert_eq!((found.user.role.as_str(), found.user.claims.as_str()), ("read", "{\"a\": 1}"));
        assert_eq!(store.find_user(&user(stranger)).await.unwrap(), None);
        store.insert(&session(1, Some(key)), NOW).await.unwrap();
        let refused = store.insert(&session(2, Some(stranger)), NOW).await.unwrap_err();
        assert_eq!(refused.kind(), &ErrorKind::UnknownUser);
        let done = store.delete_user(&user(key), NOW).await.unwrap().unwrap();
        assert_eq!(done.sessions, [session(1, None).session.id]);
    }
}

/// Drains and acknowledges everything; the sessions named.
async fn drain(store: &PostgresStore, name: &CacheName) -> Vec<SessionId> {
    let drained = store.drain(name, 1000).await.unwrap();
    let entries: Vec<_> = drained.entries.iter().map(|entry| entry.id).collect();
    store.acknowledge(name, &entries).await.unwrap();
    drained.entries.into_iter().flat_map(|entry| entry.sessions).collect()
}

#[tokio::test]
async fn what_is_typed_about_an_applications_own_users_reaches_the_caches() {
    for (id_type, sql_type, key, _) in KEYS {
        let on = server();
        let namespace = format!("typed_{sql_type}");
        let mut config = people(&on, &namespace, (id_type, sql_type, key)).await;
        if let Users::Existing(people) = &mut config.users {
            people.email_column = Some("mail".to_owned());
        }
        let store = PostgresStore::connect(&config).await.unwrap();
        let cache = CacheRegistration {
            name: CacheName::main(),
            scope: CacheScope::Shared,
            ttl: Ttl::new(HOUR).unwrap(),
        };
        store.register(&cache).await.unwrap();
        let mine = session(1, Some(key));
        store.insert(&mine, NOW).await.unwrap();
        let table = format!("{}.\"The People\"", on.schema(&namespace));
        for (typed, is_logged) in [
            (format!("UPDATE {table} SET may = 'write' WHERE nr = '{key}'"), true),
            (format!("UPDATE {table} SET facts = '{{\"a\": 2}}'"), true),
            (format!("UPDATE {table} SET mail = 'ada@example.org'"), true),
            (format!("UPDATE {table} SET note = 'not mapped'"), false),
            (format!("UPDATE {table} SET may = may, facts = facts"), false),
            (format!("DELETE FROM {table} WHERE nr = '{key}'"), true),
        ] {
            on.run(typed.clone()).await.unwrap();
            let wanted = if is_logged { vec![mine.session.id] } else { vec![] };
            assert_eq!(drain(&store, &cache.name).await, wanted, "{typed}");
        }
        assert_eq!(store.find(&mine.session.id).await.unwrap().snapshot, None);
    }
}

#[tokio::test]
async fn an_applications_own_users_are_found_by_an_address_that_one_of_them_has() {
    let on = server();
    let mut config = people(&on, "mail", (IdType::Integer, "bigint", "7")).await;
    let store = PostgresStore::connect(&config).await.unwrap();
    let refused = store.find_user_by_email("ada@example.org").await.unwrap_err();
    let is_named = matches!(refused.kind(), ErrorKind::Unsupported { what }
        if what.contains("email_column"));
    assert!(is_named, "{refused}");
    if let Users::Existing(people) = &mut config.users {
        people.email_column = Some("mail".to_owned());
    }
    config.project_email = true;
    let store = PostgresStore::connect(&config).await.unwrap();
    let table = format!("{}.\"The People\"", on.schema("mail"));
    on.run(format!(
        "UPDATE {table} SET mail = 'Ada@Example.ORG'; INSERT INTO {table} (nr, mail) VALUES \
         (8, 'bob@example.org'), (9, NULL), (10, NULL)"
    ))
    .await
    .unwrap();
    let found = store.find_user_by_email("ada@example.org").await.unwrap().unwrap();
    assert_eq!(found.user.id, user("7"));
    assert_eq!(found.user.email.unwrap().as_str(), "Ada@Example.ORG");
    assert_eq!(store.find_user_by_email("eve@example.org").await.unwrap(), None);
    store.insert(&session(1, Some("7")), NOW).await.unwrap();
    let live = store.find(&session(1, None).session.id).await.unwrap().snapshot.unwrap();
    assert_eq!(live.user.unwrap().email.unwrap().normalized(), "ada@example.org");
    // Nobody may get into another one's account because of its spelling.
    on.run(format!("INSERT INTO {table} (nr, mail) VALUES (11, 'ADA@example.org')")).await.unwrap();
    let refused = store.find_user_by_email("ada@example.org").await.unwrap_err();
    let is_named = matches!(refused.kind(), ErrorKind::SchemaMismatch { what }
        if what.contains("email_column"));
    assert!(is_named, "{refused}");
    let other = store.find_user_by_email("bob@example.org").await.unwrap().unwrap();
    assert_eq!(other.user.id, user("8"));
}
