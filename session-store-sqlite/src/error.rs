//! What SQLite's errors mean to a caller.

use rusqlite::{ErrorCode, ffi};
use session_store_core::{Error, ErrorKind};

/// The name that errors and reports use.
pub(crate) const NAME: &str = "sqlite";

/// An error of this back end that nothing else caused.
pub(crate) fn error(kind: ErrorKind) -> Error {
    Error::new(kind, NAME)
}

/// The database can't be used by this process any more.
pub(crate) fn gone() -> Error {
    error(ErrorKind::Unavailable)
}

/// The file may be read and not written.
pub(crate) fn read_only() -> ErrorKind {
    let what = "the database file or its folder can't be written; check the permissions of both, \
                or open it with Access::ReadOnly";
    ErrorKind::Configuration { what: what.into() }
}

/// Sorts an error of the driver by what the caller can do.
pub(crate) fn classify(source: rusqlite::Error) -> Error {
    let kind = match &source {
        rusqlite::Error::SqliteFailure(failure, _)
            if failure.code == ErrorCode::ConstraintViolation =>
        {
            constraint(failure.extended_code)
        }
        rusqlite::Error::SqliteFailure(failure, text) => kind_of(failure.code, text.as_deref()),
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::Utf8Error(..) => ErrorKind::Corrupt,
        rusqlite::Error::SqlInputError { msg, .. } => kind_of(ErrorCode::Unknown, Some(msg)),
        _ => ErrorKind::Unavailable,
    };
    error(kind).caused_by(source)
}

/// Sorts what a constraint refused, by the extended code.
fn constraint(code: i32) -> ErrorKind {
    match code {
        ffi::SQLITE_CONSTRAINT_UNIQUE
        | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
        | ffi::SQLITE_CONSTRAINT_ROWID => ErrorKind::Conflict,
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => ErrorKind::UnknownUser,
        _ => ErrorKind::InvalidInput { what: "a constraint of the schema refuses it".into() },
    }
}

/// Sorts a result code, and its text where the code says too little.
fn kind_of(code: ErrorCode, text: Option<&str>) -> ErrorKind {
    match code {
        ErrorCode::TooBig => ErrorKind::TooLarge { what: "row", limit: 1_000_000_000 },
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => read_only(),
        ErrorCode::CannotOpen => ErrorKind::Configuration {
            what: "the database file can't be opened; check the path and its permissions".into(),
        },
        ErrorCode::NotADatabase => {
            ErrorKind::SchemaMismatch { what: "the file is not an SQLite database".into() }
        }
        ErrorCode::DatabaseCorrupt => ErrorKind::Corrupt,
        ErrorCode::Unknown | ErrorCode::SchemaChanged
            if text.is_some_and(|text| text.contains("no such")) =>
        {
            ErrorKind::SchemaMismatch { what: "a table or column is missing".into() }
        }
        _ => ErrorKind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: ErrorCode) -> ErrorKind {
        kind_of(code, None)
    }

    #[test]
    fn what_the_operator_must_mend_is_configuration() {
        for code in [ErrorCode::ReadOnly, ErrorCode::PermissionDenied, ErrorCode::CannotOpen] {
            assert!(matches!(kind(code), ErrorKind::Configuration { .. }), "{code:?}");
        }
    }

    #[test]
    fn what_passes_by_itself_is_retryable() {
        for code in [ErrorCode::DatabaseBusy, ErrorCode::DatabaseLocked, ErrorCode::DiskFull] {
            assert!(error(kind(code)).is_retryable(), "{code:?}");
        }
    }

    #[test]
    fn damage_is_told_from_a_foreign_file() {
        assert_eq!(kind(ErrorCode::DatabaseCorrupt), ErrorKind::Corrupt);
        assert!(matches!(kind(ErrorCode::NotADatabase), ErrorKind::SchemaMismatch { .. }));
        let missing = kind_of(ErrorCode::Unknown, Some("no such table: users"));
        assert!(matches!(missing, ErrorKind::SchemaMismatch { .. }));
    }
}
