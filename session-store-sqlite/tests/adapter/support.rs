//! What the tests of this crate share: a file, a session, and the system's own shell.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use session_store_core::{
    CacheName, CacheRegistration, CacheScope, CredentialEpoch, Json, Metadata, NewSession,
    PrimaryStore, SecretHash, Session, SessionId, Timestamp, Ttl, User, UserId,
};
use session_store_sqlite::{SqliteConfig, SqliteStore};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
pub(crate) const HOUR: Duration = Duration::from_hours(1);

pub(crate) fn file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    (folder, path)
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub(crate) fn id(number: u16) -> SessionId {
    let mut bytes = [0; 16];
    bytes[14..].copy_from_slice(&number.to_be_bytes());
    SessionId::from_bytes(bytes)
}

/// A session that lasts an hour from `NOW`.
pub(crate) fn session(number: u16, owner: Option<&str>) -> NewSession {
    let session = Session {
        id: id(number),
        user_id: owner.map(user),
        secret_hash: SecretHash::from_bytes([7; 32]),
        previous: None,
        created_at: NOW,
        authenticated_at: None,
        last_seen_at: NOW,
        expires_at: NOW.plus(HOUR),
        absolute_expires_at: None,
        idle_timeout: Ttl::new(HOUR).unwrap(),
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

/// A store in which `ada` is registered.
pub(crate) async fn store(path: &Path) -> SqliteStore {
    let store = SqliteStore::open(&SqliteConfig::new(path)).unwrap();
    store.insert_user(&User::new(user("ada"), NOW), NOW).await.unwrap();
    store
}

/// Why the database can't be opened.
pub(crate) fn refusal(config: &SqliteConfig) -> String {
    SqliteStore::open(config).unwrap_err().to_string()
}

pub(crate) async fn register(store: &SqliteStore) -> CacheName {
    let name = CacheName::main();
    let ttl = Ttl::new(Duration::from_mins(5)).unwrap();
    let cache = CacheRegistration { name: name.clone(), scope: CacheScope::Shared, ttl };
    store.register(&cache).await.unwrap();
    name
}

/// Drains and acknowledges everything; the sessions named, each once, in order.
pub(crate) async fn drain(store: &SqliteStore, name: &CacheName) -> Vec<SessionId> {
    let drained = store.drain(name, 1000).await.unwrap();
    let entries: Vec<_> = drained.entries.iter().map(|entry| entry.id).collect();
    store.acknowledge(name, &entries).await.unwrap();
    let mut named: Vec<_> = drained.entries.into_iter().flat_map(|entry| entry.sessions).collect();
    named.sort();
    named.dedup();
    named
}

/// Runs SQL in the system's own shell, whose foreign keys are off.
pub(crate) fn shell(path: &Path, sql: &str) {
    let mut shell = Command::new("sqlite3");
    shell.arg("-bail").arg(path).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = shell.spawn().expect("the sqlite3 shell is missing: apt-get install sqlite3");
    child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
