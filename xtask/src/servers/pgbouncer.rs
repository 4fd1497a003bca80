//! A pooler in transaction mode before the Postgres, which the adapter must refuse.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Addresses;
use super::book::Home;
use super::docker::Wish;
use super::install::{Program, Wanted, find, free_port, is_open, is_root, server, unprivileged};
use crate::cli::Failure;

/// It refuses root, like the server behind it.
const USER: &str = "postgres";

/// There is no official one.
const IMAGE: &str = "edoburu/pgbouncer";
const PATIENCE: Duration = Duration::from_secs(20);

const PGBOUNCER: Wanted = Wanted { program: "pgbouncer", package: "pgbouncer", elsewhere: "" };

pub(super) fn start(home: &Home, others: &Addresses) -> Result<String, Failure> {
    let program = server(home, IMAGE, "pgbouncer", || find(&PGBOUNCER))?;
    let truth = others.of("SESSION_STORE_POSTGRES_URL").unwrap_or_default();
    // postgres://user@host:port/database
    let parts = truth.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
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
    let failed = |error: std::io::Error| Failure::io("pgbouncer", &error);
    let folder = &home.folder;
    let path = folder.join("pgbouncer.ini");
    fs::write(&path, ini).map_err(failed)?;
    match program {
        Program::Here(program) => {
            if is_root() {
                let chown = Command::new("chown").arg("-R").arg(USER).arg(folder).status();
                chown.map_err(failed)?;
            }
            let log = folder.join("log");
            let mut command = unprivileged(&program, USER);
            command.arg(&path).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(File::create(&log).map_err(failed)?);
            home.start(command, &log, PATIENCE, || is_open(port))?;
        }
        Program::Image(image, program) => {
            // In the network of this machine: it must reach a Postgres that listens on its loopback.
            let wish = Wish {
                image,
                network: Some("host".to_owned()),
                options: vec![
                    format!("--volume={}:/pgbouncer.ini:ro", path.display()),
                    format!("--entrypoint={program}"),
                    "--user=65534:65534".to_owned(),
                ],
                command: vec!["/pgbouncer.ini".to_owned()],
                ..Wish::default()
            };
            home.contain(&wish, PATIENCE, || is_open(port))?;
        }
    }
    Ok(format!("postgres://{user_name}@127.0.0.1:{port}/{database}"))
}
