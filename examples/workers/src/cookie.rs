//! The cookie that carries the token. `__Host-` makes browsers refuse it from anywhere else.

use std::time::Duration;

use session_store::{Session, Timestamp, Token};
use worker::Request;

const NAME: &str = "__Host-session";
const RULES: &str = "Path=/; Secure; HttpOnly; SameSite=Lax";

/// What the client sent.
pub(crate) enum Sent {
    Nothing,
    /// What is no token, or two of them.
    Malformed,
    Token(Token),
}

pub(crate) fn sent(request: &Request) -> Sent {
    let header = request.headers().get("cookie").ok().flatten();
    header.map_or(Sent::Nothing, |header| parse(&header))
}

fn parse(header: &str) -> Sent {
    let named = |pair: &'_ str| {
        let (name, value) = pair.trim().split_once('=').unwrap_or((pair.trim(), ""));
        (name == NAME).then(|| value.to_owned())
    };
    let mut own = header.split(';').filter_map(named);
    let Some(value) = own.next() else { return Sent::Nothing };
    // Two of them are a trick of somebody's.
    let token = if own.next().is_some() { None } else { Token::parse(&value) };
    token.map_or(Sent::Malformed, Sent::Token)
}

/// How long the client is to keep the cookie: as long as the session may last at all, since idleness is
/// for the server to judge.
pub(crate) fn life(session: &Session, now: Timestamp) -> Duration {
    session.absolute_expires_at.unwrap_or(session.expires_at).since(now)
}

pub(crate) fn set(token: &Token, life: Duration) -> String {
    format!("{NAME}={}; Max-Age={}; {RULES}", token.expose().as_str(), life.as_secs())
}

pub(crate) fn cleared() -> String {
    format!("{NAME}=; Max-Age=0; {RULES}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read_and_two_are_refused() {
        let token = Token::generate(Timestamp::EPOCH).unwrap();
        let whole = set(&token, Duration::from_mins(1));
        let pair = whole.split(';').next().unwrap();
        assert!(whole.contains("Max-Age=60; Path=/; Secure; HttpOnly; SameSite=Lax"));
        let Sent::Token(read) = parse(&format!("theme=dark; {pair}")) else { panic!("not read") };
        assert_eq!(read.expose().as_str(), token.expose().as_str());
        let twice = format!("{pair}; {pair}");
        for wrong in [&twice, "__Host-session", "__Host-session=", &pair[..40]] {
            assert!(matches!(parse(wrong), Sent::Malformed), "{wrong:?}");
        }
        for other in ["", "session=x", "theme=dark", "__Host-sessions=x"] {
            assert!(matches!(parse(other), Sent::Nothing), "{other:?}");
        }
    }
}
