//! Child processes: always in the root of the workspace, always with their output shown.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cli::Failure;

/// A program and its arguments, not yet started.
#[derive(Debug)]
pub(crate) struct Program {
    line: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

impl Program {
    /// `cargo` with these arguments, given as one string without quotes.
    pub(crate) fn cargo(arguments: &str) -> Self {
        let line = std::iter::once("cargo")
            .chain(arguments.split_whitespace())
            .map(str::to_owned)
            .collect();
        Self { line, environment: Vec::new() }
    }

    /// Sets a variable for the child only.
    #[must_use]
    pub(crate) fn variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Runs it with its output going where ours goes; true if it succeeded.
    pub(crate) fn succeeds(&self, root: &Path) -> Result<bool, Failure> {
        let status =
            self.command(root).status().map_err(|error| Failure::io(&self.to_string(), &error))?;
        Ok(status.success())
    }

    /// Runs it, copies its stdout to ours and shows every line to `see`; true if it succeeded.
    pub(crate) fn watched(&self, root: &Path, mut see: impl FnMut(&str)) -> Result<bool, Failure> {
        let failed = |error: std::io::Error| Failure::io(&self.to_string(), &error);
        let mut child = self.command(root).stdout(Stdio::piped()).spawn().map_err(failed)?;
        if let Some(stdout) = child.stdout.take() {
            let mut reader = BufReader::new(stdout);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).map_err(failed)? > 0 {
                std::io::stdout().lock().write_all(&line).ok();
                see(&String::from_utf8_lossy(&line));
                line.clear();
            }
        }
        Ok(child.wait().map_err(failed)?.success())
    }

    /// Runs it and returns its stdout; a failure of the program is a failure of ours.
    pub(crate) fn output(&self, root: &Path) -> Result<Vec<u8>, Failure> {
        let output = self
            .command(root)
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| Failure::io(&self.to_string(), &error))?;
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(Failure::new(format!("`{self}` failed")))
        }
    }

    fn command(&self, root: &Path) -> Command {
        let mut words = self.line.iter();
        let mut command = Command::new(words.next().map_or("cargo", String::as_str));
        command
            .args(words)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(root)
            .stdin(Stdio::null());
        command
    }
}

impl From<&str> for Program {
    /// Any program, given as one string without quotes.
    fn from(line: &str) -> Self {
        Self { line: line.split_whitespace().map(str::to_owned).collect(), environment: Vec::new() }
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.line.join(" "))
    }
}
