//! Addresses: `redis://[user[:password]@]host[:port][/database]`, and `rediss://` for TLS.

use std::fmt;

use session_store_core::{Error, Result};
use zeroize::Zeroizing;

use crate::error::NAME;

/// Where a server listens, without any secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Node {
    /// Reads `host:port`, as servers print it. An empty host stands for `host`.
    pub(crate) fn parse(text: &str, host: &str) -> Option<Self> {
        let (name, port) = text.rsplit_once(':')?;
        // Some servers append their bus port or their name.
        let port = port.split(['@', ',']).next()?.parse().ok()?;
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let name = if matches!(name, "" | "?") { host } else { name };
        Some(Self { host: name.to_owned(), port })
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A name and a password, which `Debug` hides.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub(crate) user: Option<String>,
    pub(crate) password: Zeroizing<String>,
}

impl Credentials {
    /// The password of `user`; without a user, that of the user `default`.
    pub fn new(user: Option<String>, password: impl Into<String>) -> Self {
        Self { user, password: Zeroizing::new(password.into()) }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// One server, how to log in there, and whether to speak TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub(crate) node: Node,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) database: u32,
    pub(crate) is_tls: bool,
}

impl Address {
    /// Reads an address. `Configuration` names the part that is wrong, and never the password.
    pub fn parse(text: &str) -> Result<Self> {
        let (is_tls, rest) = match text.trim().split_once("://") {
            Some(("redis" | "valkey", rest)) => (false, rest),
            Some(("rediss" | "valkeys", rest)) => (true, rest),
            _ => return Err(wrong("begin it with redis:// or rediss://")),
        };
        // A password may hold `@` and `/` only in percent encoding, a host neither.
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
        if database.contains('?') || place.contains('?') {
            return Err(wrong("options after `?` are not read; set them in RedisConfig"));
        }
        let database = match database {
            "" => 0,
            digits => digits.parse().map_err(|_| wrong("the database is a number"))?,
        };
        Ok(Self {
            node: node(place)?,
            credentials: login.map(login_of).transpose()?,
            database,
            is_tls,
        })
    }
}

fn wrong(what: &'static str) -> Error {
    Error::configuration(NAME, format!("address of a server: {what}"))
}

fn node(place: &str) -> Result<Node> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(|| wrong("`[` without `]`"))?;
            (host, rest.strip_prefix(':'))
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    if host.is_empty() {
        return Err(wrong("the host is missing"));
    }
    let port = match port {
        None => 6379,
        Some(digits) => digits.parse().map_err(|_| wrong("the port is a number up to 65535"))?,
    };
    Ok(Node { host: decoded(host)?, port })
}

fn login_of(login: &str) -> Result<Credentials> {
    let (user, password) = login.split_once(':').ok_or_else(|| {
        wrong("what stands before `@` is `user:password`, or `:password` for the default user")
    })?;
    let user = decoded(user)?;
    let password = decoded(password)?;
    Ok(Credentials::new((!user.is_empty()).then_some(user), password))
}

/// Takes percent encoding away.
fn decoded(text: &str) -> Result<String> {
    let bad = || wrong("`%` is followed by two hexadecimal digits");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = (digit().ok_or_else(bad)?, digit().ok_or_else(bad)?);
        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
    }
    String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn every_part_may_be_left_out_but_the_host() {
        let short = parsed("redis://cache");
        assert_eq!(short.node.to_string(), "cache:6379");
        assert_eq!((short.credentials, short.database, short.is_tls), (None, 0, false));
        let long = parsed("rediss://ada:p%40ss%2Fword@[::1]:6380/3");
        assert_eq!(long.node.to_string(), "[::1]:6380");
        assert_eq!((long.database, long.is_tls), (3, true));
        let login = long.credentials.unwrap();
        assert_eq!((login.user.as_deref(), login.password.as_str()), (Some("ada"), "p@ss/word"));
        assert_eq!(parsed("redis://:secret@h").credentials.unwrap().user, None);
    }

    #[test]
    fn a_wrong_address_is_named_without_its_password() {
        let wrong = [
            "cache:6379",
            "http://cache",
            "redis://",
            "redis://:hunter2@",
            "redis://u:hunter2@h:port",
            "redis://u:hunter2@h:99999",
            "redis://u:hunter2@h/zero",
            "redis://u:hunter2@h/0?timeout=1",
            "redis://u:hunter2%2@h",
            "redis://hunter2@h",
            "redis://[::1",
        ];
        for text in wrong {
            let error = Address::parse(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{text}: {error:?}");
            assert!(error.to_string().contains("address of a server"), "{error}");
        }
        assert!(!format!("{:?}", parsed("redis://u:hunter2@h")).contains("hunter2"));
    }

    #[test]
    fn servers_print_nodes_in_several_ways() {
        let node = |text| Node::parse(text, "own").map(|node| node.to_string());
        assert_eq!(node("10.0.0.1:7000").as_deref(), Some("10.0.0.1:7000"));
        assert_eq!(node(":7000").as_deref(), Some("own:7000"));
        assert_eq!(node("::1:7000").as_deref(), Some("[::1]:7000"));
        assert_eq!(node("10.0.0.1:7000@17000,name").as_deref(), Some("10.0.0.1:7000"));
        assert_eq!(node("nonsense"), None);
    }
}
