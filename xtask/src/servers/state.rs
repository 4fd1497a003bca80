//! What was started, remembered in a file, so that another command can stop it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::process::Running;
use crate::cli::Failure;

/// A server that was started, or is being started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: String,
    /// Where it is; none before it can be used.
    pub(super) url: Option<String>,
    pub(super) running: Vec<Running>,
    pub(super) folder: PathBuf,
}

impl Record {
    fn to_json(&self) -> Value {
        let running: Vec<_> = self.running.iter().map(Running::to_json).collect();
        let folder = self.folder.display().to_string();
        json!({ "name": self.name, "url": self.url, "processes": running, "folder": folder })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let running = value["processes"].as_array()?.iter().map(Running::from_json);
        Some(Self {
            name: text("name")?,
            url: text("url"),
            running: running.collect::<Option<_>>()?,
            folder: text("folder")?.into(),
        })
    }

    /// Whether it can be used: it was ready once, and nothing of it has ended.
    fn is_whole(&self) -> bool {
        self.url.is_some() && self.running.iter().all(Running::is_alive)
    }

    /// Ends what is left of it by one signal after the other, and removes its folder.
    pub(super) fn stop(&self, signals: &[&str]) -> Result<(), Failure> {
        for signal in signals {
            for running in &self.running {
                running.signal(signal);
                running.resume();
            }
            let end = Instant::now() + PATIENCE;
            while self.running.iter().any(Running::is_alive) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        if self.running.iter().any(Running::is_alive) {
            return Err(Failure::new(format!("{} does not stop", self.name)));
        }
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::io(&self.folder.display().to_string(), &error))
            }
            _ => Ok(()),
        }
    }
}

/// How servers are asked to end, and then made to. A Postgres that is killed leaves its shared memory
/// behind, one that is told to quit only what it had not written.
pub(super) const GENTLY: [&str; 3] = ["-INT", "-QUIT", "-KILL"];
/// How long each of that may take: Postgres gives its children 5 s before it makes them.
const PATIENCE: Duration = Duration::from_secs(10);

/// Every server that was started and not stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State(pub(super) Vec<Record>);

impl State {
    /// No file is no server; a file that can't be read is a failure, since servers may be lost in it.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(Failure::io(&name, &error)),
        };
        let unreadable = || Failure::new(format!("{name} can't be read; stop the servers by hand"));
        let value: Value = serde_json::from_str(&text).map_err(|_| unreadable())?;
        let records = value.as_array().ok_or_else(unreadable)?.iter().map(Record::from_json);
        records.collect::<Option<_>>().map(Self).ok_or_else(unreadable)
    }

    /// Replaces the file whole: a reader never sees half of it.
    pub(super) fn write(&self, path: &Path) -> Result<(), Failure> {
        let name = path.display().to_string();
        let failed = |error: std::io::Error| Failure::io(&name, &error);
        let records: Vec<_> = self.0.iter().map(Record::to_json).collect();
        let draft = path.with_extension("draft");
        fs::write(&draft, Value::Array(records).to_string()).map_err(failed)?;
        fs::rename(&draft, path).map_err(failed)
    }

    /// Where a server is that can be used.
    pub(super) fn url(&self, name: &str) -> Option<String> {
        self.0.iter().find(|record| record.name == name)?.url.clone()
    }

    /// Stops the records that are meant, and forgets those that have stopped; how many those are.
    pub(super) fn stop(
        &mut self,
        is_meant: impl Fn(&Record) -> bool,
        signals: &[&str],
    ) -> Result<usize, Failure> {
        let (mut count, mut outcome) = (0, Ok(()));
        self.0.retain(|record| {
            if !is_meant(record) {
                return true;
            }
            match record.stop(signals) {
                Ok(()) => count += 1,
                Err(failure) => outcome = Err(failure),
            }
            record.running.iter().any(Running::is_alive)
        });
        outcome.map(|()| count)
    }

    /// Ends what is left of servers that nobody can use: half started, or half dead.
    pub(super) fn clear(&mut self) -> Result<(), Failure> {
        self.stop(|record| !record.is_whole(), &GENTLY).map(drop)
    }
}

/// What the largest server needs: the tests write millions of rows into it.
const ROOM: u64 = 3 << 30;

/// Where the folders of servers lie: in memory where there is room for them.
fn parent(memory: &Path, free: Option<u64>) -> PathBuf {
    match free {
        Some(free) if free >= ROOM => memory.to_owned(),
        _ => std::env::temp_dir(),
    }
}

/// How many bytes are free there; none where there is no such folder.
fn free(folder: &Path) -> Option<u64> {
    let system = rustix::fs::statvfs(folder).ok()?;
    Some(system.f_bavail.saturating_mul(system.f_frsize))
}

/// The folder of a server of this name that this process starts.
pub(super) fn folder(name: &str) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let parent = parent(memory, free(memory));
    parent.join(format!("session-store-{name}-{}", std::process::id()))
}

/// The same, made empty.
pub(super) fn empty_folder(name: &str) -> Result<PathBuf, Failure> {
    let folder = folder(name);
    let failed = |error: std::io::Error| Failure::io(&folder.display().to_string(), &error);
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(failed)?;
    }
    fs::create_dir_all(&folder).map_err(failed)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_state_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("servers.json");
        assert_eq!(State::read(&path).unwrap(), State::default());
        fs::write(&path, "[{\"name\":1}]").unwrap();
        assert!(State::read(&path).is_err());
    }

    #[test]
    fn memory_is_used_only_with_room_for_a_postgres() {
        let memory = Path::new("/memory");
        assert_eq!(parent(memory, Some(3 << 30)), memory);
        // What docker gives a container, and what a machine without such a folder has.
        for free in [Some(64 << 20), Some((3 << 30) - 1), None] {
            assert_eq!(parent(memory, free), std::env::temp_dir());
        }
        assert!(free(Path::new("/")).is_some());
        assert_eq!(free(Path::new("/no/such/folder")), None);
    }
}
