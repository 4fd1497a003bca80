//! A pooler in transaction mode before the Postgres, which the adapter must refuse.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::install::{Wanted, find, free_port, is_root, unprivileged};
use super::{Addresses, Started};
use crate::cli::Failure;

/// It refuses root, like the server behind it.
const USER: &str = "postgres";

const PGBOUNCER: Wanted = Wanted { program: "pgbouncer", package: "pgbouncer", elsewhere: "" };

pub(super) fn start(folder: &Path, others: &Addresses) -> Result<Started, Failure> {
    let program = find(&PGBOUNCER)?;
    let server = others.of("SESSION_STORE_POSTGRES_URL").unwrap_or_default();
    // postgres://user@host:port/database
    let parts = server.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
    let address = parts.and_then(|(user, rest)| Some((user, rest.split_once('/')?)));
    let Some((user, (host, database))) = address else {
        return Err(Failure::new(
            "pgbouncer: SESSION_STORE_POSTGRES_URL has no user or no database",
        ));
    };
    let (host, server_port) = host.split_once(':').unwrap_or((host, "5432"));
    let port = free_port()?;
    let user_name = user.split(':').next().unwrap_or(user);
    let ini = format!(
        "[databases]\n{database} = host={host} port={server_port} dbname={database} user={user_name}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\npool_mode = transaction\n\
         auth_type = any\nunix_socket_dir =\nignore_startup_parameters = extra_float_digits,options\n"
    );
    let path = folder.join("pgbouncer.ini");
    let failed = |error: std::io::Error| Failure::io("pgbouncer", &error);
    fs::write(&path, ini).map_err(failed)?;
    if is_root() {
        let chown = Command::new("chown").arg("-R").arg(USER).arg(folder).status();
        chown.map_err(failed)?;
    }
    let log = folder.join("log");
    let mut command = unprivileged(&program, USER);
    command.arg(&path).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(File::create(&log).map_err(failed)?);
    let mut child = command.spawn().map_err(failed)?;
    let end = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if child.try_wait().map_err(failed)?.is_some() || Instant::now() > end {
            let said = fs::read_to_string(&log).unwrap_or_default();
            return Err(Failure::new(format!("pgbouncer does not start:\n{said}")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let url = format!("postgres://{user_name}@127.0.0.1:{port}/{database}");
    Ok(Started { url, pids: vec![child.id()] })
}
