//! What Postgres' errors mean to a caller.

use std::borrow::Cow;
use std::fmt;

use session_store_core::{Error, ErrorKind};

/// The name that errors and reports use.
pub(crate) const NAME: &str = "postgres";

/// An error of this back end that nothing else caused.
pub(crate) fn error(kind: ErrorKind) -> Error {
    Error::new(kind, NAME)
}

const TLS: &str =
    "TLS failed; check sslmode in the URL, the certificate, and the crate's tls features";

/// Why a standby is refused.
pub(crate) const STANDBY: &str = "the server is a standby, which lags behind its primary: a session that \
     was ended would go on living there; use the address of the primary";

/// Sorts an error of the driver by what the caller can do.
pub(crate) fn classify(source: sqlx::Error) -> Error {
    let kind = classify_kind(&source);
    error(kind).caused_by(source)
}

fn classify_kind(source: &sqlx::Error) -> ErrorKind {
    match source {
        sqlx::Error::Database(told) => {
            let code = told.code();
            let code = code.as_deref().unwrap_or_default();
            refusal(code, told.message()).unwrap_or_else(|| kind_of(code, told.constraint()))
        }
        sqlx::Error::Configuration(_) | sqlx::Error::InvalidArgument(_) => {
            configuration("the URL can't be read; it looks like postgres://user@host:port/database")
        }
        sqlx::Error::Tls(_) => configuration(TLS),
        // rustls speaks through the socket it is wrapped in.
        sqlx::Error::Io(told) if told.kind() == std::io::ErrorKind::InvalidData => {
            configuration(TLS)
        }
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::TypeNotFound { .. } => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    }
}

/// The same for a statement or a commit after which something may be different: without an answer,
/// nobody knows.
pub(crate) fn classify_write(source: sqlx::Error) -> Error {
    let is_answered = match &source {
        // The server refuses, unless it says that it is going away.
        sqlx::Error::Database(told) => !told.code().is_some_and(|code| leaves_open(&code)),
        _ => false,
    };
    if is_answered { classify(source) } else { error(ErrorKind::Timeout).caused_by(source) }
}

/// Whether an SQLSTATE leaves open what became of the statement or the commit: the server goes away,
/// the connection is lost (08007: while the commit was under way), or it says so itself (40003).
fn leaves_open(code: &str) -> bool {
    code.starts_with("57P") || code.starts_with("08") || code == "40003"
}

/// A connection that could not be made. Another one would fail as well, so it is not asked for.
#[derive(Debug)]
struct Unmade(sqlx::Error);

impl fmt::Display for Unmade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no connection could be made")
    }
}

impl std::error::Error for Unmade {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Sorts an error of making a connection, or of waiting for one: nothing was sent over it.
pub(crate) fn classify_open(source: sqlx::Error) -> Error {
    let kind = classify_kind(&source);
    error(kind).caused_by(Unmade(source))
}

/// A connection led to a server that follows another one.
#[derive(Debug)]
struct Standby;

impl fmt::Display for Standby {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STANDBY)
    }
}

impl std::error::Error for Standby {}

/// A standby where the primary was once: it may be promoted any moment.
pub(crate) fn standby() -> Error {
    error(ErrorKind::Unavailable).caused_by(Standby)
}

fn configuration(what: impl Into<Cow<'static, str>>) -> ErrorKind {
    ErrorKind::Configuration { what: what.into() }
}

/// What is meant by a refusal whose SQLSTATE has several meanings, or doesn't say which of several
/// things it is about. Servers speak many languages; the words looked for are in all of them.
fn refusal(code: &str, message: &str) -> Option<ErrorKind> {
    match code {
        "28000" if message.contains("pg_hba.conf") => Some(configuration(
            "the server's pg_hba.conf lets nobody in from here as this user, with this database and \
             this encryption; if it demands TLS, set sslmode in the URL to require or more, and turn \
             on one of the crate's tls features",
        )),
        "3D000" => Some(configuration(format!("there is no such database: {message}"))),
        // It comes from poolers only, which speak English.
        "08P01" if message.contains("unsupported startup parameter") => {
            Some(configuration(format!(
                "a pooler between here and the server refuses a connection ({message}); add \
             extra_float_digits and options to its ignore_startup_parameters, and leave options out \
             of the URL, since they are ignored then"
            )))
        }
        _ => None,
    }
}

/// Sorts an SQLSTATE.
fn kind_of(code: &str, constraint: Option<&str>) -> ErrorKind {
    match code {
        "23505" => ErrorKind::Conflict,
        "23503" => ErrorKind::UnknownUser,
        "23514" | "23502" => ErrorKind::InvalidInput {
            what: format!("a constraint of the schema refuses it: {constraint:?}").into(),
        },
        "28P01" | "28000" => configuration("the server refuses the user or the password"),
        "42501" => configuration("the role lacks a right on the tables of this library"),
        "25006" => configuration("the server is read-only, a replica perhaps"),
        "42P01" | "42703" | "42883" | "3F000" => ErrorKind::SchemaMismatch {
            what: "a table, column, function or schema is missing".into(),
        },
        "54000" | "54001" | "53400" => ErrorKind::TooLarge { what: "row", limit: 1_000_000_000 },
        "57014" => ErrorKind::Timeout,
        _ => ErrorKind::Unavailable,
    }
}

/// Whether a connection that had been made was closed before anything was sent over it, or has been
/// meanwhile.
pub(crate) fn is_closed(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    match source.and_then(|source| source.downcast_ref::<sqlx::Error>()) {
        Some(sqlx::Error::Io(_)) => true,
        // Told to by an administrator, by the crash of another process, or by how long it was idle.
        Some(sqlx::Error::Database(told)) => {
            matches!(told.code().as_deref(), Some("57P01" | "57P02" | "57P05"))
        }
        _ => false,
    }
}

/// Whether what was sent is against the protocol. A server says so of no statement, but a pooler in
/// statement mode of every transaction.
pub(crate) fn is_forbidden(error: &Error) -> bool {
    said_by_server(error).is_some_and(|code| code == "08P01")
}

/// Whether somebody else held a lock for longer than was to be waited.
pub(crate) fn is_locked(error: &Error) -> bool {
    said_by_server(error).is_some_and(|code| code == "55P03")
}

/// Whether a lock was waited for as long as it may be, or the statement that waits for it.
pub(crate) fn has_waited(error: &Error) -> bool {
    is_locked(error) || said_by_server(error).is_some_and(|code| code == "57014")
}

/// Whether the server has undone the transaction for the sake of others: to end a deadlock, or because
/// this process stood still in the middle of it (25P03).
pub(crate) fn is_victim(error: &Error) -> bool {
    let undone = ["40P01", "40001", "25P03"];
    said_by_server(error).is_some_and(|code| undone.contains(&code.as_str()))
}

/// The SQLSTATE behind an error.
fn said_by_server(error: &Error) -> Option<String> {
    let source = std::error::Error::source(error)?.downcast_ref::<sqlx::Error>()?;
    let sqlx::Error::Database(told) = source else { return None };
    told.code().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_may_have_happened_is_of_unknown_outcome() {
        for code in ["40003", "08007", "08006", "57P01", "57P02"] {
            assert!(leaves_open(code), "{code}");
        }
        for code in ["40001", "40P01", "23505", "57014", "53100"] {
            assert!(!leaves_open(code), "{code}");
        }
        let lost = || sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert_eq!(classify_write(lost()).kind(), &ErrorKind::Timeout);
    }

    #[test]
    fn a_connection_that_can_not_be_made_is_not_one_that_was_closed() {
        for kind in [std::io::ErrorKind::HostUnreachable, std::io::ErrorKind::ConnectionReset] {
            let broken = classify(sqlx::Error::Io(kind.into()));
            let unmade = classify_open(sqlx::Error::Io(kind.into()));
            assert!(is_closed(&broken) && !is_closed(&unmade), "{kind}");
            assert_eq!(unmade.kind(), &ErrorKind::Unavailable);
        }
    }

    #[test]
    fn what_the_operator_must_mend_is_configuration() {
        for code in ["28P01", "28000", "42501", "25006"] {
            assert!(matches!(kind_of(code, None), ErrorKind::Configuration { .. }), "{code}");
        }
        for (code, message) in [
            ("28000", "keine pg_hba.conf-Zeile"),
            ("3D000", "shop"),
            ("08P01", "unsupported startup parameter: options"),
        ] {
            let kind = refusal(code, message);
            assert!(matches!(kind, Some(ErrorKind::Configuration { .. })), "{code}");
        }
        // A server that hangs up in the middle passes by itself.
        assert_eq!(refusal("08P01", "unexpected EOF"), None);
    }

    #[test]
    fn what_passes_by_itself_is_retryable() {
        for code in ["57P01", "53300", "40P01", "08006", ""] {
            assert!(error(kind_of(code, None)).is_retryable(), "{code}");
        }
    }
}
