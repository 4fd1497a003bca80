//! What a process that dies, or several that start at once, leave behind.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use session_store_core::{
    CredentialEpoch, Json, Metadata, NewSession, PrimaryStore, SecretHash, Session, SessionId,
    Timestamp, Ttl, User, UserId,
};
use session_store_sqlite::{SqliteConfig, SqliteStore};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn session(number: u16) -> Session {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&number.to_be_bytes());
    Session {
        id: SessionId::from_bytes(id),
        user_id: Some(UserId::new("ada").unwrap()),
        secret_hash: SecretHash::from_bytes([7; 32]),
        previous: None,
        created_at: NOW,
        authenticated_at: Some(NOW),
        last_seen_at: NOW,
        expires_at: NOW.plus(Duration::from_hours(1)),
        absolute_expires_at: None,
        idle_timeout: Ttl::new(Duration::from_hours(1)).unwrap(),
        rotated_at: NOW,
        metadata: Metadata { device: Some(format!("device {number}")), ..Metadata::default() },
        remember: false,
        aal: None,
        amr: vec!["pwd".to_owned()],
        external_sid: None,
        data: Json::of(&number).unwrap(),
        version: 1,
        credential_epoch: CredentialEpoch(0),
        revoked: None,
    }
}

/// This test binary again, where the test of that name is the child of itself.
fn child(name: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("SESSION_STORE_CHILD", path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn child_path() -> Option<std::path::PathBuf> {
    std::env::var_os("SESSION_STORE_CHILD").map(Into::into)
}

/// The child: creates sessions and prints each one that was acknowledged. It comes to no end: when its
/// parent is late, it waits until there is room in the pipe.
async fn create_until_killed(path: std::path::PathBuf) {
    let store = SqliteStore::open(&SqliteConfig::new(path)).unwrap();
    for number in 1..=u16::MAX {
        let new = NewSession { session: session(number), limit: None };
        store.insert(&new, NOW).await.unwrap();
        report(number);
    }
}

#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn report(number: u16) {
    println!("acknowledged {number}");
}

/// The child: opens the database, which brings the schema up to date.
async fn start(path: std::path::PathBuf) {
    let store = SqliteStore::open(&SqliteConfig::new(path)).unwrap();
    assert_eq!(store.count_users().await.unwrap(), 0);
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    if let Some(path) = child_path() {
        return create_until_killed(path).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    {
        let store = SqliteStore::open(&SqliteConfig::new(&path)).unwrap();
        let ada = User::new(UserId::new("ada").unwrap(), NOW);
        store.insert_user(&ada, NOW).await.unwrap();
    }
    let mut victim = child("what_was_acknowledged_survives_a_kill", &path);
    let mut acknowledged = Vec::new();
    for line in BufReader::new(victim.stdout.take().unwrap()).lines() {
        // With one thread for tests, what runs them has begun the first line.
        if let Some((_, number)) = line.unwrap().split_once("acknowledged ") {
            acknowledged.push(number.parse::<u16>().unwrap());
        }
        if acknowledged.len() == 500 {
            // SIGKILL on Unix; what is still in the pipe was acknowledged too.
            victim.kill().unwrap();
        }
    }
    let ended = victim.wait().unwrap();
    assert!(acknowledged.len() >= 500, "{ended}: {}", acknowledged.len());
    let last = *acknowledged.last().unwrap();
    assert!(last < u16::MAX, "the child was not killed in the middle");
    let store = SqliteStore::open(&SqliteConfig::new(&path)).unwrap();
    // It was at the next one when it was killed.
    for number in 1..=last + 1 {
        let found = store.find(&session(number).id).await.unwrap().snapshot;
        let whole = found.as_ref().map(|found| found.session == session(number));
        assert_ne!(whole, Some(false), "session {number} is half there");
        assert!(whole.is_some() || !acknowledged.contains(&number), "session {number} is lost");
    }
}

#[tokio::test]
async fn eight_processes_may_start_at_once() {
    if let Some(path) = child_path() {
        return start(path).await;
    }
    for _ in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions.db");
        let children: Vec<_> =
            (0..8).map(|_| child("eight_processes_may_start_at_once", &path)).collect();
        for one in children {
            let output = one.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
    }
}
