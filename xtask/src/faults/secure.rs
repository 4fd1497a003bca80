//! TLS to both servers, with a certificate that is trusted and with one that is not.

use std::path::Path;
use std::process::{Command, Stdio};

use session_store::ErrorKind;
use session_store::postgres::{PostgresConfig, PostgresStore};
use session_store::redis::{Client, RedisCache};

use super::node::{Node, Outcome, cache_at, said};
use super::private::Private;
use super::{BUSIEST, CLIENTS, World, ensure, until};
use crate::servers::install::{Wanted, find, free_port};
use crate::servers::{postgres, redis};

const OPENSSL: Wanted = Wanted { program: "openssl", package: "openssl", elsewhere: "" };

/// A certificate that signed itself, for `localhost`, and its key.
fn certificate(folder: &Path, name: &str) -> Outcome<(String, String)> {
    let path = |end: &str| folder.join(format!("{name}.{end}")).display().to_string();
    let (certificate, key) = (path("crt"), path("key"));
    let mut command = Command::new(find(&OPENSSL).map_err(said)?);
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    command.args(["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", &key]);
    command.args(["-addext", "subjectAltName=DNS:localhost", "-out", &certificate]);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    let done = command.stdin(Stdio::null()).output().map_err(said)?;
    ensure(done.status.success(), &String::from_utf8_lossy(&done.stderr))?;
    Ok((certificate, key))
}

pub(super) async fn certificates_are_checked(_: &World) -> Outcome<String> {
    let server = Private::new()?;
    let (certificate, key) = certificate(&server.home.folder, "own")?;
    let (stranger, _) = self::certificate(&server.home.folder, "other")?;
    let truth = database(&server, &certificate, &key).await?;
    let trusting =
        |file: &str| PostgresConfig::new(format!("{truth}?sslmode=verify-full&sslrootcert={file}"));
    let refused = PostgresStore::connect(&trusting(&stranger)).await.err();
    let refused = refused.ok_or("Postgres: a strange certificate was accepted")?;
    let is_named = matches!(refused.kind(), ErrorKind::Configuration { .. });
    ensure(
        is_named && refused.to_string().contains("TLS"),
        &format!("Postgres: {refused} {:?}", std::error::Error::source(&refused)),
    )?;

    let port = free_port().map_err(said)?.to_string();
    let settings = ["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"];
    let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key];
    let all: Vec<&str> =
        settings.into_iter().chain(files).chain(["--tls-ca-cert-file", &certificate]).collect();
    let program = redis::program().map_err(said)?;
    let port = port.parse().map_err(said)?;
    redis::launch(&program, &server.home, port, &all).map_err(said)?;
    for (client, name) in CLIENTS {
        for login in ["", ":hunter2@"] {
            let line = format!("redis://{login}localhost:{port}");
            speaks_plainly(&line, client).await.map_err(|what| format!("{name}: {what}"))?;
        }
        let line = format!("rediss://localhost:{port}");
        let mut config = cache_at(&line, client)?;
        for ca in [None, Some(&stranger)] {
            config.ca_pem = ca.map(std::fs::read).transpose().map_err(said)?;
            let refused = RedisCache::connect(&config).await.err();
            let refused = refused.ok_or("Redis: a strange certificate was accepted")?;
            let is_named = matches!(refused.kind(), ErrorKind::Configuration { .. });
            let advises = refused.to_string().contains("ca_pem");
            let source = std::error::Error::source(&refused);
            ensure(is_named && advises, &format!("Redis, {name}: {refused} {source:?}"))?;
        }
        config.ca_pem = Some(std::fs::read(&certificate).map_err(said)?);
        let node = Node::with(&trusting(&certificate), &config).await?;
        if name == "redis" {
            node.register().await?;
        }
        let token = node.log_in_warm().await?;
        ensure(node.accepts(&token).await, "not accepted")?;
    }
    Ok("Postgres and Redis, both clients: strange certificates are refused by name".to_owned())
}

/// Without TLS, where it is spoken: the server hangs up without a word, as one that dies does, so that
/// this may pass, and yet is named.
async fn speaks_plainly(line: &str, client: Client) -> Outcome {
    let config = cache_at(line, client)?;
    let refused = RedisCache::connect(&config).await.err().ok_or("a TLS port spoke plainly")?;
    let source = std::error::Error::source(&refused).map(ToString::to_string).unwrap_or_default();
    let is_named = source.contains("expect TLS (rediss://)");
    ensure(
        refused.kind() == &ErrorKind::Unavailable && is_named,
        &format!("without TLS: {:?} {refused}: {source}", refused.kind()),
    )
}

/// A Postgres that lets in whom `rules` says; its port.
fn ruled(server: &Private, rules: &str) -> Outcome<u16> {
    let (_, port) = server
        .postgres(|folder| std::fs::write(folder.join("data/pg_hba.conf"), rules).map_err(said))?;
    Ok(port)
}

/// The Postgres that the tests share trusts everybody; this one asks.
pub(super) async fn passwords_are_checked(_: &World) -> Outcome<String> {
    let server = Private::new()?;
    let text = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    let port = ruled(&server, text)?;
    let shell = session_store::postgres::PostgresHarness::new(postgres::url(port));
    let role = "CREATE ROLE shop LOGIN PASSWORD 'hunter2'; CREATE SCHEMA shop AUTHORIZATION shop";
    shell.run(role.to_owned()).await.map_err(said)?;
    let of = |word: &str| {
        let mut config = PostgresConfig::new(postgres::url(port).replace("postgres@", word));
        config.schema = Some("shop".to_owned());
        config
    };
    for word in ["shop:hunter3@", "shop@", "stranger:hunter2@"] {
        let config = of(word);
        let refused = PostgresStore::connect(&config).await.err().ok_or("a wrong password did")?;
        let is_named = matches!(refused.kind(), ErrorKind::Configuration { what }
            if what.contains("password"));
        let source = std::error::Error::source(&refused).map(ToString::to_string);
        let shown = format!("{refused} {refused:?} {config:?} {source:?}");
        ensure(is_named && !shown.contains("hunter"), &shown)?;
    }
    PostgresStore::connect(&of("shop:hunter2@")).await.map_err(said)?;
    Ok("a wrong one, none, and a stranger's are refused without a word of it".to_owned())
}

/// A server that lets nobody in without TLS does not mean the password.
pub(super) async fn a_demand_for_tls_is_named(_: &World) -> Outcome<String> {
    let server = Private::new()?;
    let port = ruled(&server, "hostssl all all 127.0.0.1/32 trust\n")?;
    for mode in ["disable", "prefer"] {
        let url = postgres::url(port).replace("postgres@", "postgres:hunter2@");
        let config = PostgresConfig::new(format!("{url}?sslmode={mode}"));
        let refused = PostgresStore::connect(&config).await.err().ok_or("let in without TLS")?;
        let is_named = matches!(refused.kind(), ErrorKind::Configuration { what }
            if what.contains("TLS") && what.contains("sslmode") && !what.contains("password"));
        let source = std::error::Error::source(&refused).map(ToString::to_string);
        let shown = format!("{refused} {refused:?} {source:?}");
        ensure(is_named && !shown.contains("hunter"), &shown)?;
    }
    Ok("named with what to do, not as a wrong password".to_owned())
}

/// A Postgres that speaks TLS; its address.
async fn database(server: &Private, certificate: &str, key: &str) -> Outcome<String> {
    let (_, port) = server.postgres(|folder| {
        // The server reads its key only if it is its own and nobody else's.
        let data = folder.join("data");
        for (from, to) in [(certificate, "server.crt"), (key, "server.key")] {
            std::fs::copy(from, data.join(to)).map_err(said)?;
            let mut command = Command::new("chown");
            command.arg("--reference").arg(&data).arg(data.join(to));
            command.status().map_err(said)?;
            Command::new("chmod").arg("600").arg(data.join(to)).status().map_err(said)?;
        }
        Ok(())
    })?;
    let shell = session_store::postgres::PostgresHarness::new(postgres::url(port));
    shell.run("ALTER SYSTEM SET ssl = on".to_owned()).await.map_err(said)?;
    shell.run("SELECT pg_reload_conf()".to_owned()).await.map_err(said)?;
    let is_on = "DO $$ BEGIN ASSERT current_setting('ssl') = 'on'; END $$";
    let speaks = async || shell.run(is_on.to_owned()).await.is_ok();
    until(BUSIEST, "a Postgres that speaks TLS", speaks).await?;
    Ok(postgres::url(port).replace("127.0.0.1", "localhost"))
}
