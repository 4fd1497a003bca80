//! Six readers on two processes, one who logs out, one who evicts: nobody may be let in whose logout
//! has returned `Immediate`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use session_store::postgres::PostgresConfig;
use session_store::redis::Client;
use session_store::{Reason, Source, Token, Visibility};

use super::node::{Node, Outcome, said};
use super::private::Private;
use super::{BUSIEST, World, ensure, until};
use crate::cli::{Failure, Verdict, say};
use crate::servers::redis;

const READERS: usize = 3;
/// How many ended sessions are still asked for.
const REMEMBERED: usize = 3;

pub(super) async fn stress_redis(on: &World) -> Outcome<String> {
    alone(on, Client::Redis).await
}

pub(super) async fn stress_fred(on: &World) -> Outcome<String> {
    alone(on, Client::Fred).await
}

async fn alone(on: &World, client: Client) -> Outcome<String> {
    let server = Private::new()?;
    let redis = server.redis(&[])?;
    stress(on, &redis.url(), client).await
}

pub(super) async fn stress_cluster_redis(on: &World) -> Outcome<String> {
    stress(on, &on.cluster, Client::Redis).await
}

pub(super) async fn stress_cluster_fred(on: &World) -> Outcome<String> {
    stress(on, &on.cluster, Client::Fred).await
}

/// The sessions that are asked for: the open one, and some that have ended.
#[derive(Debug, Default)]
struct Board {
    open: RwLock<Option<Arc<Token>>>,
    ended: RwLock<Vec<Arc<Token>>>,
    is_over: AtomicBool,
    lookups: AtomicU64,
    hits: AtomicU64,
    accepted: AtomicU64,
    evicted: AtomicU64,
}

impl Board {
    fn open(&self, token: Arc<Token>) {
        *self.open.write() = Some(token);
    }

    /// Called once the logout has returned.
    fn end(&self, token: Arc<Token>) {
        let mut ended = self.ended.write();
        ended.push(token);
        if ended.len() > REMEMBERED {
            ended.remove(0);
        }
    }

    async fn read(&self, node: &Node, mut number: usize) {
        while !self.is_over.load(Ordering::Relaxed) {
            number = number.wrapping_mul(31).wrapping_add(7);
            let ended = {
                let ended = self.ended.read();
                let wanted = number % 10 < 3;
                ended.get(number / 10 % ended.len().max(1)).filter(|_| wanted).cloned()
            };
            let is_ended = ended.is_some();
            let Some(token) = ended.or_else(|| self.open.read().clone()) else {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            // The open one may end while it is looked at; one that had ended before may not be live.
            if let Some(live) = node.app.authenticate(&token).await.live() {
                self.accepted.fetch_add(u64::from(is_ended), Ordering::Relaxed);
                let is_hit = live.source == Source::Secondary;
                self.hits.fetch_add(u64::from(is_hit), Ordering::Relaxed);
            }
            self.lookups.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn evictions(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    fn counts(&self) -> [u64; 3] {
        [&self.lookups, &self.hits, &self.accepted].map(|count| count.load(Ordering::Relaxed))
    }
}

/// Ends the readers and the evictor however their case ends: a runtime waits for what blocks.
struct Stop(Arc<Board>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

async fn stress(on: &World, line: &str, client: Client) -> Outcome<String> {
    let truth = on.truth().await?;
    let node = Arc::new(Node::start(&truth, line, client).await?);
    node.register().await?;
    let mut other = Other::start(&truth, line, client).await?;
    let board = Arc::new(Board::default());
    let stop = Stop(Arc::clone(&board));
    let mut tasks = Vec::new();
    for number in 0..READERS {
        let (node, board) = (Arc::clone(&node), Arc::clone(&board));
        tasks.push(tokio::spawn(async move { board.read(&node, number).await }));
    }
    let evictor = tokio::task::spawn_blocking({
        let (line, board) = (line.to_owned(), Arc::clone(&board));
        move || evict(&line, &board)
    });
    let (mut logouts, mut immediate) = (0_u64, 0_u64);
    let end = Instant::now() + on.stress;
    // A busy machine gets longer to do what can be judged.
    let is_due = |immediate| {
        let has_worked = board.counts()[1] > 100 && immediate > 20 && board.evictions() > 20;
        Instant::now() < end || (!has_worked && Instant::now() < end + BUSIEST)
    };
    while is_due(immediate) {
        let token = Arc::new(node.log_in().await?);
        other.say(&format!("open {}", &*token.expose()))?;
        board.open(Arc::clone(&token));
        tokio::time::sleep(Duration::from_millis(logouts * 7 % 11)).await;
        let done = node.app.admin_revoke(token.id(), Reason::Logout).await.map_err(said)?;
        logouts += 1;
        if done.visibility == Visibility::Immediate {
            immediate += 1;
            other.say(&format!("ended {}", &*token.expose()))?;
            board.end(token);
        }
    }
    drop(stop);
    for task in tasks {
        task.await.map_err(said)?;
    }
    evictor.await.map_err(said)?;
    let evicted = board.evictions();
    let own = board.counts();
    let others = other.finish().await?;
    let [lookups, hits, accepted] = [0, 1, 2].map(|at| own[at] + others[at]);
    let figures = format!(
        "{lookups} lookups ({} in the other process, {hits} hits), {logouts} logouts ({immediate} \
         immediate), {evicted} evictions: {accepted} accepted",
        others[0]
    );
    ensure(accepted == 0, &figures)?;
    let has_worked = others[0] > 100 && hits > 100 && immediate > 20 && evicted > 20;
    ensure(has_worked, &format!("hardly anything happened: {figures}"))?;
    Ok(figures)
}

/// Takes away whatever there is, every few milliseconds.
fn evict(line: &str, board: &Board) {
    let ports: Vec<u16> = line
        .split(',')
        .filter_map(|url| url.rsplit_once(':')?.1.parse().ok())
        .filter(|port| redis::said(*port, &["role"]).is_ok_and(|role| role.starts_with("master")))
        .collect();
    while !board.is_over.load(Ordering::Relaxed) {
        for port in &ports {
            let Ok(key) = redis::said(*port, &["randomkey"]) else { continue };
            if !key.is_empty() && redis::said(*port, &["del", &key]).is_ok_and(|gone| gone == "1") {
                board.evicted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The other process.
struct Other {
    child: Child,
    orders: Option<ChildStdin>,
    says: Option<BufReader<ChildStdout>>,
}

/// What the other process says when it can work.
const READY: &str = "ready";

impl Other {
    /// One that is ready.
    async fn start(truth: &PostgresConfig, line: &str, client: Client) -> Outcome<Self> {
        // `cargo test` may have replaced the file; this is what runs.
        let itself = Path::new("/proc/self/exe");
        let other = || std::env::current_exe().map_err(said);
        let program = if itself.exists() { itself.to_owned() } else { other()? };
        let name = if client == Client::Fred { "fred" } else { "redis" };
        let schema = truth.schema.clone().unwrap_or_default();
        let mut command = Command::new(program);
        command.args(["faults", "child", &truth.url, &schema, line, name]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(said)?;
        let (orders, output) = (child.stdin.take(), child.stdout.take());
        let mut other = Self { child, orders, says: None };
        let mut says = BufReader::new(output.ok_or("the other process says nothing")?);
        // Whoever waits for a pipe can't be called off, and need not: it ends with the other process, and
        // that one with the case.
        let first = tokio::task::spawn_blocking(move || {
            let mut first = String::new();
            says.read_line(&mut first).map(|_| (first, says))
        });
        let (first, says) = first.await.map_err(said)?.map_err(said)?;
        ensure(first.trim_end() == READY, "the other process does not start")?;
        other.says = Some(says);
        Ok(other)
    }

    fn say(&mut self, order: &str) -> Outcome {
        let orders = self.orders.as_mut().ok_or("the other process takes no orders")?;
        writeln!(orders, "{order}").map_err(said)
    }

    /// What it counted.
    async fn finish(mut self) -> Outcome<[u64; 3]> {
        drop(self.orders.take());
        // Only one that has ended is read from: whoever waits for a pipe can't be called off.
        let ends = async || matches!(self.child.try_wait(), Ok(Some(_)));
        until(BUSIEST, "the other process ends", ends).await?;
        let says = self.says.take().ok_or("the other process says nothing")?;
        let mut counts = Vec::new();
        for line in says.lines() {
            let line = line.map_err(said)?;
            counts.extend(line.split(' ').filter_map(|word| word.parse::<u64>().ok()));
        }
        self.child.wait().map_err(said)?;
        counts.try_into().map_err(|_| "the other process broke".to_owned())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It has ended already, or its case has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the other process does: it reads orders until there are no more, then says what it counted.
pub(super) fn child(arguments: &[String]) -> Result<Verdict, Failure> {
    let [url, schema, line, client] = arguments else {
        return Err(Failure::new("child: URL SCHEMA SERVERS CLIENT"));
    };
    let client = if client == "fred" { Client::Fred } else { Client::Redis };
    let mut truth = PostgresConfig::new(url);
    truth.schema = Some(schema.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::io("tokio", &error))?;
    let board = Arc::new(Board::default());
    let stop = Stop(Arc::clone(&board));
    let node = runtime.block_on(Node::start(&truth, line, client)).map_err(Failure::new)?;
    let node = Arc::new(node);
    let readers: Vec<_> = (0..READERS)
        .map(|number| {
            let (node, board) = (Arc::clone(&node), Arc::clone(&board));
            runtime.spawn(async move { board.read(&node, number).await })
        })
        .collect();
    say(READY);
    for order in std::io::stdin().lock().lines() {
        let order = order.map_err(|error| Failure::io("orders", &error))?;
        let Some((verb, token)) = order.split_once(' ') else { continue };
        let token = Token::parse(token).ok_or_else(|| Failure::new("an order without a token"))?;
        match verb {
            "open" => board.open(Arc::new(token)),
            _ => board.end(Arc::new(token)),
        }
    }
    drop(stop);
    for reader in readers {
        runtime.block_on(reader).map_err(|error| Failure::new(error.to_string()))?;
    }
    say(&board.counts().map(|count| count.to_string()).join(" "));
    Ok(Verdict::Held)
}
