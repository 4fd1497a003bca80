//! What DynamoDB's errors mean to a caller.
//!
//! What the SDK hands back may hold items, so that only its codes and messages are kept as a source.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use session_store_core::{Error, ErrorKind};

/// The name that errors and reports use.
pub(super) const NAME: &str = "dynamodb";
/// What one item may take, names included.
pub(super) const MAX_ITEM_BYTES: usize = 400 * 1024;

/// An error of this back end that nothing else caused.
pub(super) fn error(kind: ErrorKind) -> Error {
    Error::new(kind, NAME)
}

/// Something stored that can't be read back.
pub(super) fn corrupt() -> Error {
    error(ErrorKind::Corrupt)
}

/// The same error for an operation that may be half done: whoever gets it knows nothing.
pub(super) fn uncertain(failed: Error) -> Error {
    match failed.kind() {
        ErrorKind::Unavailable => error(ErrorKind::Timeout).caused_by(failed),
        _ => failed,
    }
}

/// Whether a call changes something: then no answer means that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Reads,
    Writes,
}

/// What came instead of an answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// Nothing was done; a pause may help.
    Busy(Error),
    /// The rest.
    Failed(Error),
}

impl Fault {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Busy(error) | Self::Failed(error) => error,
        }
    }
}

/// The part of the SDK's error that may be shown.
#[derive(Debug)]
struct Told {
    code: String,
    message: String,
    request_id: Option<String>,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        match &self.request_id {
            Some(id) => write!(f, " (request {id})"),
            None => Ok(()),
        }
    }
}

impl StdError for Told {}

/// Sorts an error of the SDK by what the caller can do.
pub(super) fn classify<E>(effect: Effect, failed: &SdkError<E, HttpResponse>) -> Fault
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let lost = match effect {
        Effect::Reads => ErrorKind::Unavailable,
        Effect::Writes => ErrorKind::Timeout,
    };
    let kind = match failed {
        SdkError::ServiceError(service) => {
            let meta = service.err().meta();
            let (code, message) = (meta.code().unwrap_or_default(), meta.message());
            let is_servers = service.raw().status().as_u16() >= 500;
            let kind = kind_of(code, message.unwrap_or_default(), is_servers.then_some(lost));
            let told = Told {
                code: code.to_owned(),
                message: message.unwrap_or_default().to_owned(),
                request_id: meta.extra("aws_request_id").map(str::to_owned),
            };
            let found = error(kind).caused_by(told);
            return if is_busy(code) { Fault::Busy(found) } else { Fault::Failed(found) };
        }
        SdkError::TimeoutError(_) => ErrorKind::Timeout,
        SdkError::DispatchFailure(_) if was_never_sent(failed) => ErrorKind::Unavailable,
        SdkError::ConstructionFailure(_) => configuration(
            "the client can't make a request; it needs a region, credentials, an HTTP client, and a \
             behavior version",
        ),
        SdkError::DispatchFailure(failure) if failure.is_user() => {
            configuration("the client can't send a request; check its endpoint and credentials")
        }
        SdkError::DispatchFailure(_) if is_about_credentials(failed) => configuration(
            "the client has no credentials; check its provider, the role or the profile",
        ),
        _ => lost,
    };
    let told = Told { code: "no answer".to_owned(), message: chain(failed), request_id: None };
    Fault::Failed(error(kind).caused_by(told))
}

/// Codes of requests that were not carried out because there were too many, or others in the way.
pub(super) fn is_busy(code: &str) -> bool {
    matches!(
        code,
        "ThrottlingException"
            | "ThrottlingError"
            | "ProvisionedThroughputExceededException"
            | "ProvisionedThroughputExceeded"
            | "RequestLimitExceeded"
            | "TransactionConflictException"
            | "TransactionConflict"
            | "LimitExceededException"
    )
}

/// Sorts a code; `lost` is given when the server says that it failed itself.
pub(super) fn kind_of(code: &str, message: &str, lost: Option<ErrorKind>) -> ErrorKind {
    match code {
        "ResourceNotFoundException" | "TableNotFoundException" => ErrorKind::SchemaMismatch {
            what:
                "there is no such table; check its name and the client's region, or make it with \
                   create_table"
                    .into(),
        },
        "ValidationException" | "ValidationError" => invalid(message),
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "IncompleteSignatureException"
        | "MissingAuthenticationTokenException"
        | "InvalidClientTokenId" => {
            configuration("the credentials are refused; check the provider of the client")
        }
        "ExpiredTokenException" | "ExpiredToken" | "RequestExpired" => configuration(
            "the credentials have expired; give the client a provider that renews them",
        ),
        "AccessDeniedException" | "AccessDenied" => configuration(
            "the credentials may not do this; minimal_policy prints what a role needs",
        ),
        "TransactionInProgressException" | "IdempotentParameterMismatchException" => {
            ErrorKind::Timeout
        }
        "ItemCollectionSizeLimitExceededException" => {
            ErrorKind::TooLarge { what: "item collection", limit: 10 << 30 }
        }
        _ => lost.unwrap_or(ErrorKind::Unavailable),
    }
}

fn invalid(message: &str) -> ErrorKind {
    let message = message.to_lowercase();
    let says = |parts: &[&str]| parts.iter().any(|part| message.contains(part));
    if says(&["item size"]) {
        return ErrorKind::TooLarge { what: "item", limit: MAX_ITEM_BYTES };
    }
    if says(&["key element", "missing the key", "key schema", "type mismatch for key"]) {
        return ErrorKind::SchemaMismatch {
            what: "the table has other keys; expected are pk (hash) and sk (range), both strings: \
                   make it with create_table"
                .into(),
        };
    }
    ErrorKind::InvalidInput { what: "DynamoDB refuses the request; the source says why".into() }
}

fn configuration(what: &'static str) -> ErrorKind {
    ErrorKind::Configuration { what: what.into() }
}

/// Whether the request can't have reached the server: nobody listened.
fn was_never_sent(failed: &(dyn StdError + 'static)) -> bool {
    causes(failed).any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused)
    })
}

/// Whether no request was made because there was nothing to sign it with.
fn is_about_credentials(failed: &(dyn StdError + 'static)) -> bool {
    causes(failed).any(|cause| cause.to_string().to_lowercase().contains("credentials"))
}

fn causes<'a>(
    first: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(first), |error| <dyn StdError>::source(*error))
}

/// What every link of the chain says. No link holds an item: there was no answer.
fn chain(failed: &(dyn StdError + 'static)) -> String {
    causes(failed).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: &str) -> ErrorKind {
        kind_of(code, "", None)
    }

    #[test]
    fn what_the_operator_must_mend_is_not_retryable() {
        for code in
            ["ExpiredTokenException", "AccessDeniedException", "UnrecognizedClientException"]
        {
            assert!(matches!(kind(code), ErrorKind::Configuration { .. }), "{code}");
        }
        let missing = kind("ResourceNotFoundException");
        assert!(matches!(missing, ErrorKind::SchemaMismatch { .. }));
        let keys = "The provided key element does not match the schema";
        let keys = kind_of("ValidationException", keys, None);
        assert!(matches!(keys, ErrorKind::SchemaMismatch { .. }));
    }

    #[test]
    fn a_full_item_is_too_large() {
        let message = "Item size has exceeded the maximum allowed size";
        let kind = kind_of("ValidationException", message, None);
        assert_eq!(kind, ErrorKind::TooLarge { what: "item", limit: MAX_ITEM_BYTES });
    }

    #[test]
    fn what_passes_by_itself_is_retryable() {
        for code in ["ThrottlingException", "RequestLimitExceeded", "TransactionConflict"] {
            assert!(error(kind(code)).is_retryable() && is_busy(code), "{code}");
        }
        assert_eq!(
            kind_of("InternalServerError", "", Some(ErrorKind::Timeout)),
            ErrorKind::Timeout
        );
    }

    #[test]
    fn an_operation_that_is_half_done_claims_nothing() {
        assert_eq!(uncertain(error(ErrorKind::Unavailable)).kind(), &ErrorKind::Timeout);
        assert_eq!(uncertain(error(ErrorKind::Conflict)).kind(), &ErrorKind::Conflict);
    }
}
