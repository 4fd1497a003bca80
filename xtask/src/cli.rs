//! How a command talks to whoever runs it: lines, a verdict, or one failure.

use std::fmt;
use std::io::Write;

/// What a command that ran to its end found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Everything asked for held.
    Held,
    /// Something did not, and the command has already said what.
    Broken,
}

/// Why a command could not finish; printed as one line.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    /// A failed system call, with what it was about.
    pub(crate) fn io(about: &str, error: &std::io::Error) -> Self {
        Self(format!("{about}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Prints a line to stdout.
pub(crate) fn say(line: &str) {
    // A reader that left early (`| head`) is no reason to fail.
    writeln!(std::io::stdout().lock(), "{line}").ok();
}

/// Prints a line to stderr.
pub(crate) fn complain(line: &str) {
    writeln!(std::io::stderr().lock(), "{line}").ok();
}
