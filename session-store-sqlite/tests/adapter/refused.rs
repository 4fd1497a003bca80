//! A file or a folder that the kernel won't let this process write.
//!
//! The kernel refuses nothing to root, as whom CI runs, so the deed is a child's: this test binary
//! again, as the user `nobody` where the parent is root.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use session_store_core::PrimaryStore;
use session_store_sqlite::{Access, SqliteConfig, SqliteStore};

use crate::support::{NOW, file, id, session, store, user};

const CHILD: &str = "SESSION_STORE_REFUSED_CHILD";

/// The child: says what became of opening the database, and of reading it.
async fn open_as_nobody(how: &OsStr) {
    let mut config = SqliteConfig::new(std::env::var_os("SESSION_STORE_FILE").unwrap());
    if how == "to read" {
        config.access = Access::ReadOnly;
    }
    let answer = match SqliteStore::open(&config) {
        Ok(store) => format!("opened, {:?}", store.find(&id(1)).await.map(|found| found.snapshot)),
        Err(error) => format!("{:?}: {error}", error.kind()),
    };
    report(&answer);
}

#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn report(answer: &str) {
    println!("answer {answer}");
}

/// What an unprivileged process is told that opens the database.
fn opened_by_nobody(path: &Path, how: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    // The folder of the build is often closed to others. Copied by a process of its own: what this one
    // writes, another test's child may hold open when it begins, and such a file can't be run.
    let binary = folder.path().join("child");
    let mut copy = Command::new("cp");
    copy.arg(std::env::current_exe().unwrap()).arg(&binary);
    assert!(copy.status().unwrap().success());
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = if is_root {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&binary);
        command
    } else {
        Command::new(&binary)
    };
    command.args(["--exact", "refused::a_file_that_may_only_be_read_is_read", "--nocapture"]);
    command.env(CHILD, how).env("SESSION_STORE_FILE", path).current_dir("/");
    let output = command.output().expect("setpriv is missing: apt-get install util-linux");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.split_once("answer ")).map(|(_, answer)| answer);
    line.expect("the child says what it found").to_owned()
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The last connection takes the files beside the database away.
fn until_closed(path: &Path) {
    let end = Instant::now() + Duration::from_secs(10);
    while path.with_extension("db-wal").exists() {
        assert!(Instant::now() < end, "a connection is still open");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_file_that_may_not_be_written_is_named_and_left_as_it_was() {
    for (folder_mode, file_mode) in [(0o555, 0o444), (0o777, 0o444), (0o555, 0o666)] {
        let (folder, path) = file();
        let store = store(&path).await;
        store.insert(&session(1, Some("ada")), NOW).await.unwrap();
        drop(store);
        until_closed(&path);
        allow(&path, file_mode);
        allow(folder.path(), folder_mode);
        let before = fs::read(&path).unwrap();
        let answer = opened_by_nobody(&path, "to write");
        let named = answer.starts_with("Configuration")
            && answer.contains("can't be written")
            && answer.contains("permissions");
        assert!(named, "folder {folder_mode:o}, file {file_mode:o}: {answer}");
        assert_eq!(fs::read(&path).unwrap(), before);
        allow(folder.path(), 0o755);
    }
}

#[tokio::test]
async fn a_file_that_may_only_be_read_is_read() {
    // The others' child is this one too.
    if let Some(how) = std::env::var_os(CHILD) {
        return open_as_nobody(&how).await;
    }
    let (folder, path) = file();
    let store = store(&path).await;
    store.insert(&session(1, Some("ada")), NOW).await.unwrap();
    allow(folder.path(), 0o755);
    allow(&path, 0o444);
    // While its owner is at work: the files beside it are there.
    for name in ["sessions.db-wal", "sessions.db-shm"] {
        allow(&folder.path().join(name), 0o444);
    }
    let answer = opened_by_nobody(&path, "to read");
    assert!(answer.starts_with("opened, Ok(Some("), "{answer}");
    assert!(store.find_user(&user("ada")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_folder_that_may_not_be_entered_is_named() {
    let (folder, path) = file();
    drop(store(&path).await);
    allow(folder.path(), 0o700);
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        allow(folder.path(), 0o000);
    }
    let answer = opened_by_nobody(&path, "to write");
    assert!(answer.starts_with("Configuration") && answer.contains("can't be opened"), "{answer}");
    allow(folder.path(), 0o700);
}
