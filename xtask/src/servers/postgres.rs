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
    let initdb = find(&INITDB)?;
    let server = initdb.with_file_name("postgres");
    if is_root() {
        run(Command::new("chown").arg(USER).arg(folder), "chown")?;
    }
    let data = folder.join("data");
    let mut make = unprivileged(&initdb, USER);
    make.arg("-D").arg(&data).args(["-A", "trust", "-U", "postgres", "--no-sync"]);
    make.args(["-E", "UTF8", "--locale=C"]).current_dir(folder);
    run(&mut make, "initdb")?;
    let port = free_port()?;
    let log = folder.join("log");
    let file = File::create(&log).map_err(|error| Failure::io("postgres' log", &error))?;
    let mut command = unprivileged(&server, USER);
    command.arg("-D").arg(&data).args(["-p", &port.to_string()]).arg("-k").arg(folder);
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    let mut child = command.spawn().map_err(|error| Failure::io("postgres", &error))?;
    let end = Instant::now() + Duration::from_secs(20);
    while !fs::read_to_string(&log).unwrap_or_default().contains("ready to accept connections") {
        let has_ended = child.try_wait().map_err(|error| Failure::io("postgres", &error))?;
        if has_ended.is_some() || Instant::now() > end {
            let said = fs::read_to_string(&log).unwrap_or_default();
            return Err(Failure::new(format!("postgres does not start:\n{said}")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    // setpriv becomes the server, so that the number is the server's.
    Ok(Started { url, pids: vec![child.id()] })
}

fn run(command: &mut Command, name: &str) -> Result<(), Failure> {
    let output = command.output().map_err(|error| Failure::io(name, &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Failure::new(format!("{name}: {said}")))
}
