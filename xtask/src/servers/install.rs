//! Programs that a server needs: found, or installed by the system's package manager.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::cli::{Failure, say};

/// A program, and the Debian packages that have it.
pub(super) struct Wanted {
    pub(super) program: &'static str,
    pub(super) package: &'static str,
    /// Folders beside the search path, the newest version last when sorted.
    pub(super) elsewhere: &'static str,
}

/// Where the program is; installed if it is not there and that needs no question.
pub(super) fn find(wanted: &Wanted) -> Result<PathBuf, Failure> {
    // The package manager takes one order at a time, and the last one may have brought this too.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = search(wanted) {
        return Ok(path);
    }
    let (program, package) = (wanted.program, wanted.package);
    let command = format!("apt-get install -y --no-install-recommends {package}");
    say(&format!("servers: {program} is missing; {command}"));
    let prefix = if is_root() { "" } else { "sudo -n " };
    let install = format!("{prefix}{command}");
    // A machine that is new knows no packages yet.
    let is_installed =
        shell(&install) || (shell(&format!("{prefix}apt-get update -qq")) && shell(&install));
    if is_installed && let Some(path) = search(wanted) {
        return Ok(path);
    }
    let what = format!(
        "{program} is missing and could not be installed without a question; as root: {command}"
    );
    Err(Failure::new(what))
}

fn search(wanted: &Wanted) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push("/usr/sbin".into());
    if let Some((parent, child)) = wanted.elsewhere.split_once("/*/") {
        let versions = std::fs::read_dir(parent).into_iter().flatten().flatten();
        let mut versions: Vec<_> = versions.map(|entry| entry.path().join(child)).collect();
        versions.sort();
        folders.extend(versions.into_iter().rev());
    }
    folders.iter().map(|folder| folder.join(wanted.program)).find(|program| program.is_file())
}

fn shell(line: &str) -> bool {
    let mut words = line.split(' ');
    let Some(program) = words.next() else { return false };
    let mut command = Command::new(program);
    command.args(words).env("DEBIAN_FRONTEND", "noninteractive");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether this process may do everything.
pub(super) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A command of an unprivileged user, in the user's own folder: some servers refuse root.
pub(super) fn unprivileged(program: &Path, user: &str) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={user}")).arg(format!("--regid={user}"));
    command.args(["--clear-groups", "--"]).arg(program);
    command
}

/// A port that nobody listened on just now.
pub(crate) fn free_port() -> Result<u16, Failure> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0));
    let address = listener.and_then(|listener| listener.local_addr());
    address.map(|address| address.port()).map_err(|error| Failure::io("a free port", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_command_to_get_it() {
        let wanted =
            Wanted { program: "no-such-program", package: "no-such-package-either", elsewhere: "" };
        let failure = find(&wanted).unwrap_err().to_string();
        assert!(failure.contains("no-such-program"), "{failure}");
        assert!(failure.contains("apt-get install"), "{failure}");
    }

    #[test]
    fn what_is_there_is_found() {
        let wanted = Wanted { program: "sh", package: "dash", elsewhere: "" };
        assert!(find(&wanted).unwrap().is_file());
    }
}
