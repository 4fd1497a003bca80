//! A Postgres of one's own.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Addresses;
use super::book::Home;
use super::docker::Wish;
use super::install::{Program, Wanted, answers, find, free_port, is_root, server, unprivileged};
use super::process::Running;
use crate::cli::Failure;

/// The user that Debian's package makes; Postgres refuses root.
const USER: &str = "postgres";

const PATIENCE: Duration = Duration::from_secs(30);

const INITDB: Wanted =
    Wanted { program: "initdb", package: "postgresql", elsewhere: "/usr/lib/postgresql/*/bin" };

/// Nothing here outlives a test, so nothing is forced to a disk. Commits are written before they are
/// acknowledged all the same: what a killed server forgets looks like a logout, or undoes one.
const SETTINGS: [&str; 5] = [
    "fsync=off",
    "full_page_writes=off",
    "max_connections=300",
    "listen_addresses=127.0.0.1",
    "log_min_messages=log",
];

pub(super) fn start(home: &Home, _others: &Addresses) -> Result<String, Failure> {
    let port = free_port()?;
    match server(home, "postgres:17", "postgres", || find(&INITDB))? {
        Program::Here(_) => {
            make(&home.folder)?;
            launch(home, port)?;
        }
        Program::Image(image, _) => {
            home.contain(&contained(image, port), PATIENCE, || answers(port, &hello(), b"R"))?;
        }
    }
    Ok(url(port))
}

/// The official image makes the database itself, and listens only when that is done.
fn contained(image: &'static str, port: u16) -> Wish<'static> {
    let settings = SETTINGS.iter().filter(|setting| !setting.starts_with("listen_addresses"));
    Wish {
        image,
        ports: vec![(port, 5432)],
        options: vec![
            "--env=POSTGRES_HOST_AUTH_METHOD=trust".to_owned(),
            "--tmpfs=/var/lib/postgresql/data".to_owned(),
        ],
        command: std::iter::once("postgres".to_owned())
            .chain(settings.flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()]))
            .collect(),
        ..Wish::default()
    }
}

/// What a client says first. A server that trusts it answers with `R`, one that starts with `E`.
fn hello() -> Vec<u8> {
    let text = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let length = u32::try_from(text.len() + 4).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), &text[..]].concat()
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

/// Makes a cluster in `home` that follows the server on `port`.
pub(crate) fn copy(port: u16, home: &Home) -> Result<(), Failure> {
    let (folder, log) = (&home.folder, home.folder.join("copied"));
    if is_root() {
        run(Command::new("chown").arg(USER).arg(folder), "chown")?;
    }
    // Of the same version as the server, wherever a link to that one is; one package brings both.
    let beside = find(&INITDB)?.canonicalize();
    let beside = beside.map_err(|error| Failure::io("initdb", &error))?;
    let mut copy = unprivileged(&beside.with_file_name("pg_basebackup"), USER);
    copy.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres", "-c", "fast", "-R"]);
    copy.arg("-D").arg(folder.join("data")).arg("--no-sync").current_dir(folder);
    copy.stdin(Stdio::null()).stdout(Stdio::null());
    copy.stderr(File::create(&log).map_err(|error| Failure::io("pg_basebackup", &error))?);
    home.complete(copy, &log, PATIENCE)
}

/// Has the server of what [`make`] made start with these lines at the end of its settings.
pub(crate) fn configure(folder: &Path, lines: &str) -> Result<(), Failure> {
    let file = OpenOptions::new().append(true).open(folder.join("data/postgresql.conf"));
    let written = file.and_then(|mut file| file.write_all(lines.as_bytes()));
    written.map_err(|error| Failure::io("postgresql.conf", &error))
}

/// Starts the server of what [`make`] made, and waits until it serves.
pub(crate) fn launch(home: &Home, port: u16) -> Result<Running, Failure> {
    let (folder, log) = (&home.folder, home.folder.join("log"));
    // setpriv becomes the server, so that its process is the server's.
    let mut command = unprivileged(&find(&INITDB)?.with_file_name("postgres"), USER);
    command.arg("-D").arg(folder.join("data")).args(["-p", &port.to_string()]);
    command.arg("-k").arg(folder);
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(File::create(&log).map_err(|error| Failure::io("postgres", &error))?);
    home.start(command, &log, PATIENCE, || {
        // One that follows another takes read-only connections.
        fs::read_to_string(&log).is_ok_and(|said| said.contains("ready to accept"))
    })
}

fn run(command: &mut Command, name: &str) -> Result<(), Failure> {
    let output = command.output().map_err(|error| Failure::io(name, &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Failure::new(format!("{name}: {said}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_listens_for_others_than_itself() {
        let wish = contained("postgres:17", 40_000);
        assert!(!wish.command.iter().any(|word| word.contains("listen_addresses")));
        assert_eq!(wish.command.first().map(String::as_str), Some("postgres"));
        assert_eq!(wish.ports, [(40_000, 5432)]);
    }
}
