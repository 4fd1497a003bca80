//! A pooler in transaction mode before the Postgres, which the adapter must refuse.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

use super::Addresses;
use super::book::Home;
use super::docker::Wish;
use super::install::{Program, Wanted, find, free_port, is_open, is_root, server, unprivileged};
use crate::cli::Failure;

/// It refuses root, like the server behind it.
const USER: &str = "postgres";

/// There is no official one.
const IMAGE: &str = "edoburu/pgbouncer";
/// What the pooler calls the database: not every name of one can be a name there.
const NAME: &str = "pooled";
const PATIENCE: Duration = Duration::from_secs(20);

const PGBOUNCER: Wanted = Wanted { program: "pgbouncer", package: "pgbouncer", elsewhere: "" };

/// What the pooler of the tests does.
const MODE: &str =
    "pool_mode = transaction\nignore_startup_parameters = extra_float_digits,options\n";

pub(super) fn start(home: &Home, others: &Addresses) -> Result<String, Failure> {
    let truth = others.of("SESSION_STORE_POSTGRES_URL").unwrap_or_default();
    let program = server(home, IMAGE, "pgbouncer", || find(&PGBOUNCER))?;
    launch(home, truth, MODE, program)
}

/// A pooler before the Postgres at `truth` that does what `mode` says; its address.
pub(crate) fn before(home: &Home, truth: &str, mode: &str) -> Result<String, Failure> {
    launch(home, truth, mode, find(&PGBOUNCER).map(Program::Here)?)
}

fn launch(home: &Home, truth: &str, mode: &str, program: Program) -> Result<String, Failure> {
    let port = free_port()?;
    let (ini, url) = settings(truth, port, mode)?;
    let failed = |error: std::io::Error| Failure::io("pgbouncer", &error);
    let folder = &home.folder;
    let path = folder.join("pgbouncer.ini");
    // A password may be in it. A container's user is a stranger here, and must read it all the same.
    let mode = if matches!(program, Program::Here(_)) { 0o600 } else { 0o644 };
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
    file.and_then(|mut file| file.write_all(ini.as_bytes())).map_err(failed)?;
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
    Ok(url)
}

/// What the pooler on `port` is told of the Postgres at `truth`, and where it is then itself.
fn settings(truth: &str, port: u16, mode: &str) -> Result<(String, String), Failure> {
    let about = |what: &str| Failure::new(format!("SESSION_STORE_POSTGRES_URL {what}"));
    let url = Url::parse(truth).map_err(|error| about(&format!("can't be read: {error}")))?;
    let path = url.path().trim_start_matches('/');
    let host = url.host_str().unwrap_or_default();
    if url.username().is_empty() || path.is_empty() || host.is_empty() {
        return Err(about("has no user, no host or no database"));
    }
    let decoded = |part: &str| {
        let text = percent_decode_str(part).decode_utf8();
        let text = text.ok().filter(|text| !text.contains(char::is_control)).map(String::from);
        text.ok_or_else(|| about("has a part that a pooler can't be told"))
    };
    let value = |part: &str| Ok(format!("'{}'", decoded(part)?.replace('\'', "''")));
    let password = match url.password() {
        Some(password) => format!(" password={}", value(password)?),
        None => String::new(),
    };
    let ini = format!(
        "[databases]\n{NAME} = host={} port={} dbname={} user={}{password}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         auth_type = any\nunix_socket_dir =\n{mode}",
        value(host.trim_matches(['[', ']']))?,
        url.port().unwrap_or(5432),
        value(path)?,
        value(url.username())?,
    );
    Ok((ini, format!("postgres://{}@127.0.0.1:{port}/{NAME}", url.username())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(truth: &str) -> String {
        let (ini, _) = settings(truth, 7000, MODE).unwrap();
        ini.lines().nth(1).unwrap().to_owned()
    }

    #[test]
    fn a_password_is_passed_on_and_a_query_is_not() {
        let truth = "postgres://shop:o%27ne%20%40@db.example:6543/shop?sslmode=require";
        let wanted = "pooled = host='db.example' port=6543 dbname='shop' user='shop' \
                      password='o''ne @'";
        assert_eq!(database(truth), wanted);
        assert_eq!(settings(truth, 7000, MODE).unwrap().1, "postgres://shop@127.0.0.1:7000/pooled");
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let wanted = "pooled = host='::1' port=5432 dbname='d' user='u'";
        assert_eq!(database("postgresql://u@[::1]/d"), wanted);
    }

    #[test]
    fn what_cannot_be_used_is_named_without_its_password() {
        for truth in
            ["hunter2", "postgres://u:hunter2@h", "postgres://h/d", "postgres://u:hunter2%0A@h/d"]
        {
            let failure = settings(truth, 7000, MODE).unwrap_err().to_string();
            assert!(failure.contains("SESSION_STORE_POSTGRES_URL"), "{failure}");
            assert!(!failure.contains("hunter2"), "{failure}");
        }
    }
}
