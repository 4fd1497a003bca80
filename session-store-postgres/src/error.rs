//! What Postgres' errors mean to a caller.

use session_store_core::{Error, ErrorKind};

/// The name that errors and reports use.
pub(crate) const NAME: &str = "postgres";

/// An error of this back end that nothing else caused.
pub(crate) fn error(kind: ErrorKind) -> Error {
    Error::new(kind, NAME)
}

const TLS: &str =
    "TLS failed; check sslmode in the URL, the certificate, and the crate's tls features";

/// Sorts an error of the driver by what the caller can do.
pub(crate) fn classify(source: sqlx::Error) -> Error {
    let kind = match &source {
        sqlx::Error::Database(told) => {
            let code = told.code();
            kind_of(code.as_deref().unwrap_or_default(), told.constraint())
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
    };
    error(kind).caused_by(source)
}

/// The same for a statement or a commit after which something may be different: without an answer,
/// nobody knows.
pub(crate) fn classify_write(source: sqlx::Error) -> Error {
    let is_answered = match &source {
        // The server refuses, unless it says that it is going away.
        sqlx::Error::Database(told) => {
            !told.code().is_some_and(|code| code.starts_with("57P") || code.starts_with("08"))
        }
        // Nothing was sent.
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => true,
        _ => false,
    };
    if is_answered { classify(source) } else { error(ErrorKind::Timeout).caused_by(source) }
}

fn configuration(what: &'static str) -> ErrorKind {
    ErrorKind::Configuration { what: what.into() }
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
        "3D000" => configuration("there is no such database"),
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

/// Whether the connection had been closed before anything was sent over it, or has been meanwhile.
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

/// Whether the server has undone the transaction for the sake of another one.
pub(crate) fn is_victim(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    let told = source.and_then(|source| source.downcast_ref::<sqlx::Error>());
    matches!(told, Some(sqlx::Error::Database(told))
        if matches!(told.code().as_deref(), Some("40P01" | "40001")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_must_mend_is_configuration() {
        for code in ["28P01", "3D000", "42501", "25006"] {
            assert!(matches!(kind_of(code, None), ErrorKind::Configuration { .. }), "{code}");
        }
    }

    #[test]
    fn what_passes_by_itself_is_retryable() {
        for code in ["57P01", "53300", "40P01", "08006", ""] {
            assert!(error(kind_of(code, None)).is_retryable(), "{code}");
        }
    }
}
