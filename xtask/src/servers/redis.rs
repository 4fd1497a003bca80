//! The Redis family: alone, as a Cluster of six, and under three sentinels. None of them saves
//! anything.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::install::{Wanted, find, free_port};
use super::{Addresses, Started, valkey};
use crate::cli::Failure;

const SERVER: Wanted =
    Wanted { program: "redis-server", package: "redis-server redis-sentinel", elsewhere: "" };
/// What the sentinels call the master.
const MASTER: &str = "mymaster";
const PATIENCE: Duration = Duration::from_secs(20);

/// One process of the family.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) pid: u32,
    pub(crate) port: u16,
}

impl Node {
    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

pub(super) fn start(folder: &Path, _others: &Addresses) -> Result<Started, Failure> {
    Ok(started(&[launch(&program()?, folder, free_port()?, &[])?], ""))
}

pub(super) fn start_valkey(folder: &Path, _others: &Addresses) -> Result<Started, Failure> {
    Ok(started(&[launch(&valkey::program()?, folder, free_port()?, &[])?], ""))
}

pub(super) fn start_cluster(folder: &Path, _others: &Addresses) -> Result<Started, Failure> {
    Ok(started(&cluster(folder)?, ""))
}

pub(super) fn start_sentinels(folder: &Path, _others: &Addresses) -> Result<Started, Failure> {
    let (data, sentinels) = sentinels(folder)?;
    let Started { url, mut pids } = started(&sentinels, &format!("#{MASTER}"));
    pids.extend(data.iter().map(|node| node.pid));
    Ok(Started { url, pids })
}

fn started(nodes: &[Node], end: &str) -> Started {
    let urls: Vec<_> = nodes.iter().map(Node::url).collect();
    Started {
        url: format!("{}{end}", urls.join(",")),
        pids: nodes.iter().map(|node| node.pid).collect(),
    }
}

/// Where the server is; installed if need be.
pub(crate) fn program() -> Result<PathBuf, Failure> {
    find(&SERVER)
}

/// One server in a folder, on a port, with more settings (`--name`, `value`).
pub(crate) fn launch(
    program: &Path,
    folder: &Path,
    port: u16,
    more: &[&str],
) -> Result<Node, Failure> {
    let home = folder.join(port.to_string());
    fs::create_dir_all(&home).map_err(|error| Failure::io("redis", &error))?;
    let mut command = Command::new(program);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
    command.args(["--appendonly", "no", "--repl-diskless-sync-delay", "0"]).args(more);
    command.arg("--dir").arg(&home);
    run(command, &home, port)
}

/// Starts a process of the family and waits until it listens.
fn run(mut command: Command, home: &Path, port: u16) -> Result<Node, Failure> {
    let failed = |error: std::io::Error| Failure::io("redis", &error);
    let log = home.join("log");
    command.current_dir(home).stdin(Stdio::null()).stderr(Stdio::null());
    command.stdout(File::create(&log).map_err(failed)?);
    let mut child = command.spawn().map_err(failed)?;
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if child.try_wait().map_err(failed)?.is_some() || Instant::now() > end {
            let said = fs::read_to_string(&log).unwrap_or_default();
            return Err(Failure::new(format!("redis does not start:\n{said}")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = child.id();
    // Whoever kills it must not leave a zombie that looks alive.
    std::thread::spawn(move || child.wait());
    Ok(Node { pid, port })
}

/// Three masters, then a replica of each, when all of them agree.
pub(crate) fn cluster(folder: &Path) -> Result<Vec<Node>, Failure> {
    let program = program()?;
    let settings = [
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        "1000",
        "--cluster-replica-validity-factor",
        "0",
    ];
    let mut nodes = Vec::new();
    while nodes.len() < 6 {
        nodes.push(launch(&program, folder, cluster_port()?, &settings)?);
    }
    let addresses: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let mut words = vec!["--cluster", "create"];
    words.extend(addresses.iter().map(String::as_str));
    words.extend(["--cluster-replicas", "1", "--cluster-yes"]);
    said(nodes[0].port, &words)?;
    for node in &nodes {
        until("a Cluster that serves all slots", || {
            said(node.port, &["cluster", "info"])
                .is_ok_and(|info| info.contains("cluster_state:ok"))
        })?;
    }
    // Which of them are masters is for redis-cli to decide; all must be in step.
    for node in &nodes {
        until("replicas in step", || {
            said(node.port, &["info", "replication"]).is_ok_and(|info| {
                info.contains("master_link_status:up") || info.contains("connected_slaves:1")
            })
        })?;
    }
    Ok(nodes)
}

/// A port whose bus is free too: it listens 10 000 above.
pub(crate) fn cluster_port() -> Result<u16, Failure> {
    loop {
        let port = free_port()?;
        if port <= 55_000 && TcpStream::connect(("127.0.0.1", port + 10_000)).is_err() {
            return Ok(port);
        }
    }
}

/// A master with two replicas, and three sentinels who know them.
pub(crate) fn sentinels(folder: &Path) -> Result<(Vec<Node>, Vec<Node>), Failure> {
    let program = program()?;
    let master = launch(&program, folder, free_port()?, &[])?;
    let leader = format!("127.0.0.1 {}", master.port);
    let mut data = vec![master.clone()];
    for _ in 0..2 {
        data.push(launch(&program, folder, free_port()?, &["--replicaof", &leader])?);
    }
    until("a master with two replicas", || {
        said(master.port, &["info", "replication"])
            .is_ok_and(|info| info.contains("connected_slaves:2"))
    })?;
    let mut sentinels = Vec::new();
    for _ in 0..3 {
        let port = free_port()?;
        let home = folder.join(port.to_string());
        let failed = |error: std::io::Error| Failure::io("sentinel", &error);
        fs::create_dir_all(&home).map_err(failed)?;
        let conf = home.join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {MASTER} {leader} 2\n\
             sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 3000\n\
             sentinel parallel-syncs {MASTER} 1\n",
            home.display()
        );
        fs::write(&conf, text).map_err(failed)?;
        let mut command = Command::new(&program);
        command.arg(&conf).arg("--sentinel");
        sentinels.push(run(command, &home, port)?);
    }
    for sentinel in &sentinels {
        until("three sentinels that know each other", || {
            let about = said(sentinel.port, &["sentinel", "master", MASTER]).unwrap_or_default();
            let lines: Vec<&str> = about.lines().collect();
            let is = |name: &str, value: &str| lines.windows(2).any(|pair| pair == [name, value]);
            is("num-other-sentinels", "2") && is("num-slaves", "2") && is("flags", "master")
        })?;
    }
    Ok((data, sentinels))
}

/// What the server on `port` answers to a command.
pub(crate) fn said(port: u16, words: &[&str]) -> Result<String, Failure> {
    let cli = find(&Wanted { program: "redis-cli", package: "redis-tools", elsewhere: "" })?;
    let mut command = Command::new(cli);
    command.args(["-p", &port.to_string()]).args(words).stdin(Stdio::null());
    let output = command.output().map_err(|error| Failure::io("redis-cli", &error))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(Failure::new(format!("redis-cli {}: {text}", words.join(" "))))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), Failure> {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() > end {
            return Err(Failure::new(format!("redis: no {what} in {} s", PATIENCE.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
