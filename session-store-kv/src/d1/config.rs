//! Which database is the truth, and what its tables are called.

use session_store_core::{Error, Result};

use super::error::NAME;

/// What SQLite and D1 call their own tables.
const RESERVED: [&str; 2] = ["sqlite_", "_cf_"];

/// Which database is the truth, and what its tables are called.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct D1Config {
    /// The name of the D1 binding in the Worker's environment. Default: `DB`.
    pub binding: String,
    /// Put in front of every table's name: lowercase letters, digits and `_`, at most 32; not
    /// beginning with `sqlite_` or `_cf_`, which are reserved. Default: empty.
    pub table_prefix: String,
    /// Whether readers of a session learn the user's e-mail address. Default: `false`.
    pub project_email: bool,
    /// Whether a lookup brings the database's time along. Off in the suite alone, whose cases move their
    /// own clock: without it nothing measures the clocks that an entry of Workers KV is stamped and
    /// judged by.
    pub(crate) compare_clocks: bool,
}

impl Default for D1Config {
    fn default() -> Self {
        Self {
            binding: "DB".to_owned(),
            table_prefix: String::new(),
            project_email: false,
            compare_clocks: true,
        }
    }
}

impl D1Config {
    /// The prefix, which is the only text from outside that comes into a statement.
    pub(crate) fn prefix(&self) -> Result<&str> {
        let prefix = self.table_prefix.as_str();
        let is_word = prefix
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if RESERVED.iter().any(|reserved| prefix.starts_with(reserved)) {
            let what = "table_prefix: sqlite_ and _cf_ are reserved; choose another one";
            return Err(Error::configuration(NAME, what));
        }
        if prefix.len() > 32 || !is_word || prefix.starts_with(|first: char| first.is_ascii_digit())
        {
            let what =
                "table_prefix: lowercase letters, digits and _, at most 32, no digit in front";
            return Err(Error::configuration(NAME, what));
        }
        Ok(prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_word() {
        let is_fine = |prefix: &str| {
            let config = D1Config { table_prefix: prefix.to_owned(), ..D1Config::default() };
            config.prefix().is_ok()
        };
        assert!(["", "a", "auth_2_", "sqlite", "_cf"].into_iter().all(is_fine));
        for wrong in ["A", "2a", "a-b", "a b", "a;", "\"", &"a".repeat(33)] {
            assert!(!is_fine(wrong), "{wrong:?}");
        }
        // A table of ours would have such a name, and D1 would refuse to make it.
        for reserved in ["sqlite_", "sqlite_auth_", "_cf_", "_cf_2"] {
            assert!(!is_fine(reserved), "{reserved:?}");
        }
    }
}
