//! The crate `fred`: one client per connection, without its reconnecting and its retries: a command
//! that fred sends again after a lost reply has run twice.

use std::sync::Arc;

use async_trait::async_trait;
use fred::clients::Client;
use fred::error::{Error as FredError, ErrorKind};
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::config::{
    Config, ConnectionConfig, PerformanceConfig, ServerConfig, TcpConfig, UnresponsiveConfig,
};
use fred::types::{ClusterHash, ConnectHandle, CustomCommand, RespVersion, Value};

use super::{Command, Connection, Driver, Reply, Target, foreign, sorted};
use crate::error::{Fault, LOGIN};

#[derive(Debug)]
pub(super) struct FredDriver;

#[async_trait]
impl Driver for FredDriver {
    async fn open(&self, target: &Target) -> Result<Box<dyn Connection>, Fault> {
        let client = client(target)?;
        let mut ready = client.reconnect_rx();
        let mut task = Task(client.connect());
        tokio::select! {
            biased;
            opened = ready.recv() => {
                opened.map_err(|_| sorted(target, "the connection was given up"))?;
            }
            ended = &mut task.0 => {
                let error = match ended {
                    Ok(Err(error)) => error,
                    _ => FredError::new(ErrorKind::Canceled, "the connection was given up"),
                };
                return Err(at_open(target, &error));
            }
        }
        Ok(Box::new(Line { client, task, target: Arc::new(target.clone()) }))
    }
}

fn client(target: &Target) -> Result<Client, Fault> {
    let (user, password) = match &target.credentials {
        None => (None, None),
        Some(login) => (login.user.clone(), Some(login.password.to_string())),
    };
    let config = Config {
        fail_fast: true,
        server: ServerConfig::new_centralized(target.node.host.as_str(), target.node.port),
        username: user,
        password,
        version: RespVersion::RESP2,
        database: u8::try_from(target.database).ok().filter(|database| *database != 0),
        ..Config::default()
    };
    if target.database > u32::from(u8::MAX) {
        return Err(super::no_database(target));
    }
    let connection = ConnectionConfig {
        connection_timeout: target.connect_timeout,
        internal_command_timeout: target.connect_timeout,
        max_command_attempts: 1,
        max_redirections: 0,
        unresponsive: UnresponsiveConfig { max_timeout: None, ..UnresponsiveConfig::default() },
        tcp: tcp(target),
        ..ConnectionConfig::default()
    };
    #[cfg(feature = "rustls")]
    let config = secured(config, target)?;
    // No reconnect policy: a lost connection ends the client.
    Ok(Client::new(config, Some(PerformanceConfig::default()), Some(connection), None))
}

fn tcp(target: &Target) -> TcpConfig {
    TcpConfig {
        nodelay: Some(target.nodelay),
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        user_timeout: Some(target.user_timeout),
        ..TcpConfig::default()
    }
}

#[cfg(feature = "rustls")]
fn secured(config: Config, target: &Target) -> Result<Config, Fault> {
    let Some(tls) = &target.tls else {
        return Ok(config);
    };
    let tls = crate::tls::client_config(tls)?;
    Ok(Config { tls: Some(tls.into()), ..config })
}

/// What drives a client; it ends with the connection.
struct Task(ConnectHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Line {
    client: Client,
    task: Task,
    target: Arc<Target>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "fred({})", self.target.node)
    }
}

#[async_trait]
impl Connection for Line {
    async fn one(&self, command: Command<'_>) -> Result<Reply, Fault> {
        let (name, args) = packed(command);
        let answer: Result<Value, _> = self.client.custom(name, args).await;
        self.read(answer)
    }

    async fn many(&self, commands: &[Command<'_>]) -> Result<Vec<Result<Reply, Fault>>, Fault> {
        let pipeline = self.client.pipeline();
        for command in commands {
            let (name, args) = packed(*command);
            let _: Value =
                pipeline.custom(name, args).await.map_err(|error| self.in_flight(&error))?;
        }
        let answers = pipeline.try_all::<Value>().await;
        let answers = answers.into_iter().map(|answer| self.read(answer)).collect();
        super::whole(answers, commands.len(), &self.target)
    }

    fn is_closed(&self) -> bool {
        self.task.0.is_finished()
    }
}

impl Line {
    fn read(&self, answer: Result<Value, FredError>) -> Result<Reply, Fault> {
        let reply = |value| self.read(Ok(value));
        Ok(match answer.map_err(|error| self.in_flight(&error))? {
            Value::Null => Reply::Nil,
            Value::Integer(number) => Reply::Number(number),
            Value::Bytes(bytes) => Reply::Bytes(bytes.to_vec()),
            Value::String(text) => Reply::Bytes(text.as_bytes().to_vec()),
            Value::Array(values) => {
                Reply::List(values.into_iter().map(reply).collect::<Result<_, _>>()?)
            }
            _ => return Err(foreign(&self.target)),
        })
    }

    /// An error of a command that was sent. What the server said is kept word for word.
    fn in_flight(&self, error: &FredError) -> Fault {
        match error.kind() {
            ErrorKind::IO | ErrorKind::Canceled | ErrorKind::Routing | ErrorKind::Timeout => {
                Fault::Lost(format!("{}: the connection was lost", self.target.node))
            }
            ErrorKind::Protocol | ErrorKind::Parse => foreign(&self.target),
            _ => Fault::answered(error.details()),
        }
    }
}

fn packed(command: Command<'_>) -> (CustomCommand, Vec<Value>) {
    let name = CustomCommand::new_static(command.name, ClusterHash::FirstKey, false);
    let args = command.args.iter().map(|arg| Value::Bytes(arg.to_vec().into()));
    (name, args.collect())
}

/// An error of the attempt to connect. What a server says there may repeat a password.
fn at_open(target: &Target, error: &FredError) -> Fault {
    match error.kind() {
        ErrorKind::Auth => Fault::misconfigured(LOGIN, &target.node),
        ErrorKind::Protocol | ErrorKind::Parse => foreign(target),
        ErrorKind::Timeout => sorted(target, "no answer in time"),
        ErrorKind::IO => sorted(target, error.details()),
        _ => sorted_answer(target, error.details()),
    }
}

fn sorted_answer(target: &Target, text: &str) -> Fault {
    match text.split(' ').next() {
        Some("ERR") if text.contains("DB index") => super::no_database(target),
        Some("ERR") if text.contains("AUTH") => Fault::misconfigured(LOGIN, &target.node),
        Some(code) if code.chars().all(|one| one.is_ascii_uppercase()) => {
            Fault::answered(&format!("{code} at login"))
        }
        _ => sorted(target, text),
    }
}
