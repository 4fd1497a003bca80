//! What was started: a process or a container, told from every later one.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::docker::Container;

/// A process, told from a later one of the same number by the moment it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pid: u32,
    began: u64,
}

impl Process {
    /// The process that has this number now; `None` when it has ended.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, began: began(pid)? })
    }

    /// This process.
    pub(super) fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// What tells it from every other one, as a part of a file's name.
    pub(super) fn label(self) -> String {
        format!("{}-{}", self.pid, self.began)
    }

    /// The process that a file was named after.
    pub(super) fn labelled(label: &str) -> Option<Self> {
        let (pid, began) = label.split_once('-')?;
        Some(Self { pid: pid.parse().ok()?, began: began.parse().ok()? })
    }

    pub(super) fn is_alive(self) -> bool {
        began(self.pid) == Some(self.began)
    }

    fn signal(self, name: &str) {
        if self.is_alive() {
            // By the shell's own: a bare machine has no program of that name. The process may end by
            // itself meanwhile, which is what is wanted.
            let _ = Command::new("sh").arg("-c").arg(format!("kill {name} {}", self.pid)).output();
        }
    }
}

/// The fields of `/proc/PID/stat` behind the name of the program, which may hold spaces and
/// parentheses; the first one is the state.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// Clock ticks since the machine started; `None` when it has ended.
fn began(pid: u32) -> Option<u64> {
    let fields = stat(pid)?;
    if fields.first()? == "Z" {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// Something that runs because we started it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Running {
    Process(Process),
    Container(Container),
}

impl Running {
    pub(crate) fn is_alive(&self) -> bool {
        match self {
            Self::Process(process) => process.is_alive(),
            Self::Container(container) => container.is_alive(),
        }
    }

    /// Sends a signal, such as `-KILL`. When it has ended nothing happens, whoever has its number now.
    pub(crate) fn signal(&self, name: &str) {
        match self {
            Self::Process(process) => process.signal(name),
            Self::Container(container) => container.signal(name),
        }
    }

    /// Lets a process go on that was stopped: until then it heeds no signal but one.
    pub(super) fn resume(&self) {
        if let Self::Process(process) = self
            && stat(process.pid)
                .is_some_and(|fields| fields.first().is_some_and(|state| state == "T"))
        {
            process.signal("-CONT");
        }
    }

    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Process(process) => json!({ "pid": process.pid, "began": process.began }),
            Self::Container(container) => container.to_json(),
        }
    }

    pub(super) fn from_json(value: &Value) -> Option<Self> {
        if let Some(container) = Container::from_json(value) {
            return Some(Self::Container(container));
        }
        let pid = value["pid"].as_u64()?.try_into().ok()?;
        Some(Self::Process(Process { pid, began: value["began"].as_u64()? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_of_the_same_number_is_left_alone() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let own = Running::Process(Process::of(child.id()).unwrap());
        let stranger = Running::Process(Process { pid: child.id(), began: 1 });
        assert!(own.is_alive() && !stranger.is_alive());
        stranger.signal("-KILL");
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(child.try_wait().unwrap().is_none(), "a stranger was killed");
        own.signal("-KILL");
        child.wait().unwrap();
        assert!(!own.is_alive());
    }

    #[test]
    fn a_process_is_found_again_by_the_name_of_its_file() {
        let own = Process::own().unwrap();
        assert_eq!(Process::labelled(&own.label()), Some(own));
        assert!(own.is_alive());
        assert_eq!(Process::labelled("servers"), None);
    }
}
