//! Handles and threads: they wait for each other, and go away when nobody needs them.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use session_store_core::{ErrorKind, PrimaryStore};
use session_store_sqlite::{SqliteConfig, SqliteStore};

use crate::support::{NOW, file, id, session, store};

fn is_open_here(path: &Path) -> bool {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .any(|file| file.starts_with(path))
}

#[tokio::test]
async fn threads_and_files_are_gone_after_the_last_handle() {
    let (folder, path) = file();
    let store = store(&path).await;
    let other = store.clone();
    drop(store);
    assert_eq!(other.count_users().await.unwrap(), 1);
    assert!(is_open_here(folder.path()));
    drop(other);
    let end = Instant::now() + Duration::from_secs(10);
    while is_open_here(folder.path()) {
        assert!(Instant::now() < end, "a connection is still open");
        std::thread::yield_now();
    }
    // Everything is in the file, whatever became of the log beside it.
    let copy = folder.path().join("copy.db");
    std::fs::copy(&path, &copy).unwrap();
    assert_eq!(
        SqliteStore::open(&SqliteConfig::new(copy)).unwrap().count_users().await.unwrap(),
        1
    );
}

#[tokio::test]
async fn a_caller_that_went_away_stops_no_write() {
    let (_folder, path) = file();
    let store = store(&path).await;
    for number in 1..=50 {
        let new = session(number, Some("ada"));
        let write = store.insert(&new, NOW);
        // Polled once, then dropped.
        let _ = tokio::time::timeout(Duration::ZERO, write).await;
    }
    store.insert(&session(51, Some("ada")), NOW).await.unwrap();
    for number in 1..=51 {
        assert!(store.find(&id(number)).await.unwrap().snapshot.is_some(), "{number}");
    }
}

#[tokio::test]
async fn what_one_handle_was_told_every_other_one_sees() {
    let (_folder, path) = file();
    let writer = store(&path).await;
    let reader = SqliteStore::open(&SqliteConfig::new(&path)).unwrap();
    for number in 1..=200 {
        writer.insert(&session(number, Some("ada")), NOW).await.unwrap();
        let id = id(number);
        let (first, second) = tokio::join!(reader.find(&id), writer.find(&id));
        assert!(first.unwrap().snapshot.is_some() && second.unwrap().snapshot.is_some());
        let user = crate::support::user("ada");
        assert_eq!(reader.census(NOW, Some(&user)).await.unwrap().active, u64::from(number));
    }
}

#[tokio::test]
async fn a_writer_that_holds_the_lock_for_too_long_is_unavailable() {
    let (_folder, path) = file();
    drop(store(&path).await);
    let mut config = SqliteConfig::new(&path);
    config.busy_timeout = Duration::from_millis(100);
    let store = SqliteStore::open(&config).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.insert(&session(1, Some("ada")), NOW).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable);
    assert_eq!(store.find(&id(1)).await.unwrap().snapshot, None, "reads wait for nobody");
    other.execute_batch("COMMIT").unwrap();
    store.insert(&session(1, Some("ada")), NOW).await.unwrap();
}

#[test]
fn opening_waits_for_a_process_that_reads_the_file_in_its_old_mode() {
    let (_folder, path) = file();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE theirs (id); BEGIN; SELECT * FROM theirs").unwrap();
    let mut config = SqliteConfig::new(&path);
    config.busy_timeout = Duration::from_millis(200);
    let start = Instant::now();
    let error = SqliteStore::open(&config).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable);
    assert!(start.elapsed() >= config.busy_timeout, "{:?}", start.elapsed());
    other.execute_batch("COMMIT").unwrap();
    SqliteStore::open(&config).unwrap();
}
