//! What starts servers and is told to end leaves nothing behind: `cargo xtask servers up` while it starts
//! a Cluster, and a fault case with a server that it has stopped.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::{Path, PathBuf};
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

/// The same, listening to signals even where a job in the background was started deaf to them.
fn listening(root: &Path, words: &[&str]) -> Command {
    let plain = xtask(root, words);
    let mut command = Command::new("env");
    command.arg("--default-signal=INT,TERM").arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdout(Stdio::null());
    command
}

/// By the shell's own, since a bare machine has no program of that name.
fn kill(signal: &str, child: &Child) {
    let line = format!("kill {signal} {}", child.id());
    assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
}

/// What `up` writes down.
fn book(root: &Path) -> PathBuf {
    root.join("target/servers.json")
}

/// The processes in a book.
fn pids(book: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(book).unwrap_or_default();
    let book: Value = serde_json::from_str(&text).unwrap_or_default();
    let records = book.as_array().cloned().unwrap_or_default();
    let processes = records.iter().filter_map(|record| record["processes"].as_array()).flatten();
    processes.filter_map(|process| process["pid"].as_u64()).collect()
}

/// What a run has for itself: how many processes there are in its file, and one that is stopped.
fn case(root: &Path) -> (Vec<u64>, Option<u64>) {
    let files = std::fs::read_dir(root.join("target")).into_iter().flatten().flatten();
    let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    let pids: Vec<_> = names
        .filter(|name| name.starts_with("servers-") && !name.contains(".draft"))
        .flat_map(|name| pids(&root.join("target").join(name)))
        .collect();
    let stopped = pids.iter().copied().find(|pid| state(*pid) == Some('T'));
    (pids, stopped)
}

/// The state of a process; none when it has ended.
fn state(pid: u64) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let state = stat.rsplit_once(") ")?.1.chars().next()?;
    (state != 'Z').then_some(state)
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
        let pids = pids(&book(root));
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
        let mut up = listening(root.path(), &["servers", "up"]).spawn().unwrap();
        let seen = half_way(root.path(), &mut up);
        kill(signal, &up);
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
        assert_eq!(pids(&book(root.path())), [0_u64; 0]);
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
    kill("-HUP", &up);
    assert!(up.wait().unwrap().success());
    let all = pids(&book(root.path()));
    assert_eq!(all.iter().filter(|pid| is_redis(**pid)).count(), 6);
    assert!(xtask(root.path(), &["servers", "down"]).status().unwrap().success());
    assert!(!all.iter().any(|pid| is_redis(*pid)));
}

/// A case that stops its Redis for ten seconds, in the middle of them; its servers, and that Redis. A
/// machine that is busy with something else may keep the case from getting so far.
fn in_a_case(root: &Path) -> (Child, Vec<u64>, u64) {
    let said = root.join("said");
    for _ in 0..3 {
        let mut command = listening(root, &["faults", "--case", "redis_stopped_for_ten_seconds"]);
        command.env_remove("SESSION_STORE_POSTGRES_URL");
        command.env("SESSION_STORE_REDIS_CLUSTER_URL", "elsewhere://");
        command.stdout(std::fs::File::create(&said).unwrap());
        let mut faults = command.spawn().unwrap();
        let end = Instant::now() + Duration::from_mins(2);
        while faults.try_wait().unwrap().is_none() {
            // One of the two clients may be ahead of the other by as much as their servers take to start.
            if let (pids, Some(stopped)) = case(root)
                && pids.len() >= 3
            {
                return (faults, pids, stopped);
            }
            assert!(Instant::now() < end, "no server was stopped");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    panic!("it ended by itself three times: {}", std::fs::read_to_string(said).unwrap())
}

#[test]
fn a_case_that_is_interrupted_ends_its_servers_and_the_stopped_one() {
    let root = tempfile::tempdir().unwrap();
    let (mut faults, seen, stopped) = in_a_case(root.path());
    // A Redis for each client library, and the Postgres of the run.
    assert!(seen.len() == 3 && seen.contains(&stopped), "{seen:?}");
    kill("-TERM", &faults);
    assert_eq!(faults.wait().unwrap().code(), Some(143));
    assert!(!seen.iter().any(|pid| state(*pid).is_some()), "some still run: {seen:?}");
    assert_eq!(case(root.path()), (Vec::new(), None));
}

#[test]
fn what_a_killed_case_left_is_stopped_by_the_next_command() {
    let root = tempfile::tempdir().unwrap();
    let (mut faults, seen, _) = in_a_case(root.path());
    // As long as it runs, others leave its servers alone.
    assert!(xtask(root.path(), &["servers", "down"]).status().unwrap().success());
    assert!(seen.iter().all(|pid| state(*pid).is_some()));
    faults.kill().unwrap();
    faults.wait().unwrap();
    assert!(seen.iter().all(|pid| state(*pid).is_some()));
    assert!(xtask(root.path(), &["servers", "down"]).status().unwrap().success());
    assert!(!seen.iter().any(|pid| state(*pid).is_some()), "some still run: {seen:?}");
    assert_eq!(case(root.path()), (Vec::new(), None));
}
