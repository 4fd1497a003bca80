//! A Cluster over TLS whose certificates hold names and no addresses.

use std::path::Path;
use std::process::{Command, Stdio};

use super::again::Phoenix;
use super::private::free_port;
use super::*;

/// A certificate that signed itself, for `localhost`, and its key.
fn certificate(folder: &Path) -> (String, String) {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("own.crt"), path("own.key"));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]);
    command.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    command.args(["-keyout", &key, "-out", &certificate]);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let status = status.unwrap_or_else(|error| panic!("openssl: {error}; install openssl"));
    assert!(status.success(), "openssl makes no certificate");
    (certificate, key)
}

#[tokio::test]
async fn nodes_are_called_by_the_names_that_they_announce() {
    let folder = std::env::temp_dir().join(unique("session-store-named"));
    std::fs::create_dir_all(&folder).unwrap();
    let (certificate, key_file) = certificate(&folder);
    let free = free_port();
    let port = free.to_string();
    let server = Phoenix::start(&[
        "--cluster-enabled",
        "yes",
        "--cluster-announce-ip",
        "127.0.0.1",
        "--cluster-announce-hostname",
        "localhost",
        "--tls-cluster",
        "yes",
        "--tls-port",
        &port,
        "--tls-auth-clients",
        "no",
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key_file,
        "--tls-ca-cert-file",
        &certificate,
    ])
    .await;
    let mut shell = shell(&server.url()).await;
    let () = say(&mut shell, "CLUSTER ADDSLOTSRANGE 0 16383").await;
    until("all slots are served", async || {
        let about: String = say(&mut shell, "CLUSTER INFO").await;
        about.contains("cluster_state:ok")
    })
    .await;
    for client in CLIENTS {
        let mut config =
            config(&format!("rediss://localhost:{free},rediss://localhost:{free}"), client);
        config.ca_pem = Some(std::fs::read(&certificate).unwrap());
        let cache = RedisCache::connect(&config).await.unwrap();
        let key = key("named");
        put(&cache, &key, &value("1")).await;
        assert_eq!(cache.get(&key).await.unwrap(), Some(value("1")));
        cache.remove(std::slice::from_ref(&key)).await.unwrap();
        assert_eq!((cache.get(&key).await.unwrap(), cache.epoch()), (None, 0));
    }
    let _ = std::fs::remove_dir_all(&folder);
}
