//! The Redis family: alone, as a Cluster of six, and under three sentinels. None of them saves
//! anything.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::book::Home;
use super::docker::Wish;
use super::install::{Program, Wanted, answers, claim, find, free_port, is_open, server};
use super::process::Running;
use super::{Addresses, valkey};
use crate::cli::Failure;

const SERVER: Wanted =
    Wanted { program: "redis-server", package: "redis-server redis-sentinel", elsewhere: "" };
const IMAGE: &str = "redis:8";
/// What the sentinels call the master.
const MASTER: &str = "mymaster";
const PATIENCE: Duration = Duration::from_secs(20);

/// One server of the family.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) running: Running,
    pub(crate) port: u16,
}

impl Node {
    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// What it answers to a command.
    fn said(&self, words: &[&str]) -> Result<String, Failure> {
        match &self.running {
            Running::Process(_) => said(self.port, words),
            Running::Container(container) => {
                let port = self.port.to_string();
                container.run(&[&["redis-cli", "-p", &port], words].concat())
            }
        }
    }
}

pub(super) fn start(home: &Home, _others: &Addresses) -> Result<String, Failure> {
    alone(home, server(home, IMAGE, SERVER.program, program)?)
}

pub(super) fn start_valkey(home: &Home, _others: &Addresses) -> Result<String, Failure> {
    alone(home, server(home, "valkey/valkey:8", "valkey-server", valkey::program)?)
}

fn alone(home: &Home, program: Program) -> Result<String, Failure> {
    let mut family = Family::new(home, program, vec![free_port()?]);
    family.node(&[]).map(|node| node.url())
}

pub(super) fn start_cluster(home: &Home, _others: &Addresses) -> Result<String, Failure> {
    let nodes = cluster(home, server(home, IMAGE, SERVER.program, program)?, Nerves::Steady)?;
    Ok(line(&nodes))
}

pub(super) fn start_sentinels(home: &Home, _others: &Addresses) -> Result<String, Failure> {
    let (_, sentinels) =
        sentinels(home, server(home, IMAGE, SERVER.program, program)?, Nerves::Steady)?;
    Ok(format!("{}#{MASTER}", line(&sentinels)))
}

fn line(nodes: &[Node]) -> String {
    let urls: Vec<_> = nodes.iter().map(Node::url).collect();
    urls.join(",")
}

/// Where the server is; installed if need be.
pub(crate) fn program() -> Result<PathBuf, Failure> {
    find(&SERVER)
}

/// Settings of every server, on an address of its own.
fn settings(port: u16, address: &str) -> Vec<String> {
    let port = port.to_string();
    let words = ["--port", &port, "--bind", address, "--save", "", "--appendonly", "no"];
    let words = words.into_iter().chain(["--repl-diskless-sync-delay", "0"]);
    words.map(str::to_owned).collect()
}

/// One server of this machine, on a port, with more settings (`--name`, `value`).
pub(crate) fn launch(
    program: &Path,
    home: &Home,
    port: u16,
    more: &[&str],
) -> Result<Node, Failure> {
    let folder = subfolder(home, port)?;
    let mut command = Command::new(program);
    command.args(settings(port, "127.0.0.1")).args(more).arg("--dir").arg(&folder);
    run(home, command, &folder, port)
}

fn subfolder(home: &Home, port: u16) -> Result<PathBuf, Failure> {
    let folder = home.folder.join(port.to_string());
    fs::create_dir_all(&folder).map_err(|error| Failure::io("redis", &error))?;
    Ok(folder)
}

/// Starts a process of the family and waits until it listens.
fn run(home: &Home, mut command: Command, folder: &Path, port: u16) -> Result<Node, Failure> {
    let log = folder.join("log");
    command.current_dir(folder).stdin(Stdio::null()).stderr(Stdio::null());
    command.stdout(File::create(&log).map_err(|error| Failure::io("redis", &error))?);
    let running = home.start(command, &log, PATIENCE, || is_open(port))?;
    Ok(Node { running, port })
}

/// Servers that are started together, on ports that were chosen together: containers share the
/// network of the first one, so that each finds the others where their clients do.
struct Family<'a> {
    home: &'a Home,
    program: Program,
    ports: Vec<u16>,
    count: usize,
    network: Option<String>,
}

impl<'a> Family<'a> {
    fn new(home: &'a Home, program: Program, ports: Vec<u16>) -> Self {
        Self { home, program, ports, count: 0, network: None }
    }

    fn port(&mut self) -> Result<u16, Failure> {
        let port = self.ports.get(self.count).copied();
        self.count += 1;
        port.ok_or_else(|| Failure::new("redis: more servers than ports"))
    }

    /// The next one.
    fn node(&mut self, more: &[&str]) -> Result<Node, Failure> {
        let port = self.port()?;
        let (image, program) = match &self.program {
            Program::Here(program) => return launch(program, self.home, port, more),
            Program::Image(image, program) => (*image, *program),
        };
        let mut command = vec![program.to_owned()];
        command.extend(settings(port, "0.0.0.0"));
        command.extend(["--protected-mode", "no"].map(str::to_owned));
        command.extend(more.iter().map(|word| (*word).to_owned()));
        self.contain(image, command, port)
    }

    /// The next one, a sentinel.
    fn sentinel(&mut self, leader: &str, nerves: Nerves) -> Result<Node, Failure> {
        let port = self.port()?;
        let rules = format!(
            "port {port}\nsentinel monitor {MASTER} {leader} 2\n\
             sentinel down-after-milliseconds {MASTER} {}\n\
             sentinel failover-timeout {MASTER} 3000\nsentinel parallel-syncs {MASTER} 1\n",
            nerves.or_steady("500")
        );
        match self.program.clone() {
            Program::Here(program) => {
                let folder = subfolder(self.home, port)?;
                let conf = folder.join("sentinel.conf");
                let text = format!("{rules}bind 127.0.0.1\ndir {}\n", folder.display());
                fs::write(&conf, text).map_err(|error| Failure::io("sentinel", &error))?;
                let mut command = Command::new(program);
                command.arg(&conf).arg("--sentinel");
                run(self.home, command, &folder, port)
            }
            Program::Image(image, program) => {
                let text = format!("{rules}bind 0.0.0.0\nprotected-mode no\n");
                // It writes into its configuration what it learns.
                let write = format!(
                    "printf %s \"$0\" > sentinel.conf && exec {program} sentinel.conf --sentinel"
                );
                let command = vec!["sh".to_owned(), "-c".to_owned(), write, text];
                self.contain(image, command, port)
            }
        }
    }

    fn contain(&mut self, image: &str, command: Vec<String>, port: u16) -> Result<Node, Failure> {
        let mut wish = Wish { image, command, network: self.network.clone(), ..Wish::default() };
        if wish.network.is_none() {
            wish.ports = self.ports.iter().map(|port| (*port, *port)).collect();
        }
        let is_ready = || answers(port, b"PING\r\n", b"+PONG");
        let container = self.home.contain(&wish, PATIENCE, is_ready)?;
        self.network.get_or_insert_with(|| container.network());
        Ok(Node { running: Running::Container(container), port })
    }
}

/// When servers take each other for dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nerves {
    /// Soon, for whoever kills some of them.
    Thin,
    /// Late, so that a machine with a lot to do makes nobody take over in the middle of a test.
    Steady,
}

impl Nerves {
    /// In milliseconds: what a killer wants, or long.
    fn or_steady(self, thin: &'static str) -> &'static str {
        match self {
            Self::Thin => thin,
            Self::Steady => "20000",
        }
    }
}

/// Three masters, then a replica of each, when all of them agree.
pub(crate) fn cluster(home: &Home, program: Program, nerves: Nerves) -> Result<Vec<Node>, Failure> {
    let settings = [
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        nerves.or_steady("1000"),
        "--cluster-replica-validity-factor",
        "0",
    ];
    let mut family = Family::new(home, program, ports(6, cluster_port)?);
    let nodes = (0..6).map(|_| family.node(&settings)).collect::<Result<Vec<_>, _>>()?;
    let addresses: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let mut words = vec!["--cluster", "create"];
    words.extend(addresses.iter().map(String::as_str));
    words.extend(["--cluster-replicas", "1", "--cluster-yes"]);
    nodes[0].said(&words)?;
    for node in &nodes {
        until("a Cluster that serves all slots", || {
            node.said(&["cluster", "info"]).is_ok_and(|info| info.contains("cluster_state:ok"))
        })?;
    }
    // Which of them are masters is for redis-cli to decide; all must be in step.
    for node in &nodes {
        until("replicas in step", || {
            node.said(&["info", "replication"]).is_ok_and(|info| {
                info.contains("master_link_status:up") || info.contains("connected_slaves:1")
            })
        })?;
    }
    Ok(nodes)
}

/// As many different ports.
fn ports(count: usize, port: impl Fn() -> Result<u16, Failure>) -> Result<Vec<u16>, Failure> {
    let mut ports = Vec::new();
    while ports.len() < count {
        let port = port()?;
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    Ok(ports)
}

/// A port whose bus is free too: it listens 10 000 above.
pub(crate) fn cluster_port() -> Result<u16, Failure> {
    loop {
        let port = free_port()?;
        if port <= 55_000 && !is_open(port + 10_000) && claim(port + 10_000) {
            return Ok(port);
        }
    }
}

/// A master with two replicas, and three sentinels who know them.
pub(crate) fn sentinels(
    home: &Home,
    program: Program,
    nerves: Nerves,
) -> Result<(Vec<Node>, Vec<Node>), Failure> {
    let mut family = Family::new(home, program, ports(6, free_port)?);
    let mut data = vec![family.node(&[])?];
    let leader = format!("127.0.0.1 {}", data[0].port);
    for _ in 0..2 {
        data.push(family.node(&["--replicaof", &leader])?);
    }
    until("a master with two replicas", || {
        data[0].said(&["info", "replication"]).is_ok_and(|info| info.contains("connected_slaves:2"))
    })?;
    let sentinels =
        (0..3).map(|_| family.sentinel(&leader, nerves)).collect::<Result<Vec<_>, _>>()?;
    for sentinel in &sentinels {
        until("three sentinels that know each other", || {
            let about = sentinel.said(&["sentinel", "master", MASTER]).unwrap_or_default();
            let lines: Vec<&str> = about.lines().collect();
            let is = |name: &str, value: &str| lines.windows(2).any(|pair| pair == [name, value]);
            is("num-other-sentinels", "2") && is("num-slaves", "2") && is("flags", "master")
        })?;
    }
    Ok((data, sentinels))
}

/// Which of `data` most of the sentinels take for the master, and which does so itself.
pub(crate) fn chosen(sentinels: &[Node], data: &[Node]) -> Option<Node> {
    let named = |sentinel: &Node| {
        let answer = sentinel.said(&["sentinel", "get-master-addr-by-name", MASTER]).ok()?;
        answer.lines().last()?.parse::<u16>().ok()
    };
    let named: Vec<u16> = sentinels.iter().filter_map(named).collect();
    let has_most = |node: &&Node| {
        named.iter().filter(|port| **port == node.port).count() * 2 > sentinels.len()
    };
    data.iter().find(has_most).filter(|node| leads(node)).cloned()
}

/// Whether it takes itself for a master.
pub(crate) fn leads(node: &Node) -> bool {
    node.said(&["role"]).is_ok_and(|role| role.starts_with("master"))
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
