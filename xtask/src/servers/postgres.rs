//! A Postgres of one's own.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::install::{Wanted, find, free_port, is_root, unprivileged};
use super::{Addresses, Started};
use crate::cli::Failure;

/// The user that Debian's package makes; Postgres refuses root.
const USER: &str = "postgres";

const INITDB: Wanted =
    Wanted { program: "initdb", package: "postgresql", elsewhere: "/usr/lib/postgresql/*/bin" };

/// Nothing here outlives a test, so nothing is written durably.
const SETTINGS: [&str; 6] = [
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "max_connections=300",
    "listen_addresses=127.0.0.1",
    "log_min_messages=log",
];

pub(super) fn start(folder: &Path, _others: &Addresses) -> Result<Started, Failure> {
    make(folder)?;
    let port = free_port()?;
    let pid = launch(folder, port)?;
    Ok(Started { url: url(port), pids: vec![pid] })
}

/// The address of a server of ours.
pub(crate) fn url(port: u16) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/postgres")
}

/// Makes an empty database cluster in `folder`.
pub(crate) fn make(folder: &Path) -> Result<(), Failure> {
    if is_root() {
        run(Command::new("chown").arg(USER).arg(folder), "chown")?;
    }
    let mut make = unprivileged(&find(&INITDB)?, USER);
    make.arg("-D").arg(folder.join("data")).args(["-A", "trust", "-U", "postgres", "--no-sync"]);
    make.args(["-E", "UTF8", "--locale=C"]).current_dir(folder);
    run(&mut make, "initdb")
}

/// Starts the server of what [`make`] made, and waits until it serves; its process.
pub(crate) fn launch(folder: &Path, port: u16) -> Result<u32, Failure> {
    let failed = |error: std::io::Error| Failure::io("postgres", &error);
    let log = folder.join("log");
    let mut command = unprivileged(&find(&INITDB)?.with_file_name("postgres"), USER);
    command.arg("-D").arg(folder.join("data")).args(["-p", &port.to_string()]);
    command.arg("-k").arg(folder);
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(File::create(&log).map_err(failed)?);
    let mut child = command.spawn().map_err(failed)?;
    let end = Instant::now() + Duration::from_secs(20);
    while !fs::read_to_string(&log).unwrap_or_default().contains("ready to accept connections") {
        if child.try_wait().map_err(failed)?.is_some() || Instant::now() > end {
            let said = fs::read_to_string(&log).unwrap_or_default();
            return Err(Failure::new(format!("postgres does not start:\n{said}")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // setpriv becomes the server, so that the number is the server's.
    let pid = child.id();
    // Whoever kills it must not leave a zombie that looks alive.
    std::thread::spawn(move || child.wait());
    Ok(pid)
}

fn run(command: &mut Command, name: &str) -> Result<(), Failure> {
    let output = command.output().map_err(|error| Failure::io(name, &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Failure::new(format!("{name}: {said}")))
}
