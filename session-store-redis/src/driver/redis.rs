//! The crate `redis`: one multiplexed connection. The library's own deadlines are off, ours apply.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, Pipeline, RedisConnectionInfo, RedisError, Value,
};

use super::{Command, Connection, Driver, Reply, Target, foreign, sorted};
use crate::error::{Fault, LOGIN};

#[derive(Debug)]
pub(super) struct RedisDriver;

#[async_trait]
impl Driver for RedisDriver {
    async fn open(&self, target: &Target) -> Result<Box<dyn Connection>, Fault> {
        let client = client(target).map_err(|error| at_open(target, &error))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(target.connect_timeout))
            .set_response_timeout(None);
        let opened = client.get_multiplexed_async_connection_with_config(&config).await;
        let connection = opened.map_err(|error| at_open(target, &error))?;
        let line =
            Line { connection, target: Arc::new(target.clone()), closed: AtomicBool::new(false) };
        line.log_in().await?;
        Ok(Box::new(line))
    }
}

fn client(target: &Target) -> Result<Client, RedisError> {
    let (host, port) = (target.node.host.clone(), target.node.port);
    let address = match target.tls {
        None => ConnectionAddr::Tcp(host, port),
        Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
    };
    // The library takes every refusal of a login for a wrong password, and every one of a database
    // for a missing one: `Line::log_in` does both.
    let login = RedisConnectionInfo::default().set_skip_set_lib_name();
    let tcp = TcpSettings::default().set_nodelay(target.nodelay);
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let tcp = tcp.set_user_timeout(target.user_timeout);
    let info = address.into_connection_info()?.set_tcp_settings(tcp).set_redis_settings(login);
    built(info, target)
}

#[cfg(feature = "rustls")]
fn built(info: ConnectionInfo, target: &Target) -> Result<Client, RedisError> {
    let Some(tls) = &target.tls else {
        return Client::open(info);
    };
    crate::tls::install_provider();
    let certificates = redis::TlsCertificates { client_tls: None, root_cert: tls.ca_pem.clone() };
    Client::build_with_tls(info, certificates)
}

#[cfg(not(feature = "rustls"))]
fn built(info: ConnectionInfo, _target: &Target) -> Result<Client, RedisError> {
    Client::open(info)
}

struct Line {
    connection: MultiplexedConnection,
    target: Arc<Target>,
    closed: AtomicBool,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "redis({})", self.target.node)
    }
}

#[async_trait]
impl Connection for Line {
    async fn one(&self, command: Command<'_>) -> Result<Reply, Fault> {
        let mut connection = self.connection.clone();
        let answer = connection.send_packed_command(&packed(command)).await;
        answer.map_err(|error| self.in_flight(&error)).and_then(|value| self.read(value))
    }

    async fn many(&self, commands: &[Command<'_>]) -> Result<Vec<Result<Reply, Fault>>, Fault> {
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(packed(*command));
        }
        let mut connection = self.connection.clone();
        let answer = connection.send_packed_commands(&pipeline, 0, commands.len()).await;
        let values = answer.map_err(|error| self.in_flight(&error))?;
        let answers = values.into_iter().map(|value| self.read(value)).collect();
        super::whole(answers, commands.len(), &self.target)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

impl Line {
    /// Logs in and selects the database.
    async fn log_in(&self) -> Result<(), Fault> {
        if let Some(credentials) = &self.target.credentials {
            let user = credentials.user.as_ref().map(String::as_bytes);
            let words: Vec<_> = user.into_iter().chain([credentials.password.as_bytes()]).collect();
            let answer = self.one(Command::new("AUTH", &words)).await;
            answer.map_err(|fault| refused(&self.target, fault))?;
        }
        if self.target.database != 0 {
            let database = self.target.database.to_string();
            let answer = self.one(Command::new("SELECT", &[database.as_bytes()])).await;
            answer.map_err(|fault| refused(&self.target, fault))?;
        }
        Ok(())
    }

    fn read(&self, value: Value) -> Result<Reply, Fault> {
        Ok(match value {
            Value::Nil => Reply::Nil,
            Value::Int(number) => Reply::Number(number),
            Value::BulkString(bytes) => Reply::Bytes(bytes),
            Value::SimpleString(text) => Reply::Bytes(text.into_bytes()),
            Value::Okay => Reply::Bytes(b"OK".to_vec()),
            Value::Array(values) => Reply::List(
                values.into_iter().map(|value| self.read(value)).collect::<Result<_, _>>()?,
            ),
            Value::ServerError(error) => {
                return Err(Fault::answered(&spelled(error.code(), error.details())));
            }
            _ => return Err(foreign(&self.target)),
        })
    }

    /// An error of a command that was sent.
    fn in_flight(&self, error: &RedisError) -> Fault {
        match error.kind() {
            ErrorKind::Io => {
                self.closed.store(true, Ordering::Relaxed);
                Fault::Lost(format!("{}: the connection was lost", self.target.node))
            }
            ErrorKind::Parse => {
                self.closed.store(true, Ordering::Relaxed);
                foreign(&self.target)
            }
            _ => match error.code() {
                Some(code) => Fault::answered(&spelled(code, error.detail())),
                // Whether it was sent is not said.
                None => Fault::Lost(format!("{}: {}", self.target.node, error.category())),
            },
        }
    }
}

fn spelled(code: &str, details: Option<&str>) -> String {
    details.map_or_else(|| code.to_owned(), |details| format!("{code} {details}"))
}

fn packed(command: Command<'_>) -> Cmd {
    let mut packed = redis::cmd(command.name);
    for arg in command.args {
        packed.arg(*arg);
    }
    packed
}

/// A login, or a database, that was not granted. What a server says there may repeat a password.
fn refused(target: &Target, fault: Fault) -> Fault {
    let (code, text) = match &fault {
        Fault::Answered { code, text } => (code.as_str(), text.to_ascii_lowercase()),
        Fault::Lost(_) => return sorted(target, "it closed the connection at login"),
        _ => return fault,
    };
    let has = |word: &str| text.contains(word);
    match code {
        "NOAUTH" | "WRONGPASS" => Fault::misconfigured(LOGIN, &target.node),
        "ERR" if has("auth") || has("password") => Fault::misconfigured(LOGIN, &target.node),
        "ERR" if has("db index") || has("select") => super::no_database(target),
        _ => Fault::answered(&format!("{code} at login")),
    }
}

/// An error of the attempt to connect.
fn at_open(target: &Target, error: &RedisError) -> Fault {
    match error.kind() {
        ErrorKind::Parse => foreign(target),
        ErrorKind::InvalidClientConfig => {
            let what = "the client refuses the address; rediss:// needs the feature `rustls`, and ca_pem \
                        is PEM";
            Fault::misconfigured(what, &format_args!("{}: {}", target.node, error.category()))
        }
        _ => sorted(target, &error.to_string()),
    }
}
