//! What a client library must do: open a connection to one server, and send commands over it.
//!
//! Nothing here retries, reconnects or looks for another server: `link.rs` and `cluster.rs` do, the
//! same for every library.

#[cfg(feature = "fred")]
mod fred;
#[cfg(feature = "redis")]
mod redis;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::config::{Client, RedisConfig};
use crate::error::Fault;
use crate::url::{Credentials, Node};

/// One server, and how to talk to it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) node: Node,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) database: u32,
    pub(crate) tls: Option<Tls>,
    pub(crate) connect_timeout: Duration,
    pub(crate) user_timeout: Duration,
    pub(crate) nodelay: bool,
}

impl Target {
    /// What else may be wrong when nobody answers: a server that speaks no TLS waits for the end of a
    /// line that never comes.
    pub(crate) fn tls_hint(&self) -> &'static str {
        if self.tls.is_some() { "; does it speak TLS (rediss://)?" } else { "" }
    }
}

/// TLS, and whom to trust.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    /// Certificates as PEM; `None` is those of the system.
    #[cfg(feature = "rustls")]
    pub(crate) ca_pem: Option<Vec<u8>>,
}

impl Tls {
    #[cfg_attr(not(feature = "rustls"), expect(unused_variables, reason = "TLS is refused"))]
    pub(crate) fn of(config: &RedisConfig) -> Self {
        Self {
            #[cfg(feature = "rustls")]
            ca_pem: config.ca_pem.clone(),
        }
    }
}

/// One command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command<'a> {
    pub(crate) name: &'static str,
    pub(crate) args: &'a [&'a [u8]],
}

impl<'a> Command<'a> {
    pub(crate) fn new(name: &'static str, args: &'a [&'a [u8]]) -> Self {
        Self { name, args }
    }
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Nothing is there.
    Nil,
    /// A number.
    Number(i64),
    /// A string of either kind.
    Bytes(Vec<u8>),
    /// Several replies.
    List(Vec<Reply>),
}

impl Reply {
    /// The text of a string.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

/// Opens connections.
#[async_trait]
pub(crate) trait Driver: fmt::Debug + Send + Sync {
    /// Connects, logs in and selects the database.
    async fn open(&self, target: &Target) -> Result<Box<dyn Connection>, Fault>;
}

/// A connection to one server, shared by concurrent callers. Dropping it closes it.
#[async_trait]
pub(crate) trait Connection: fmt::Debug + Send + Sync {
    /// Sends one command.
    async fn one(&self, command: Command<'_>) -> Result<Reply, Fault>;

    /// Sends several commands with nothing in between; one reply each.
    async fn many(&self, commands: &[Command<'_>]) -> Result<Vec<Result<Reply, Fault>>, Fault>;

    /// Whether it is known to be of no use any more.
    fn is_closed(&self) -> bool;
}

type Make = fn() -> Box<dyn Driver>;

/// The drivers that were built.
const ALL: &[(Client, Make)] = &[
    #[cfg(feature = "redis")]
    (Client::Redis, || Box::new(redis::RedisDriver)),
    #[cfg(feature = "fred")]
    (Client::Fred, || Box::new(fred::FredDriver)),
];

/// The driver of `client`, if it was built.
pub(crate) fn of(client: Client) -> Option<Box<dyn Driver>> {
    ALL.iter().find(|(name, _)| *name == client).map(|(_, make)| make())
}

/// What else may be wrong when the other side hangs up: a server that expects TLS says nothing.
pub(crate) const PLAIN_HINT: &str = "is it Redis, and does it expect TLS (rediss://)?";

/// What a library said about a connection, sorted by what the operator can do. Libraries tell these
/// apart by text alone.
fn sorted(target: &Target, text: &str) -> Fault {
    let node = &target.node;
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["certificate", "Certificate", "UnknownIssuer"]) {
        let what = "its certificate is not accepted; give the one that signed it as ca_pem";
        return Fault::misconfigured(what, &format_args!("{node}: {text}"));
    }
    if has(&["corrupt message", "InvalidContentType", "InvalidMessage", "handshake"]) {
        let what = "what answers does not speak TLS; use redis:// instead of rediss://";
        return Fault::misconfigured(what, node);
    }
    if has(&["refused"]) {
        return Fault::Unreachable(format!("{node}: connection refused; does the server run?"));
    }
    let is_over = has(&["closed", "reset", "Reset", "end of file", "EOF", "Eof"]);
    if is_over && target.tls.is_none() {
        return Fault::Unreachable(format!("{node}: {text}; {PLAIN_HINT}"));
    }
    Fault::Unreachable(format!("{node}: {text}{}", target.tls_hint()))
}

/// What is no reply of any Redis.
fn foreign(target: &Target) -> Fault {
    let what = "what answers is not Redis; if it expects TLS, use rediss://";
    Fault::misconfigured(what, &target.node)
}

/// The server has fewer databases than the address names.
fn no_database(target: &Target) -> Fault {
    let Target { node, database, .. } = target;
    Fault::misconfigured(format!("there is no database {database}"), node)
}

/// One answer for each command. A library that was told of a failure may return a single answer for
/// all of them: then that is what went wrong, for all.
fn whole(
    answers: Vec<Result<Reply, Fault>>,
    count: usize,
    target: &Target,
) -> Result<Vec<Result<Reply, Fault>>, Fault> {
    if answers.len() == count {
        return Ok(answers);
    }
    let lost = || Fault::Lost(format!("{}: not every command was answered", target.node));
    Err(answers.into_iter().find_map(Result::err).unwrap_or_else(lost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_answers_than_commands_are_none() {
        let target = Target {
            node: Node { host: "cache".to_owned(), port: 6379 },
            credentials: None,
            database: 0,
            tls: None,
            connect_timeout: Duration::from_secs(1),
            user_timeout: Duration::from_secs(1),
            nodelay: true,
        };
        let one = || Ok(Reply::Number(1));
        assert_eq!(whole(vec![one(), one()], 2, &target), Ok(vec![one(), one()]));
        assert!(matches!(whole(vec![one()], 2, &target), Err(Fault::Lost(_))));
        let silent = Fault::Silent("no answer".to_owned());
        assert_eq!(whole(vec![Err(silent.clone())], 2, &target), Err(silent));
    }
}
