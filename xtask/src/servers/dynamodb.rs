//! A server that speaks DynamoDB's protocol: `ministack` from the Python package index, in an environment
//! of its own under the user's cache.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Addresses;
use super::book::Home;
use super::install::{Wanted, find, free_port, is_open, provide, search};
use crate::cli::{Failure, say};

/// Names a server that speaks DynamoDB's protocol.
pub(crate) const VARIABLE: &str = "SESSION_STORE_DYNAMODB_URL";
/// The version that the adapter's tests were written against.
const MINISTACK: &str = "ministack==1.5.33";
const PYTHON: Wanted = Wanted { program: "python3", package: "python3-venv", elsewhere: "" };

/// Whether an environment can be made: Debian has that apart from python3.
fn makes_environments(python: &Path) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", "import ensurepip"]).stdin(Stdio::null());
    command.output().is_ok_and(|output| output.status.success())
}

pub(super) fn start(home: &Home, _others: &Addresses) -> Result<String, Failure> {
    let program = installed()?;
    serve(home, |port| {
        let mut command = Command::new(program);
        // It would listen everywhere if it were not told.
        command.env("BIND_HOST", "127.0.0.1").env("GATEWAY_PORT", port.to_string());
        command
    })
}

/// Where what `command` starts on a free port listens.
fn serve(home: &Home, command: impl FnOnce(u16) -> Command) -> Result<String, Failure> {
    let port = free_port()?;
    let log = home.folder.join("log");
    let mut command = command(port);
    command.current_dir(&home.folder).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(File::create(&log).map_err(|error| Failure::io("dynamodb", &error))?);
    home.start(command, &log, Duration::from_mins(1), || is_open(port))?;
    Ok(format!("http://127.0.0.1:{port}"))
}

/// Another such server, if the program is on the search path or where `cargo install` puts it; it ends
/// with the lease.
pub(crate) fn second() -> Result<Option<String>, Failure> {
    let Some(program) = dynoxide() else { return Ok(None) };
    let url = serve(&super::home("dynoxide")?, |port| {
        let mut command = Command::new(program);
        command.args(["serve", "--host", "127.0.0.1", "--port", &port.to_string()]);
        command
    });
    url.map(Some)
}

fn dynoxide() -> Option<PathBuf> {
    let wanted = Wanted { program: "dynoxide", package: "", elsewhere: "" };
    let own = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let own = own.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let own = own.map(|home| home.join("bin/dynoxide")).filter(|program| program.is_file());
    search(&wanted).or(own)
}

/// The program; installed if it is not there.
fn installed() -> Result<PathBuf, Failure> {
    let python = find(&PYTHON)?;
    let folder = environment()?;
    let program = folder.join("bin/ministack");
    // Other checkouts use it too.
    let failed = |error: std::io::Error| Failure::io(&folder.display().to_string(), &error);
    std::fs::create_dir_all(folder.parent().unwrap_or(&folder)).map_err(failed)?;
    let turn = File::create(folder.with_extension("lock")).map_err(failed)?;
    turn.lock().map_err(failed)?;
    // Written last, so that what was interrupted is begun again.
    let mark = folder.join("complete");
    if mark.is_file() && program.is_file() {
        return Ok(program);
    }
    say(&format!("servers: ministack is missing; pip install {MINISTACK}"));
    provide("venv of python3", PYTHON.package, || makes_environments(&python))?;
    let venv = Command::new(&python).args(["-m", "venv", "--clear"]).arg(&folder).output();
    check(venv, "python3 -m venv; on Debian as root: apt-get install python3-venv")?;
    let pip = Command::new(folder.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check", MINISTACK])
        .output();
    check(pip, "pip install")?;
    File::create(&mark).map_err(|error| Failure::io("ministack", &error))?;
    Ok(program)
}

/// Where the environment lies: it outlives this checkout, since it takes 90 MB.
fn environment() -> Result<PathBuf, Failure> {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = path("XDG_CACHE_HOME").or_else(|| path("HOME").map(|home| home.join(".cache")));
    let cache = cache.filter(|path| path.is_absolute()).ok_or_else(|| {
        Failure::new("neither XDG_CACHE_HOME nor HOME says where ministack may be installed")
    })?;
    Ok(cache.join("session-store").join(MINISTACK.replace("==", "-")))
}

fn check(done: std::io::Result<std::process::Output>, what: &str) -> Result<(), Failure> {
    let output = done.map_err(|error| Failure::io(what, &error))?;
    if output.status.success() {
        return Ok(());
    }
    // What is wrong is said on either.
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    Err(Failure::new(format!("{what}: {}", said.concat())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_without_environments_is_told_from_one_with() {
        // Neither of them can import anything.
        assert!(!makes_environments(Path::new("false")));
        assert!(!makes_environments(Path::new("no-such-python")));
    }

    #[test]
    fn what_a_command_says_before_it_fails_is_shown() {
        let output = Command::new("sh").args(["-c", "echo here; echo there >&2; exit 1"]).output();
        let failure = check(output, "python3 -m venv").unwrap_err().to_string();
        assert!(failure.contains("here") && failure.contains("there"), "{failure}");
    }
}
