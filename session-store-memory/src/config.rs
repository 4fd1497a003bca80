//! How memory stores and caches are configured.

/// How a memory store behaves.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// Whether a session's reader learns the user's e-mail address. Default: `false`.
    pub project_email: bool,
}

/// How large a memory cache may get.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MemoryCacheConfig {
    /// The most sessions kept; a quarter as many leases and negatives beside them.
    /// Default: 100 000.
    pub max_entries: usize,
    /// The most bytes of keys and records of sessions. Default: 64 MiB.
    pub max_bytes: usize,
}

impl Default for MemoryCacheConfig {
    fn default() -> Self {
        Self {
            max_entries: 100_000,
            max_bytes: 64 * 1024 * 1024,
        }
    }
}
