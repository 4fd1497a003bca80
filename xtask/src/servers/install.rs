//! Programs that a server needs: found, installed by the system's package manager, or in an image.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::book::Home;
use super::docker;
use crate::cli::{Failure, say};

/// A program, and the Debian packages that have it.
pub(crate) struct Wanted {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
    /// Folders beside the search path, the newest version last when sorted.
    pub(crate) elsewhere: &'static str,
}

/// How a server is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// By a program of this machine.
    Here(PathBuf),
    /// By the program of this name in this image, for want of one here.
    Image(&'static str, &'static str),
}

/// Where the program of a server is: here, else in a container of `image`.
pub(super) fn server(
    home: &Home,
    image: &'static str,
    program: &'static str,
    here: impl FnOnce() -> Result<PathBuf, Failure>,
) -> Result<Program, Failure> {
    if home.wants_containers() {
        return docker::fetch(image).map(|()| Program::Image(image, program));
    }
    here().map(Program::Here).or_else(|failure| match docker::fetch(image) {
        Ok(()) => {
            say(&format!("servers: {failure}; using docker, {image}"));
            Ok(Program::Image(image, program))
        }
        Err(last) => Err(Failure::new(format!("{failure}; {last}"))),
    })
}

/// Where the program is; installed if it is not there and that needs no question.
pub(crate) fn find(wanted: &Wanted) -> Result<PathBuf, Failure> {
    provide(wanted.program, wanted.package, || search(wanted).is_some())?;
    search(wanted).ok_or_else(|| Failure::new(format!("{} is gone again", wanted.program)))
}

/// Installs `package` unless `what` it is wanted for is there.
pub(super) fn provide(
    what: &str,
    package: &str,
    is_there: impl Fn() -> bool,
) -> Result<(), Failure> {
    // The package manager takes one order at a time, and the last one may have brought this too.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if is_there() {
        return Ok(());
    }
    let command = format!("apt-get install -y --no-install-recommends {package}");
    say(&format!("servers: {what} is missing; {command}"));
    let prefix = if is_root() { "" } else { "sudo -n " };
    // A new machine may be updating itself.
    let patient = command.replacen("apt-get", "apt-get -o DPkg::Lock::Timeout=300", 1);
    let install = format!("{prefix}{patient}");
    let update = format!("{prefix}apt-get -o DPkg::Lock::Timeout=300 update -qq");
    // One that is new knows no packages yet.
    let is_installed = shell(&install) || (shell(&update) && shell(&install));
    if is_installed && is_there() {
        return Ok(());
    }
    let failure = format!(
        "{what} is missing and could not be installed without a question; as root: {command}"
    );
    Err(Failure::new(failure))
}

pub(super) fn search(wanted: &Wanted) -> Option<PathBuf> {
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

/// A port that nobody listened on just now, and that no process of this program was given before. It lies,
/// like one 10 000 above it, below those that a kernel gives to clients: of the latter, any may have one
/// before the server does, also whoever asks whether the server is up, who then speaks with itself.
pub(crate) fn free_port() -> Result<u16, Failure> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u16 = 12_000;
    const MANY: u16 = 10_000;
    for _ in 0..MANY {
        // Each process begins somewhere else.
        let number = std::process::id().wrapping_mul(101);
        let number = number.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + u16::try_from(number % u32::from(MANY)).unwrap_or_default();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() && claim(port) {
            return Ok(port);
        }
    }
    Err(Failure::new(format!("no port is free from {FIRST} to {}", FIRST + MANY)))
}

/// Gives `port` away, unless this process was given it before, or another one that still runs: its
/// server may be yet to start.
pub(super) fn claim(port: u16) -> bool {
    static GIVEN: Mutex<Vec<(u16, Claim)>> = Mutex::new(Vec::new());
    let mut given = GIVEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if given.iter().any(|(before, _)| *before == port) {
        return false;
    }
    let claim = claim_of(port);
    given.extend(claim.map(|claim| (port, claim)));
    given.last().is_some_and(|(last, _)| *last == port)
}

#[cfg(target_os = "linux")]
use of_all::{Claim, claim_of};
#[cfg(not(target_os = "linux"))]
use of_one::{Claim, claim_of};

/// Claims that all processes see which share the ports, and that end with their process.
#[cfg(target_os = "linux")]
mod of_all {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    pub(super) type Claim = UnixListener;

    /// None when somebody else has it.
    pub(super) fn claim_of(port: u16) -> Option<Claim> {
        let name = format!("session-store-port-{port}");
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).ok()?).ok()
    }
}

/// Claims that nobody else sees.
#[cfg(not(target_os = "linux"))]
mod of_one {
    pub(super) type Claim = ();

    pub(super) fn claim_of(_: u16) -> Option<Claim> {
        Some(())
    }
}

/// Whether somebody listens on `port`.
pub(super) fn is_open(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Whether whoever listens on `port` answers `question` with something that begins with `answer`.
/// What leads to a container listens long before there is anybody behind it.
pub(super) fn answers(port: u16, question: &[u8], answer: &[u8]) -> bool {
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(question)?;
        let mut start = vec![0; answer.len()];
        stream.read_exact(&mut start)?;
        Ok(start)
    };
    ask().is_ok_and(|start| start == answer)
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
    fn a_package_is_left_out_of_it_when_what_it_brings_is_there() {
        provide("this test", "no-such-package", || true).unwrap();
        let failure = provide("that test", "no-such-package", || false).unwrap_err().to_string();
        assert!(failure.contains("that test") && failure.contains("no-such-package"), "{failure}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_port_is_given_to_one_process_only() {
        let port = free_port().unwrap();
        // As another process has it.
        let (other, theirs) = (40_000..).find_map(|other| Some((other, claim_of(other)?))).unwrap();
        assert!(!claim(port) && !claim(other));
        drop(theirs);
        assert!(claim(other) && !claim(other));
    }

    #[test]
    fn what_is_there_is_found() {
        let wanted = Wanted { program: "sh", package: "dash", elsewhere: "" };
        assert!(find(&wanted).unwrap().is_file());
    }
}
