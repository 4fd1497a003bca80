//! What the runtime of a Worker said: the text of an error, which may not leave its thread itself.

use std::fmt;

/// The first line of an error's text; a stack follows it in JavaScript.
#[derive(Debug)]
pub(crate) struct Said(String);

impl Said {
    pub(crate) fn new(source: &impl fmt::Display) -> Self {
        let text = source.to_string();
        Self(text.lines().next().unwrap_or_default().to_owned())
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Said {}
