//! How the memory back ends are set up.

/// How a [`MemoryStore`](crate::MemoryStore) behaves.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// Whether a session's reader also learns the e-mail address of its user. Default: `false`.
    pub project_email: bool,
}

impl MemoryConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }
}
