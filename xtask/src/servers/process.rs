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

    fn is_alive(self) -> bool {
        began(self.pid) == Some(self.began)
    }

    fn signal(self, name: &str) {
        if self.is_alive() {
            // It may end by itself meanwhile, which is what is wanted.
            let _ = Command::new("kill").args([name, &self.pid.to_string()]).output();
        }
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
}
