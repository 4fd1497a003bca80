//! The schema: what opening makes, finds and refuses.

use std::path::Path;

use rusqlite::Connection;
use session_store_core::{LogPromise, PrimaryStore, Reason, Selection};
use session_store_sqlite::{
    Access, ExistingUsers, IdType, InvalidationLog, SqliteConfig, SqliteStore, Users,
};

use crate::support::{NOW, drain, file, id, refusal, register, session, shell, store};

fn existing(path: &Path, table: ExistingUsers) -> SqliteConfig {
    let mut config = SqliteConfig::new(path);
    config.users = Users::Existing(table);
    config
}

#[test]
fn a_table_of_the_application_is_not_taken_for_ours() {
    let (_folder, path) = file();
    let shell = Connection::open(&path).unwrap();
    shell.execute_batch("CREATE TABLE Users (name TEXT); INSERT INTO Users VALUES (1)").unwrap();
    let text = refusal(&SqliteConfig::new(&path));
    assert!(text.contains("\"users\"") && text.contains("table_prefix"), "{text}");
    let mut config = SqliteConfig::new(&path);
    config.table_prefix = "login_".to_owned();
    SqliteStore::open(&config).unwrap();
    shell.execute_batch("DELETE FROM login_session_schema").unwrap();
    assert!(refusal(&config).contains("\"login_session_schema\" is empty"));
}

#[test]
fn a_key_that_nothing_can_refer_to_is_refused_at_once() {
    let (_folder, path) = file();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE people (nr INTEGER)").unwrap();
    let text = refusal(&existing(&path, ExistingUsers::new("people", "nr", IdType::Integer)));
    assert!(text.contains("neither PRIMARY KEY nor UNIQUE"), "{text}");
    let left = Connection::open(&path).unwrap();
    let tables: i64 =
        left.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
    assert_eq!(tables, 1, "a refused migration leaves nothing behind");
}

#[test]
fn sessions_of_one_table_of_users_are_not_read_with_another() {
    let (_folder, path) = file();
    drop(SqliteStore::open(&SqliteConfig::new(&path)).unwrap());
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE people (nr TEXT UNIQUE)").unwrap();
    let text = refusal(&existing(&path, ExistingUsers::new("people", "nr", IdType::Text)));
    assert!(text.contains("do not refer to \"people\""), "{text}");
}

#[tokio::test]
async fn the_printed_schema_runs_in_the_shell() {
    let (_folder, path) = file();
    let mut config = SqliteConfig::new(&path);
    config.table_prefix = "my_".to_owned();
    shell(&path, &SqliteStore::migration_sql(&config).unwrap());
    config.access = Access::ReadWrite;
    let store = SqliteStore::open(&config).unwrap();
    assert_eq!(store.promise().log, LogPromise::Complete);
    let cache = register(&store).await;
    store.insert(&session(1, None), NOW).await.unwrap();
    shell(&path, "DELETE FROM my_sessions");
    assert_eq!(drain(&store, &cache).await, [id(1)]);
}

#[tokio::test]
async fn the_log_is_a_property_of_the_schema() {
    let (_folder, path) = file();
    let mut config = SqliteConfig::new(&path);
    config.log = InvalidationLog::Off;
    let quiet = SqliteStore::open(&config).unwrap();
    assert_eq!(quiet.promise().log, LogPromise::None);
    let cache = register(&quiet).await;
    quiet.insert(&session(1, None), NOW).await.unwrap();
    let ids = Selection::Ids(vec![id(1)]);
    quiet.revoke(&ids, Reason::Logout, NOW).await.unwrap();
    assert_eq!(drain(&quiet, &cache).await, []);
    config.log = InvalidationLog::Kept;
    config.access = Access::ReadWrite;
    assert_eq!(SqliteStore::open(&config).unwrap().promise().log, LogPromise::None);
    let kept = store(&path).await;
    assert_eq!(kept.promise().log, LogPromise::Complete);
    kept.insert(&session(2, Some("ada")), NOW).await.unwrap();
    shell(&path, "DELETE FROM users");
    assert_eq!(drain(&kept, &cache).await, [id(2)]);
}

#[tokio::test]
async fn triggers_on_the_applications_table_may_come_later() {
    let (_folder, path) = file();
    let sql = "CREATE TABLE people (nr INTEGER PRIMARY KEY, may TEXT); \
               INSERT INTO people VALUES (7, 'read')";
    shell(&path, sql);
    let mut people = ExistingUsers::new("people", "nr", IdType::Integer);
    people.role_column = Some("may".to_owned());
    let config = existing(&path, people);
    let before = SqliteStore::open(&config).unwrap();
    assert_eq!(before.promise().log, LogPromise::OwnWrites);
    let cache = register(&before).await;
    before.insert(&session(1, Some("7")), NOW).await.unwrap();
    shell(&path, &SqliteStore::user_triggers_sql(&config).unwrap());
    let store = SqliteStore::open(&config).unwrap();
    assert_eq!(store.promise().log, LogPromise::Complete);
    shell(&path, "UPDATE people SET may = 'write'");
    assert_eq!(drain(&store, &cache).await, [id(1)]);
    shell(&path, "DELETE FROM people");
    assert_eq!(drain(&store, &cache).await, [id(1)]);
}
