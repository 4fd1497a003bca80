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
    /// The most values kept, at least 1; a quarter as many leases and negatives beside them.
    /// Default: `100_000`.
    pub max_entries: usize,
    /// The most bytes taken by values, keys and bookkeeping included, at least 8 KiB; a quarter as
    /// many by leases and negatives beside them. A record may take as much as those, up to 1 MiB.
    /// Default: 64 MiB.
    pub max_bytes: usize,
}

impl Default for MemoryCacheConfig {
    fn default() -> Self {
        Self { max_entries: 100_000, max_bytes: 64 * 1024 * 1024 }
    }
}
