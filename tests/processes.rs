//! Two processes over one SQLite file, each with a cache of its own.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use session_store::memory::{MemoryCache, MemoryCacheConfig};
use session_store::sqlite::{SqliteConfig, SqliteStore};
use session_store::{
    Authentication, Layered, LayeredConfig, Login, Policy, Sessions, Source, Ttl, User, UserId,
    Visibility, tokio_host,
};

type App = Sessions<SqliteStore, MemoryCache>;

async fn open(path: &Path) -> App {
    let host = tokio_host();
    let truth = SqliteStore::open(&SqliteConfig::new(path)).unwrap();
    let cache = MemoryCache::new(&MemoryCacheConfig::default(), host.clock.clone());
    let mut config = LayeredConfig::default();
    // Short, so that the test can wait for the bound.
    config.cache_ttl = Ttl::new(Duration::from_millis(600));
    config.lease_ttl = Ttl::new(Duration::from_millis(400)).unwrap();
    let store = Layered::new(truth, cache, config, host).unwrap();
    store.register().await.unwrap();
    Sessions::new(store, Policy::default()).unwrap()
}

/// The child: reads tokens and says what they are worth, and where that came from.
async fn check(path: PathBuf) {
    let app = open(&path).await;
    for line in std::io::stdin().lines() {
        answer(&match app.authenticate_text(&line.unwrap()).await {
            Authentication::Live(live) if live.source == Source::Secondary => "cached".to_owned(),
            Authentication::Live(_) => "accepted".to_owned(),
            other => format!("{other:?}"),
        });
    }
}

#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn answer(text: &str) {
    println!("answer {text}");
}

struct Other {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Other {
    fn start(path: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "another_process_learns_within_the_bound", "--nocapture"])
            .env("SESSION_STORE_CHILD", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = process.stdin.take().unwrap();
        let from = BufReader::new(process.stdout.take().unwrap());
        Self { process, to, from }
    }

    fn ask(&mut self, token: &str) -> String {
        writeln!(self.to, "{token}").unwrap();
        loop {
            let mut line = String::new();
            assert!(self.from.read_line(&mut line).unwrap() > 0, "the other process has ended");
            // With one thread for tests, what runs them has begun the line.
            if let Some((_, text)) = line.trim().split_once("answer ") {
                return text.to_owned();
            }
        }
    }

    fn signal(&self, name: &str) {
        // By the shell's own, since a bare machine has no program of that name.
        let line = format!("kill {name} {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
    }
}

async fn revoked_in_one_is_dead_in_the_other(is_paused: bool) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    let app = open(&path).await;
    let ada = UserId::new("ada").unwrap();
    app.register_user(&User::new(ada.clone(), app.now())).await.unwrap();
    let account = app.find_user(&ada).await.unwrap().unwrap();
    let created = app.create(Login::of(&account)).await.unwrap();
    let token = created.token.expose();
    let mut other = Other::start(&path);
    assert_eq!(other.ask(&token), "accepted");
    // On a busy machine an entry may end before it is asked for.
    let end = Instant::now() + Duration::from_mins(1);
    while other.ask(&token) != "cached" {
        assert!(Instant::now() < end, "the other process caches nothing");
    }
    if is_paused {
        other.signal("-STOP");
    }
    let done = app.logout(&created.token).await.unwrap();
    // A process can't reach into another one, and says so.
    let Visibility::Within(bound) = done.visibility else { panic!("{done:?}") };
    assert_eq!(bound, app.store().guarantee().cache_failure);
    tokio::time::sleep(bound).await;
    if is_paused {
        other.signal("-CONT");
    }
    assert!(other.ask(&token).starts_with("Absent"), "accepted after the bound");
    assert!(app.authenticate_text(&token).await.live().is_none());
    drop(other.to);
    other.process.wait().unwrap();
}

#[tokio::test]
async fn another_process_learns_within_the_bound() {
    if let Some(path) = std::env::var_os("SESSION_STORE_CHILD") {
        return check(PathBuf::from(path)).await;
    }
    revoked_in_one_is_dead_in_the_other(false).await;
}

#[tokio::test]
async fn a_paused_process_learns_within_the_bound() {
    revoked_in_one_is_dead_in_the_other(true).await;
}
