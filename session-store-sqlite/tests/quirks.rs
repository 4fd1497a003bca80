//! What only SQLite has: files, shells, query plans, an application's own users.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use session_store_core::{
    CacheName, CacheRegistration, CacheScope, CredentialEpoch, ErrorKind, Json, Metadata,
    NewSession, PrimaryStore, SecretHash, Session, SessionId, Timestamp, Ttl, User, UserId,
};
use session_store_sqlite::{Access, ExistingUsers, IdType, SqliteConfig, SqliteStore, Users};
use std::time::Duration;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    (folder, path)
}

fn session(user: &str) -> NewSession {
    let session = Session {
        id: SessionId::from_bytes([1; 16]),
        user_id: Some(UserId::new(user).unwrap()),
        secret_hash: SecretHash::from_bytes([7; 32]),
        previous: None,
        created_at: NOW,
        authenticated_at: None,
        last_seen_at: NOW,
        expires_at: NOW.plus(Duration::from_hours(1)),
        absolute_expires_at: None,
        idle_timeout: Ttl::new(Duration::from_hours(1)).unwrap(),
        rotated_at: NOW,
        metadata: Metadata::default(),
        remember: false,
        aal: None,
        amr: vec![],
        external_sid: None,
        data: Json::default(),
        version: 1,
        credential_epoch: CredentialEpoch(0),
        revoked: None,
    };
    NewSession { session, limit: None }
}

fn refusal(config: &SqliteConfig) -> String {
    SqliteStore::open(config).unwrap_err().to_string()
}

#[test]
fn what_can_not_be_opened_says_why() {
    let (folder, path) = folder();
    let memory = refusal(&SqliteConfig::new(":memory:"));
    assert!(memory.contains("a file is needed"), "{memory}");
    let nowhere = refusal(&SqliteConfig::new(folder.path().join("no/such/folder.db")));
    assert!(nowhere.contains("can't be opened"), "{nowhere}");
    std::fs::write(&path, "this is no database, whatever its name says ".repeat(50)).unwrap();
    let text = refusal(&SqliteConfig::new(&path));
    assert!(text.contains("not an SQLite database"), "{text}");
    let mut bad = SqliteConfig::new(folder.path().join("prefix.db"));
    bad.table_prefix = "x; DROP TABLE users".to_owned();
    assert!(refusal(&bad).contains("table_prefix"));
}

#[test]
fn a_newer_schema_is_refused() {
    let (_folder, path) = folder();
    drop(SqliteStore::open(&SqliteConfig::new(&path)).unwrap());
    let shell = Connection::open(&path).unwrap();
    shell.execute("UPDATE session_schema SET version = 99", []).unwrap();
    let newer = refusal(&SqliteConfig::new(&path));
    assert!(newer.contains("version 99"), "{newer}");
}

#[test]
fn a_missing_schema_is_refused_unless_migration_is_allowed() {
    let (_folder, path) = folder();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE other (id)").unwrap();
    let mut config = SqliteConfig::new(&path);
    config.access = Access::ReadWrite;
    assert!(refusal(&config).contains("Access::Migrate"));
    config.access = Access::ReadOnly;
    assert!(refusal(&config).contains("no schema"));
}

#[tokio::test]
async fn a_read_only_handle_reads_and_refuses_to_write() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&SqliteConfig::new(&path)).unwrap();
    store.insert_user(&User::new(UserId::new("ada").unwrap(), NOW), NOW).await.unwrap();
    let mut config = SqliteConfig::new(&path);
    config.access = Access::ReadOnly;
    let reader = SqliteStore::open(&config).unwrap();
    assert_eq!(reader.count_users().await.unwrap(), 1);
    let error = reader.insert(&session("ada"), NOW).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unsupported { .. }), "{error}");
}

#[tokio::test]
async fn an_application_may_keep_its_own_users() {
    let types = [
        (IdType::Text, "TEXT", "'ada'", "ada", "bob"),
        (IdType::Integer, "INTEGER", "7", "7", "07"),
        (
            IdType::Uuid,
            "TEXT",
            "'0192f5a0-0000-7000-8000-000000000001'",
            "0192f5a0-0000-7000-8000-000000000001",
            "0192F5A0-0000-7000-8000-000000000001",
        ),
    ];
    for (id_type, column, literal, known, unknown) in types {
        let (_folder, path) = folder();
        let sql = format!(
            "CREATE TABLE \"my accounts\" (\"key\" {column} PRIMARY KEY, rights TEXT);\
             INSERT INTO \"my accounts\" VALUES ({literal}, 'admin');"
        );
        let shell = Connection::open(&path).unwrap();
        shell.execute_batch(&sql).unwrap();
        let mut users = ExistingUsers::new("my accounts", "key", id_type);
        users.role_column = Some("rights".to_owned());
        users.triggers = true;
        let mut config = SqliteConfig::new(&path);
        config.users = Users::Existing(users);
        let store = SqliteStore::open(&config).unwrap();
        store.insert(&session(known), NOW).await.unwrap();
        let found = store.find(&SessionId::from_bytes([1; 16])).await.unwrap().snapshot.unwrap();
        assert_eq!(found.user.unwrap().role.as_str(), "admin");
        let mut other = session(unknown);
        other.session.id = SessionId::from_bytes([2; 16]);
        let error = store.insert(&other, NOW).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::UnknownUser);
        let user = User::new(UserId::new("new").unwrap(), NOW);
        let error = store.insert_user(&user, NOW).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unsupported { .. }));
        shell.execute_batch("DELETE FROM \"my accounts\"").unwrap();
        assert_eq!(store.find(&SessionId::from_bytes([1; 16])).await.unwrap().snapshot, None);
    }
}

#[test]
fn a_users_table_that_is_not_there_is_named() {
    let (_folder, path) = folder();
    let mut config = SqliteConfig::new(&path);
    config.users = Users::Existing(ExistingUsers::new("accounts", "id", IdType::Text));
    let error = refusal(&config);
    assert!(error.contains("\"accounts\" does not exist"), "{error}");
}

/// Runs a statement in the system's own shell, whose foreign keys are off.
fn shell(path: &Path, sql: &str) {
    let output = std::process::Command::new("sqlite3").arg(path).arg(sql).output();
    let output = output.expect("the sqlite3 shell is missing: apt-get install sqlite3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn the_sqlite3_shell_reaches_the_log() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&SqliteConfig::new(&path)).unwrap();
    store.insert_user(&User::new(UserId::new("ada").unwrap(), NOW), NOW).await.unwrap();
    store.insert(&session("ada"), NOW).await.unwrap();
    let name = CacheName::main();
    let ttl = Ttl::new(Duration::from_mins(5)).unwrap();
    let cache = CacheRegistration { name: name.clone(), scope: CacheScope::Shared, ttl };
    store.register(&cache).await.unwrap();
    shell(&path, "UPDATE users SET role = 'admin' WHERE id = 'ada'");
    let drained = store.drain(&name, 10).await.unwrap().entries;
    assert_eq!(drained[0].sessions, [SessionId::from_bytes([1; 16])]);
    store.acknowledge(&name, &[drained[0].id]).await.unwrap();
    shell(&path, "DELETE FROM users");
    let drained = store.drain(&name, 10).await.unwrap().entries;
    assert_eq!(drained[0].sessions, [SessionId::from_bytes([1; 16])]);
    assert_eq!(store.find(&SessionId::from_bytes([1; 16])).await.unwrap().snapshot, None);
}

#[tokio::test]
async fn one_bad_operation_of_a_group_fails_alone() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&SqliteConfig::new(&path)).unwrap();
    store.insert_user(&User::new(UserId::new("ada").unwrap(), NOW), NOW).await.unwrap();
    // All are queued before the writer looks, and every third one is taken or has no user.
    let news: Vec<_> = (0..60u8)
        .map(|number| {
            let mut new = session(if number % 3 == 2 { "nobody" } else { "ada" });
            new.session.id = SessionId::from_bytes([number - u8::from(number % 3 == 1); 16]);
            new
        })
        .collect();
    let inserts = news.iter().map(|new| store.insert(new, NOW));
    let results = futures_util::future::join_all(inserts).await;
    for (number, result) in results.iter().enumerate() {
        let kind = result.as_ref().err().map(session_store_core::Error::kind);
        match number % 3 {
            0 => assert_eq!(kind, None),
            1 => assert_eq!(kind, Some(&ErrorKind::Conflict)),
            _ => assert_eq!(kind, Some(&ErrorKind::UnknownUser)),
        }
    }
    assert_eq!(store.census(NOW, None).await.unwrap().active, 20);
}

#[test]
fn queries_use_their_indexes() {
    let (_folder, path) = folder();
    drop(SqliteStore::open(&SqliteConfig::new(&path)).unwrap());
    let connection = Connection::open(&path).unwrap();
    let plans = [
        ("SELECT * FROM sessions WHERE id = x'01'", "PRIMARY KEY"),
        (
            "SELECT * FROM sessions WHERE user_id = 'a' AND (created_at, id) > (1, x'') \
             ORDER BY created_at, id LIMIT 9",
            "sessions_by_user",
        ),
        (
            "SELECT id FROM sessions WHERE expires_at <= 5 ORDER BY expires_at, id LIMIT 9",
            "sessions_by_deadline",
        ),
        (
            "SELECT id FROM sessions WHERE revoked_at <= 5 ORDER BY revoked_at, id LIMIT 9",
            "sessions_by_revocation",
        ),
        ("SELECT * FROM sessions WHERE external_sid = 'x'", "sessions_by_sid"),
    ];
    for (sql, index) in plans {
        let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let rows: Vec<String> =
            explain.query_map([], |row| row.get(3)).unwrap().map(Result::unwrap).collect();
        let plan = rows.join("; ");
        assert!(plan.contains(index) && !plan.contains("SCAN"), "{sql}: {plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{sql}: {plan}");
    }
}
