//! `cargo xtask servers up` that is told to end while it starts a Cluster leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What is not started here, since somebody else is said to have it.
const OTHERS: [&str; 6] =
    ["POSTGRES", "PGBOUNCER", "REDIS", "VALKEY", "REDIS_SENTINEL", "DYNAMODB"];

fn xtask(root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(words).env("CARGO_MANIFEST_DIR", root.join("xtask")).stdout(Stdio::null());
    command.env_remove("SESSION_STORE_REDIS_CLUSTER_URL");
    for name in OTHERS {
        command.env(format!("SESSION_STORE_{name}_URL"), "elsewhere://");
    }
    command
}

/// The processes in the book.
fn pids(root: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(root.join("target/servers.json")).unwrap_or_default();
    let book: Value = serde_json::from_str(&text).unwrap_or_default();
    let records = book.as_array().cloned().unwrap_or_default();
    let processes = records.iter().filter_map(|record| record["processes"].as_array()).flatten();
    processes.filter_map(|process| process["pid"].as_u64()).collect()
}

/// Whether a server runs there; one that has ended may be waiting for somebody to notice.
fn is_redis(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.contains("(redis") && !stat.contains(") Z ")
}

/// Waits until some of the six run.
fn half_way(root: &Path, up: &mut Child) -> Vec<u64> {
    let end = Instant::now() + Duration::from_mins(2);
    loop {
        let pids = pids(root);
        let is_over = up.try_wait().unwrap().is_some();
        if is_over || (pids.len() >= 2 && pids.iter().all(|pid| is_redis(*pid))) {
            return pids;
        }
        assert!(Instant::now() < end, "no Cluster was started");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Where it was told to end half-way, and what ran then.
fn interrupted(signal: &str, wanted: i32) -> (tempfile::TempDir, Vec<u64>) {
    for _ in 0..10 {
        let root = tempfile::tempdir().unwrap();
        let mut up = xtask(root.path(), &["servers", "up"]).spawn().unwrap();
        let seen = half_way(root.path(), &mut up);
        Command::new("kill").args([signal, &up.id().to_string()]).status().unwrap();
        let code = up.wait().unwrap().code();
        if code == Some(0) {
            // It was faster: everything is up, and stays so until it is taken down.
            assert!(xtask(root.path(), &["servers", "down"]).status().unwrap().success());
            continue;
        }
        assert_eq!(code, Some(wanted));
        return (root, seen);
    }
    panic!("it was faster ten times")
}

#[test]
fn whoever_interrupts_it_finds_nothing_running() {
    for (signal, wanted) in [("-INT", 130), ("-TERM", 143)] {
        let (root, seen) = interrupted(signal, wanted);
        assert!(!seen.iter().any(|pid| is_redis(*pid)), "some still run: {seen:?}");
        assert_eq!(pids(root.path()), [0_u64; 0]);
    }
}

#[test]
fn what_a_killed_one_left_is_stopped_by_the_next() {
    let root = tempfile::tempdir().unwrap();
    let mut up = xtask(root.path(), &["servers", "up"]).spawn().unwrap();
    let seen = half_way(root.path(), &mut up);
    up.kill().unwrap();
    up.wait().unwrap();
    assert!(seen.iter().any(|pid| is_redis(*pid)));
    assert!(xtask(root.path(), &["servers", "down"]).status().unwrap().success());
    assert!(!seen.iter().any(|pid| is_redis(*pid)), "some still run: {seen:?}");
}

#[test]
fn what_is_told_to_ignore_a_hangup_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let plain = xtask(root.path(), &["servers", "up"]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" servers up"]).arg(plain.get_program());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut up = command.stdout(Stdio::null()).spawn().unwrap();
    half_way(root.path(), &mut up);
    Command::new("kill").args(["-HUP", &up.id().to_string()]).status().unwrap();
    assert!(up.wait().unwrap().success());
    let all = pids(root.path());
    assert_eq!(all.iter().filter(|pid| is_redis(**pid)).count(), 6);
    assert!(xtask(root.path(), &["servers", "down"]).status().unwrap().success());
    assert!(!all.iter().any(|pid| is_redis(*pid)));
}
