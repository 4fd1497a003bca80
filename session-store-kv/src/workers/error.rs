//! What Workers KV's errors mean to a caller. There are no codes: the text is all there is.

use std::fmt::Display;

use session_store_core::{Error, ErrorKind};
use worker::kv::KvError;

use super::row::MAX_RECORD;
use crate::said::Said;

/// The name that errors and reports use.
pub(crate) const NAME: &str = "workers-kv";

/// The longest key, in bytes of UTF-8.
pub(crate) const MAX_KEY: usize = 512;

/// What was asked of KV. After a write that got no answer nobody knows whether it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Read,
    Write,
}

/// Refuses what KV would refuse, before it is asked.
pub(crate) fn check_key(key: &str) -> Result<&str, Error> {
    if key.len() > MAX_KEY {
        return Err(Error::new(long_key(), NAME));
    }
    if matches!(key, "" | "." | "..") {
        return Err(Error::invalid(NAME, "cache key: empty, `.` or `..`"));
    }
    Ok(key)
}

/// Sorts an error of the binding by what the caller can do.
pub(crate) fn classify(asked: Asked, source: &KvError) -> Error {
    let said = Said::new(source);
    Error::new(kind_of(asked, said.text()), NAME).caused_by(said)
}

/// The binding called `name` is not there, or is something else.
pub(crate) fn no_binding(name: &str, source: &impl Display) -> Error {
    let what = format!(
        "the Worker has no KV binding called {name:?}; add it to kv_namespaces in wrangler.jsonc, \
         or set `binding` to the name it has there"
    );
    Error::configuration(NAME, what).caused_by(Said::new(source))
}

fn long_key() -> ErrorKind {
    ErrorKind::TooLarge { what: "cache key (shorten key_prefix)", limit: MAX_KEY }
}

fn kind_of(asked: Asked, text: &str) -> ErrorKind {
    let has = |part: &str| text.contains(part);
    if has("failed: 413") {
        return ErrorKind::TooLarge { what: "cache record", limit: MAX_RECORD };
    }
    if has("failed: 414") {
        return long_key();
    }
    if has("failed: 400") {
        return ErrorKind::InvalidInput { what: "Workers KV refuses the call as malformed".into() };
    }
    if has("failed: 401") || has("failed: 403") {
        let what = "Workers KV denies access; check the namespace of the binding";
        return ErrorKind::Configuration { what: what.into() };
    }
    // One write per second and key, a thousand operations per invocation, or an overload: KV has
    // answered, so nothing happened.
    if has("failed: ") || has("Too many") || asked == Asked::Read {
        return ErrorKind::Unavailable;
    }
    ErrorKind::Timeout
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_refused_before_the_call() {
        assert!(check_key(&"k".repeat(512)).is_ok());
        let limit = long_key();
        let error = check_key(&"k".repeat(513)).unwrap_err();
        assert_eq!(error.kind(), &limit);
        let said = error.to_string();
        assert!(said.contains("shorten key_prefix") && said.contains("512"), "{said}");
        // Bytes count, not characters.
        assert_eq!(check_key(&"\u{e9}".repeat(257)).unwrap_err().kind(), &limit);
        for forbidden in ["", ".", ".."] {
            let error = check_key(forbidden).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{forbidden:?}");
        }
        assert!(check_key("...").is_ok());
    }

    #[test]
    fn each_status_has_its_kind() {
        let kind = |text: &str| kind_of(Asked::Write, text);
        let large = "JsValue(Error: KV PUT failed: 413 Value length of 26214401 exceeds limit";
        assert_eq!(kind(large), ErrorKind::TooLarge { what: "cache record", limit: MAX_RECORD });
        let long =
            "KV GET failed: 414 UTF-8 encoded length of 513 exceeds key length limit of 512.";
        assert_eq!(kind(long), long_key());
        assert_eq!(kind("KV PUT failed: 429 Too Many Requests"), ErrorKind::Unavailable);
        assert_eq!(kind("KV DELETE failed: 503 Service Unavailable"), ErrorKind::Unavailable);
        assert_eq!(
            kind("Too many API requests by single worker invocation."),
            ErrorKind::Unavailable
        );
        assert!(matches!(kind("KV PUT failed: 400 Invalid"), ErrorKind::InvalidInput { .. }));
        assert!(matches!(kind("KV PUT failed: 403 Forbidden"), ErrorKind::Configuration { .. }));
    }

    #[test]
    fn a_write_without_an_answer_may_have_happened() {
        assert_eq!(kind_of(Asked::Write, "Network connection lost."), ErrorKind::Timeout);
        assert_eq!(kind_of(Asked::Read, "Network connection lost."), ErrorKind::Unavailable);
    }
}
