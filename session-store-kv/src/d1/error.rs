//! What D1's errors mean to a caller. There are no codes: the text is all there is.

use session_store_core::{Error, ErrorKind};

use crate::said::Said;

/// The name that errors and reports use.
pub(crate) const NAME: &str = "d1";

/// Why a guard aborts a batch, as the table `session_guard` numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The id is taken.
    Taken = 1,
    /// There is no such user.
    UnknownUser = 2,
    /// The login verified credentials that were changed since.
    StaleCredentials = 3,
    /// The user has as many sessions as the limit allows.
    TooMany = 4,
    /// The row is not what it was when it was read.
    Changed = 5,
}

/// What was asked of D1. After a write that got no answer nobody knows whether it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Read,
    Write,
}

/// An error of this back end that nothing else caused.
pub(crate) fn error(kind: ErrorKind) -> Error {
    Error::new(kind, NAME)
}

/// Something stored that can't be read back.
pub(crate) fn corrupt() -> Error {
    error(ErrorKind::Corrupt)
}

/// Sorts an error of the binding by what the caller can do.
pub(crate) fn classify(asked: Asked, source: &worker::Error) -> Error {
    let text = match source {
        worker::Error::D1(source) => {
            let source: &worker::js_sys::Error = source.as_ref();
            String::from(source.message())
        }
        source => source.to_string(),
    };
    unanswered(asked, &text)
}

/// Sorts what D1 said in place of an answer.
pub(crate) fn unanswered(asked: Asked, text: &str) -> Error {
    let said = Said::new(&text);
    error(kind_of(asked, said.text())).caused_by(said)
}

/// The binding called `name` is not there, or is something else.
pub(crate) fn no_binding(name: &str, source: &worker::Error) -> Error {
    let what = format!(
        "the Worker has no D1 binding called {name:?}; add it to d1_databases in wrangler.jsonc, \
         or set `binding` to the name it has there"
    );
    Error::configuration(NAME, what).caused_by(Said::new(source))
}

/// Whether the batch was aborted because the row is not what it was.
pub(crate) fn is_changed(error: &Error) -> bool {
    let cause = std::error::Error::source(error);
    cause.is_some_and(|cause| cause.to_string().contains("guard_changed"))
}

fn kind_of(asked: Asked, text: &str) -> ErrorKind {
    let has = |part: &str| text.contains(part);
    if has("guard_taken") || has("guard_changed") || has("UNIQUE constraint failed") {
        return ErrorKind::Conflict;
    }
    if has("guard_unknown_user") || has("FOREIGN KEY constraint failed") {
        return ErrorKind::UnknownUser;
    }
    if has("guard_stale_credentials") {
        return ErrorKind::StaleCredentials;
    }
    if has("guard_too_many") {
        return ErrorKind::TooManySessions;
    }
    if has("constraint failed") || has("SQLITE_CONSTRAINT") {
        return ErrorKind::InvalidInput { what: "a constraint of the schema refuses it".into() };
    }
    if let Some(permanent) = permanent(text) {
        return permanent;
    }
    if has("too big") || has("SQLITE_TOOBIG") {
        return ErrorKind::TooLarge { what: "row", limit: MAX_ROW_BYTES };
    }
    // It was refused before anything happened. A plan's day of reads and writes ends at midnight.
    let refused = ["overloaded", "Too many", "SQLITE_BUSY", "SQLITE_LOCKED", "daily", "free tier"];
    if refused.iter().any(|part| has(part)) || asked == Asked::Read {
        return ErrorKind::Unavailable;
    }
    ErrorKind::Timeout
}

/// What no repetition mends: somebody must.
fn permanent(text: &str) -> Option<ErrorKind> {
    let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    if has(&["no such table", "no such column", "has no column"]) {
        let what = "a table or column is missing; apply D1Store::migration_sql with \
                    `wrangler d1 migrations apply`, or call D1Store::migrate";
        return Some(ErrorKind::SchemaMismatch { what: what.into() });
    }
    if has(&["SQLITE_FULL", "is full", "maximum DB size", "storage limit"]) {
        let what = "the D1 database is full; remove what is not needed, shorten Policy::retention, \
                    or take a plan that allows more";
        return Some(ErrorKind::Configuration { what: what.into() });
    }
    if has(&["SQLITE_AUTH", "not authorized", "reserved for internal use", "prohibited"]) {
        let what = "D1 forbids it; check that table_prefix begins with no reserved name, and what \
                    the binding may do";
        return Some(ErrorKind::Configuration { what: what.into() });
    }
    if has(&["SQLITE_READONLY", "readonly database"]) {
        let what = "the D1 database can't be written; check what the binding may do";
        return Some(ErrorKind::Configuration { what: what.into() });
    }
    if has(&["SQLITE_CORRUPT", "SQLITE_NOTADB", "is malformed"]) {
        return Some(ErrorKind::Corrupt);
    }
    // Ours are correct where the tables are.
    if has(&["syntax error", "SQLITE_MISMATCH"]) {
        let what = "D1 does not understand a statement; compare the tables with \
                    D1Store::migration_sql";
        return Some(ErrorKind::SchemaMismatch { what: what.into() });
    }
    None
}

/// The largest row that D1 stores.
const MAX_ROW_BYTES: usize = 2_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> ErrorKind {
        kind_of(Asked::Write, text)
    }

    #[test]
    fn each_guard_has_its_kind() {
        let failed = |name: &str| {
            kind(&format!("D1_ERROR: CHECK constraint failed: {name}: SQLITE_CONSTRAINT"))
        };
        assert_eq!(failed("guard_taken"), ErrorKind::Conflict);
        assert_eq!(failed("guard_changed"), ErrorKind::Conflict);
        assert_eq!(failed("guard_unknown_user"), ErrorKind::UnknownUser);
        assert_eq!(failed("guard_stale_credentials"), ErrorKind::StaleCredentials);
        assert_eq!(failed("guard_too_many"), ErrorKind::TooManySessions);
        assert!(matches!(failed("length(id) = 32"), ErrorKind::InvalidInput { .. }));
    }

    #[test]
    fn what_the_operator_must_mend_says_how() {
        let ErrorKind::SchemaMismatch { what } = kind("D1_ERROR: no such table: sessions") else {
            panic!("another kind");
        };
        assert!(what.contains("migrations apply"));
    }

    #[test]
    fn what_no_repetition_mends_is_not_to_be_repeated() {
        let is_told = |text: &str, wanted: &str| {
            let error = unanswered(Asked::Write, text);
            assert!(!error.is_retryable(), "{text}");
            assert!(error.to_string().contains(wanted), "{error}");
            assert_eq!(error.kind(), unanswered(Asked::Read, text).kind());
        };
        for full in [
            "D1_ERROR: database or disk is full: SQLITE_FULL",
            "D1_ERROR: Exceeded maximum DB size.",
            "D1_ERROR: Your account has exceeded D1's maximum account storage limit",
        ] {
            is_told(full, "remove what is not needed");
        }
        for forbidden in [
            "D1_ERROR: not authorized: SQLITE_AUTH",
            "D1_ERROR: access to _cf_sessions is prohibited: SQLITE_AUTH",
            "D1_ERROR: object name reserved for internal use: sqlite_sessions: SQLITE_ERROR",
        ] {
            is_told(forbidden, "table_prefix");
        }
        is_told("D1_ERROR: attempt to write a readonly database: SQLITE_READONLY", "binding");
        is_told("D1_ERROR: near \"x\": syntax error at offset 0: SQLITE_ERROR", "migration_sql");
        is_told("D1_ERROR: table users has no column named x: SQLITE_ERROR", "migrations apply");
        assert_eq!(
            kind("D1_ERROR: database disk image is malformed: SQLITE_CORRUPT"),
            ErrorKind::Corrupt
        );
    }

    #[test]
    fn a_write_without_an_answer_may_have_happened() {
        let lost = "D1_ERROR: Network connection lost.";
        assert_eq!(kind(lost), ErrorKind::Timeout);
        assert_eq!(kind_of(Asked::Read, lost), ErrorKind::Unavailable);
        assert_eq!(kind("D1_ERROR: D1 DB is overloaded."), ErrorKind::Unavailable);
    }
}
