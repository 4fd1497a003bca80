//! What was started, remembered in a file, so that another command can stop it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::Failure;

/// A process, told from a later one of the same number by the moment it began.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    began: u64,
}

impl Process {
    fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, began: began(pid)? })
    }

    fn is_alive(&self) -> bool {
        began(self.pid) == Some(self.began)
    }
}

/// Clock ticks since the machine started, field 22 of `/proc/PID/stat`; `None` when it has ended.
fn began(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program may hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// A server that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    name: String,
    url: String,
    processes: Vec<Process>,
    folder: PathBuf,
}

impl Record {
    pub(super) fn new(name: &str, url: &str, pids: &[u32], folder: &Path) -> Result<Self, Failure> {
        let processes = pids.iter().map(|pid| {
            Process::of(*pid).ok_or_else(|| Failure::new(format!("{name} ended at once")))
        });
        Ok(Self {
            name: name.to_owned(),
            url: url.to_owned(),
            processes: processes.collect::<Result<_, _>>()?,
            folder: folder.to_owned(),
        })
    }

    fn to_json(&self) -> Value {
        let processes: Vec<_> =
            self.processes.iter().map(|one| json!({"pid": one.pid, "began": one.began})).collect();
        let folder = self.folder.display().to_string();
        json!({ "name": self.name, "url": self.url, "processes": processes, "folder": folder })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let process = |value: &Value| {
            let pid = value["pid"].as_u64()?.try_into().ok()?;
            Some(Process { pid, began: value["began"].as_u64()? })
        };
        Some(Self {
            name: text("name")?,
            url: text("url")?,
            processes: value["processes"].as_array()?.iter().map(process).collect::<Option<_>>()?,
            folder: text("folder")?.into(),
        })
    }

    fn is_alive(&self) -> bool {
        self.processes.iter().all(Process::is_alive)
    }

    fn stop(&self) -> Result<(), Failure> {
        for signal in ["-INT", "-KILL"] {
            let alive = self.processes.iter().filter(|process| process.is_alive());
            for process in alive {
                let pid = process.pid.to_string();
                // It may end by itself meanwhile, which is what is wanted.
                let _ = Command::new("kill").args([signal, &pid]).output();
            }
            let end = Instant::now() + Duration::from_secs(5);
            while self.processes.iter().any(Process::is_alive) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        if self.processes.iter().any(Process::is_alive) {
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

/// Every server that was started and not stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State(Vec<Record>);

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

    pub(super) fn write(&self, path: &Path) -> Result<(), Failure> {
        let name = path.display().to_string();
        let failed = |error: std::io::Error| Failure::io(&name, &error);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let records: Vec<_> = self.0.iter().map(Record::to_json).collect();
        fs::write(path, Value::Array(records).to_string()).map_err(failed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.url(name).is_some()
    }

    pub(super) fn url(&self, name: &str) -> Option<String> {
        self.0.iter().find(|record| record.name == name).map(|record| record.url.clone())
    }

    pub(super) fn add(&mut self, record: Record) {
        self.0.push(record);
    }

    /// Servers that have ended by themselves.
    pub(super) fn forget_dead(&mut self) {
        self.0.retain(Record::is_alive);
    }

    pub(super) fn stop(&self) -> Result<usize, Failure> {
        for record in &self.0 {
            record.stop()?;
        }
        Ok(self.0.len())
    }
}

/// An empty folder, in memory where there is room for it.
pub(crate) fn empty_folder(name: &str) -> Result<PathBuf, Failure> {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = parent.join(format!("session-store-{name}-{}", std::process::id()));
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
    fn what_was_started_is_found_again_and_stopped_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("servers.json");
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let data = empty_folder("test").unwrap();
        let record = Record::new("sleeper", "nap://", &[child.id()], &data).unwrap();
        let mut state = State::default();
        state.add(record);
        state.write(&path).unwrap();
        let found = State::read(&path).unwrap();
        assert_eq!(found, state);
        assert!(found.has("sleeper") && !found.has("other"));
        std::thread::spawn(move || child.wait());
        assert_eq!(found.stop().unwrap(), 1);
        assert!(!data.exists());
        state.forget_dead();
        assert!(state.is_empty());
    }

    #[test]
    fn another_process_of_the_same_number_is_left_alone() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let stranger = Process { pid: child.id(), began: 1 };
        assert!(!stranger.is_alive());
        let record = Record {
            name: "x".into(),
            url: String::new(),
            processes: vec![stranger],
            folder: "/nonexistent".into(),
        };
        record.stop().unwrap();
        assert!(child.try_wait().unwrap().is_none(), "a stranger was killed");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_file_that_is_no_state_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("servers.json");
        assert!(State::read(&path).unwrap().is_empty());
        fs::write(&path, "[{\"name\":1}]").unwrap();
        assert!(State::read(&path).is_err());
    }
}
