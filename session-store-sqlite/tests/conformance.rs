//! The SQLite store, and the pair of it and a memory cache, conform: a test per case.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::LazyLock;

use session_store_core::conformance_tests;
use session_store_memory::MemoryCacheHarness;
use session_store_sqlite::SqliteHarness;

static FILES: LazyLock<SqliteHarness> = LazyLock::new(|| SqliteHarness::new().unwrap());

conformance_tests!(primary: &*FILES);
conformance_tests!(layered: &*FILES, &MemoryCacheHarness);
