//! What went wrong between this process and a server, and what that means to a caller.

use std::fmt;

use session_store_core::{Error, ErrorKind};

/// The name that errors and reports use.
pub(crate) const NAME: &str = "redis";

/// What went wrong; texts name servers and never passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// There is no connection, and nothing was sent.
    Unreachable(String),
    /// There is no connection yet, and nothing was sent. The attempt goes on; nobody was found to be away.
    Pending(String),
    /// The connection went away while a command was under way.
    Lost(String),
    /// No answer in time.
    Silent(String),
    /// The server answered with an error.
    Answered {
        /// Its first word.
        code: String,
        /// All of it.
        text: String,
    },
    /// The operator must mend this.
    Misconfigured {
        /// What, in words that may be logged: they name no server.
        what: String,
        /// Where, and what was said there.
        detail: String,
    },
}

impl Fault {
    /// An error as the server printed it.
    pub(crate) fn answered(text: &str) -> Self {
        let code = text.split(' ').next().unwrap_or_default();
        Self::Answered { code: code.to_owned(), text: text.to_owned() }
    }

    /// What is wrong at `place`.
    pub(crate) fn misconfigured(what: impl Into<String>, place: &impl fmt::Display) -> Self {
        Self::Misconfigured { what: what.into(), detail: place.to_string() }
    }

    /// Whether the server answered with this code.
    pub(crate) fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Answered { code, .. } if code == wanted)
    }

    /// Whether the server does not know what it was told to do.
    pub(crate) fn is_unknown_command(&self) -> bool {
        matches!(self, Self::Answered { code, text } if code == "ERR" && is_unknown(text))
    }

    /// Whether a user name or a password was refused.
    pub(crate) fn refuses_login(&self) -> bool {
        matches!(self, Self::Misconfigured { what, .. } if what == LOGIN)
    }

    /// Whether another node is named that owns the key, so that nothing was run.
    pub(crate) fn redirects(&self) -> bool {
        self.is("MOVED") || self.is("ASK")
    }

    /// Whether the connection is of no use any more.
    pub(crate) fn ends_connection(&self) -> bool {
        match self {
            Self::Unreachable(_)
            | Self::Pending(_)
            | Self::Lost(_)
            | Self::Misconfigured { .. } => true,
            // A server that was demoted: somebody else is the master now.
            Self::Answered { code, .. } => matches!(code.as_str(), "READONLY" | "MASTERDOWN"),
            Self::Silent(_) => false,
        }
    }

    /// Whether a server may have been away, and come back with what had been removed.
    pub(crate) fn is_outage(&self) -> bool {
        !matches!(self, Self::Misconfigured { .. } | Self::Pending(_))
    }

    /// The same for a caller whose command `name` may have had an effect, or could not have.
    pub(crate) fn into_error(self, name: &'static str, effect: Effect) -> Error {
        let text = match &self {
            Self::Unreachable(text)
            | Self::Pending(text)
            | Self::Lost(text)
            | Self::Silent(text)
            | Self::Answered { text, .. } => text.clone(),
            Self::Misconfigured { what, detail } => {
                return Error::configuration(NAME, what.clone()).caused_by(Cause(detail.clone()));
            }
        };
        let kind = match (&self, effect) {
            (Self::Answered { code, text }, _) => answer_kind(code, text, name),
            (Self::Silent(_), _) | (Self::Lost(_), Effect::Possible) => ErrorKind::Timeout,
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, NAME).caused_by(Cause(text))
    }
}

/// Whether a command that was not answered may have changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It only reads.
    None,
    /// It writes.
    Possible,
}

/// Sorts an error that the server answered to the command `name` by what the caller can do.
fn answer_kind(code: &str, text: &str, name: &str) -> ErrorKind {
    let what = match code {
        "NOAUTH" | "WRONGPASS" => LOGIN.to_owned(),
        "NOPERM" => format!(
            "the Redis user may not run {name} on these keys; grant what RedisConfig::acl_rules lists"
        ),
        "WRONGTYPE" => "a key under our prefix holds something else than a string, so another \
                        application uses the prefix too; choose another key_prefix"
            .to_owned(),
        "MOVED" | "ASK" | "CROSSSLOT" => {
            "the server is a node of a Cluster; name its nodes as Servers::Cluster".to_owned()
        }
        "ERR" if is_unknown(text) => {
            return ErrorKind::Unsupported {
                what: format!("the server does not know {name}").into(),
            };
        }
        "ERR" if text.contains("cluster support disabled") => {
            "the server is not a node of a Cluster; name it as Servers::Single".to_owned()
        }
        // Out of memory, loading, failing over, busy with a script, too many clients: it passes.
        _ => return ErrorKind::Unavailable,
    };
    ErrorKind::Configuration { what: what.into() }
}

fn is_unknown(text: &str) -> bool {
    text.contains("unknown command") || text.contains("unknown subcommand")
}

/// What to do about a refused login.
pub(crate) const LOGIN: &str =
    "the server refuses the user name or the password; check both in the address";

/// A sentence about a server, as the source of an error.
#[derive(Debug)]
struct Cause(String);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Cause {}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> ErrorKind {
        Fault::answered(text).into_error("EVALSHA", Effect::Possible).kind().clone()
    }

    #[test]
    fn what_passes_by_itself_is_retryable() {
        for text in [
            "OOM command not allowed when used memory > 'maxmemory'.",
            "LOADING Redis is loading the dataset in memory",
            "CLUSTERDOWN The cluster is down",
            "BUSY Redis is busy running a script.",
            "ERR max number of clients reached",
        ] {
            assert_eq!(kind(text), ErrorKind::Unavailable, "{text}");
        }
    }

    #[test]
    fn what_the_operator_must_mend_says_what_to_do() {
        for (text, advice) in [
            ("NOAUTH Authentication required.", "password"),
            ("NOPERM this user has no permissions", "acl_rules"),
            ("WRONGTYPE Operation against a key", "key_prefix"),
            ("MOVED 1 10.0.0.1:7000", "Servers::Cluster"),
            ("ERR This instance has cluster support disabled", "Servers::Single"),
        ] {
            let error = Fault::answered(text).into_error("GET", Effect::None);
            assert!(matches!(error.kind(), ErrorKind::Configuration { .. }), "{text}");
            assert!(error.to_string().contains(advice), "{error}");
        }
        assert!(matches!(kind("ERR unknown command 'EVALSHA'"), ErrorKind::Unsupported { .. }));
    }

    #[test]
    fn only_a_lost_write_is_of_unknown_outcome() {
        let lost = |effect| Fault::Lost("reset".into()).into_error("GET", effect).kind().clone();
        assert_eq!(lost(Effect::None), ErrorKind::Unavailable);
        assert_eq!(lost(Effect::Possible), ErrorKind::Timeout);
        let refused = Fault::Unreachable("refused".into()).into_error("UNLINK", Effect::Possible);
        assert_eq!(refused.kind(), &ErrorKind::Unavailable);
    }
}
