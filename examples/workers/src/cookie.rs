//! The cookie that carries the token. `__Host-` makes browsers refuse it from anywhere else.

use std::time::Duration;

use session_store::Token;
use worker::Request;

const NAME: &str = "__Host-session";
const RULES: &str = "Path=/; Secure; HttpOnly; SameSite=Lax";

/// The token that the client sent; what is no token is none.
pub(crate) fn token(request: &Request) -> Option<Token> {
    let header = request.headers().get("cookie").ok().flatten()?;
    parse(&header)
}

fn parse(header: &str) -> Option<Token> {
    let pairs = header.split(';').filter_map(|pair| pair.trim().split_once('='));
    let mut own = pairs.filter(|(name, _)| *name == NAME);
    let (_, value) = own.next()?;
    // Two of them are a trick of somebody's.
    if own.next().is_some() { None } else { Token::parse(value) }
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
    use session_store::Timestamp;

    #[test]
    fn what_is_set_is_read_and_two_are_refused() {
        let token = Token::generate(Timestamp::EPOCH).unwrap();
        let whole = set(&token, Duration::from_mins(1));
        let pair = whole.split(';').next().unwrap();
        assert!(whole.contains("Max-Age=60; Path=/; Secure; HttpOnly; SameSite=Lax"));
        let read = parse(&format!("theme=dark; {pair}")).unwrap();
        assert_eq!(read.expose().as_str(), token.expose().as_str());
        assert!(parse(&format!("{pair}; {pair}")).is_none());
        for wrong in ["", "__Host-session", "__Host-session=", "session=x", &pair[..40]] {
            assert!(parse(wrong).is_none(), "{wrong:?}");
        }
    }
}
