//! One error for the whole workspace: its kind says what the caller can do.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// The result of every fallible operation of `session-store`.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed, who said so, and what the driver said.
///
/// Absence is never an error: a missing session is `None` or a variant named `Missing`.
/// `Display` is one lowercase line without the source and without secrets.
///
/// # Contract
/// - Kinds are told apart by what the caller can do, and `is_retryable` follows the kind \[P-108\].
/// - No message contains a token, a secret or a password \[T-08\].
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    backend: &'static str,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What the caller can do about an [`Error`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The back end can't be reached or is overloaded; nothing was changed, a retry may help.
    Unavailable,
    /// No answer in time: the operation may have happened, may happen later, or never.
    Timeout,
    /// The id, the e-mail address or the version is taken by somebody else.
    Conflict,
    /// The user doesn't exist, was deleted, or may not be created again yet.
    UnknownUser,
    /// The credentials were changed or revoked after they had been verified.
    StaleCredentials,
    /// The input can't be stored or looked up; `what` names it.
    InvalidInput {
        /// Which input, and what is wrong with it; never the input itself.
        what: Cow<'static, str>,
    },
    /// The input is longer than `limit` bytes.
    TooLarge {
        /// Which input.
        what: &'static str,
        /// The largest size accepted, in bytes.
        limit: usize,
    },
    /// The deadline has passed already, or lies beyond what a timestamp can hold.
    InvalidExpiry,
    /// The user has as many sessions as the policy allows, and the policy refuses another.
    TooManySessions,
    /// Something stored can't be read back.
    Corrupt,
    /// The schema is missing, incomplete, or newer than this version understands.
    SchemaMismatch {
        /// What was found and what was expected.
        what: Cow<'static, str>,
    },
    /// This back end, as configured, can't do it; refused before any effect.
    Unsupported {
        /// What was asked for.
        what: Cow<'static, str>,
    },
    /// The configuration can't work; `what` says which part and what to do.
    Configuration {
        /// Which part of the configuration, and what to do about it.
        what: Cow<'static, str>,
    },
}

impl Error {
    /// An error of `kind` from `backend` that nothing else caused.
    pub const fn new(kind: ErrorKind, backend: &'static str) -> Self {
        Self { kind, backend, source: None }
    }

    /// The same error, caused by `source`.
    #[must_use]
    pub fn caused_by(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// `InvalidInput`; `what` names the input and what is wrong with it, not its content.
    pub fn invalid(backend: &'static str, what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidInput { what: what.into() }, backend)
    }

    /// `Configuration`; `what` says which part and what to do.
    pub fn configuration(backend: &'static str, what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Configuration { what: what.into() }, backend)
    }

    /// `Unsupported`; `what` says what was asked for.
    pub fn unsupported(backend: &'static str, what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unsupported { what: what.into() }, backend)
    }

    /// `SchemaMismatch`; `what` says what was found and what was expected.
    pub fn schema(backend: &'static str, what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::SchemaMismatch { what: what.into() }, backend)
    }

    /// What the caller can do.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// Who reported it: `core`, or the name of an adapter.
    pub fn backend(&self) -> &'static str {
        self.backend
    }

    /// Whether the same call may succeed later without any change by the caller.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Timeout)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.backend, self.kind)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind)
            .field("backend", &self.backend)
            // What a driver says may hold an address with a password; `source()` tells it on demand.
            .field("has_source", &self.source.is_some())
            .finish()
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable => f.write_str("unavailable"),
            Self::Timeout => f.write_str("timed out, the outcome is unknown"),
            Self::Conflict => f.write_str("taken or changed by somebody else"),
            Self::UnknownUser => f.write_str("unknown user"),
            Self::StaleCredentials => f.write_str("credentials changed since they were verified"),
            Self::InvalidInput { what } => write!(f, "invalid input: {what}"),
            Self::TooLarge { what, limit } => write!(f, "{what} is larger than {limit} bytes"),
            Self::InvalidExpiry => f.write_str("expiry is in the past or out of range"),
            Self::TooManySessions => f.write_str("too many sessions of this user"),
            Self::Corrupt => f.write_str("a stored record can't be read"),
            Self::SchemaMismatch { what } => write!(f, "schema mismatch: {what}"),
            Self::Unsupported { what } => write!(f, "unsupported: {what}"),
            Self::Configuration { what } => write!(f, "configuration: {what}"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_line_without_the_source() {
        let error = Error::new(ErrorKind::Unavailable, "redis")
            .caused_by(std::io::Error::other("redis://user:password@host"));
        assert_eq!(error.to_string(), "redis: unavailable");
        assert!(!format!("{error:?}").contains("password"));
        assert!(error.source().is_some());
    }

    #[test]
    fn only_unavailable_and_timeout_are_retryable() {
        assert!(Error::new(ErrorKind::Unavailable, "core").is_retryable());
        assert!(Error::new(ErrorKind::Timeout, "core").is_retryable());
        assert!(!Error::new(ErrorKind::Conflict, "core").is_retryable());
        assert!(!Error::invalid("core", "token").is_retryable());
    }
}
