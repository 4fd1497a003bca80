//! Users in a table of the application: its collations, its constraints, its documents.

use rusqlite::Connection;
use session_store_core::{
    CredentialEpoch, ErrorKind, Page, PrimaryStore, Reason, Selection, SessionId, UserChange, Which,
};
use session_store_sqlite::{ExistingUsers, IdType, SqliteConfig, SqliteStore, Users};

use crate::support::{NOW, file, id, session, shell, user};

/// A store over the table `people`, which `sql` makes, with the key `nr` and the columns `may`,
/// `mail` and `facts`.
fn open(path: &std::path::Path, id_type: IdType, sql: &str) -> SqliteStore {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
    let mut people = ExistingUsers::new("people", "nr", id_type);
    people.role_column = Some("may".to_owned());
    people.email_column = Some("mail".to_owned());
    people.claims_column = Some("facts".to_owned());
    people.triggers = true;
    let mut config = SqliteConfig::new(path);
    config.users = Users::Existing(people);
    config.project_email = true;
    SqliteStore::open(&config).unwrap()
}

const BY_NUMBER: &str = "CREATE TABLE people \
    (nr INTEGER PRIMARY KEY, may TEXT, mail TEXT, facts TEXT, name TEXT NOT NULL); \
    INSERT INTO people VALUES (7, 'read', 'Ada@Example.org', '{\"a\":1}', 'Ada');";

#[tokio::test]
async fn what_is_mapped_is_found_and_projected() {
    let (_folder, path) = file();
    let store = open(&path, IdType::Integer, BY_NUMBER);
    let found = store.find_user(&user("7")).await.unwrap().unwrap();
    let again = store.find_user_by_email("ada@example.org").await.unwrap().unwrap();
    assert_eq!(found, again);
    assert_eq!((found.user.role.as_str(), found.user.claims.as_str()), ("read", "{\"a\":1}"));
    store.insert(&session(1, Some("7")), NOW).await.unwrap();
    let projected = store.find(&id(1)).await.unwrap().snapshot.unwrap().user.unwrap();
    assert_eq!(projected.email.unwrap().as_str(), "Ada@Example.org");
    assert_eq!(store.count_users().await.unwrap(), 1);
    // Letters beyond ASCII, and addresses that only their case tells apart.
    let more = "INSERT INTO people VALUES (8, 'read', 'Éva@Example.org', '{}', 'Éva'), \
                (9, 'read', 'ADA@example.org', '{}', 'Other');";
    Connection::open(&path).unwrap().execute_batch(more).unwrap();
    let found = store.find_user_by_email("éva@example.org").await.unwrap();
    assert_eq!(found.map(|account| account.user.id), Some(user("8")));
    let twins = store.find_user_by_email("ada@example.org").await.unwrap_err();
    assert!(matches!(twins.kind(), ErrorKind::SchemaMismatch { .. }), "{twins}");
    for strange in ["07", "+7", "7 ", "ada", "99999999999999999999"] {
        let strange = user(strange);
        assert_eq!(store.find_user(&strange).await.unwrap(), None, "{strange}");
        let listed = store.list(&strange, Which::All, &Page::first(9)).await.unwrap();
        assert_eq!(listed.items, []);
    }
}

#[tokio::test]
async fn what_is_the_applications_business_is_refused_before_any_effect() {
    let (_folder, path) = file();
    let store = open(&path, IdType::Integer, BY_NUMBER);
    let error = store.update_user(&user("7"), 1, &UserChange::default()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unsupported { .. }));
    let error = store.list_users(&Page::first(9)).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unsupported { .. }));
}

#[tokio::test]
async fn a_column_that_compares_without_case_makes_no_second_epoch() {
    let (_folder, path) = file();
    let sql = "CREATE TABLE people (nr TEXT COLLATE NOCASE PRIMARY KEY, may, mail, facts); \
               INSERT INTO people (nr) VALUES ('ada');";
    let store = open(&path, IdType::Text, sql);
    store.insert(&session(1, Some("ada")), NOW).await.unwrap();
    let all = Selection::AllOf(user("ada"));
    let ended = store.revoke(&all, Reason::LogoutEverywhere, NOW).await.unwrap();
    assert_eq!(ended.revoked, [id(1)]);
    let stale = store.insert(&session(2, Some("ada")), NOW).await.unwrap_err();
    assert_eq!(stale.kind(), &ErrorKind::StaleCredentials);
    let other = store.insert(&session(2, Some("ADA")), NOW).await.unwrap_err();
    assert_eq!(other.kind(), &ErrorKind::UnknownUser);
    assert_eq!(store.find_user(&user("ADA")).await.unwrap(), None);
    assert_eq!(store.delete_user(&user("ADA"), NOW).await.unwrap(), None);
}

#[tokio::test]
async fn a_document_nobody_checked_is_corrupt_and_not_passed_on() {
    let (_folder, path) = file();
    let store = open(&path, IdType::Integer, BY_NUMBER);
    store.insert(&session(1, Some("7")), NOW).await.unwrap();
    shell(&path, "UPDATE people SET facts = '{oops'");
    let error = store.find(&id(1)).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Corrupt);
    let error = store.find_user(&user("7")).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Corrupt);
    let ended = store.delete_user(&user("7"), NOW).await.unwrap().unwrap();
    assert_eq!(ended.sessions, [id(1)]);
}

#[tokio::test]
async fn a_user_whom_other_tables_need_stays_with_every_session() {
    let (_folder, path) = file();
    let sql = format!(
        "{BY_NUMBER} CREATE TABLE orders (by INTEGER REFERENCES people (nr)); \
         INSERT INTO orders VALUES (7);"
    );
    let store = open(&path, IdType::Integer, &sql);
    store.insert(&session(1, Some("7")), NOW).await.unwrap();
    let error = store.delete_user(&user("7"), NOW).await.unwrap_err();
    assert!(error.to_string().contains("other tables"), "{error}");
    assert!(store.find(&id(1)).await.unwrap().snapshot.is_some());
    let account = store.find_user(&user("7")).await.unwrap().unwrap();
    assert_eq!(account.credential_epoch, CredentialEpoch(0), "nothing of it has happened");
}

#[tokio::test]
async fn uuids_have_one_spelling() {
    let (_folder, path) = file();
    let uuid = "0192f5a0-0000-7000-8000-000000000001";
    let sql = format!(
        "CREATE TABLE people (nr TEXT PRIMARY KEY, may, mail, facts); \
         INSERT INTO people (nr) VALUES ('{uuid}');"
    );
    let store = open(&path, IdType::Uuid, &sql);
    store.insert(&session(1, Some(uuid)), NOW).await.unwrap();
    let owner = store.find(&id(1)).await.unwrap().snapshot.unwrap().session.user_id;
    assert_eq!(owner, Some(user(uuid)));
    for strange in [uuid.to_uppercase(), uuid.replace('-', ""), format!("{{{uuid}}}")] {
        let error = store.insert(&session(2, Some(&strange)), NOW).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::UnknownUser, "{strange}");
    }
    assert_eq!(store.find(&SessionId::from_bytes([9; 16])).await.unwrap().snapshot, None);
}
