//! The Postgres store, and the pair of it and a memory cache, conform: a test per case.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::LazyLock;

use session_store_core::conformance_tests;
use session_store_memory::MemoryCacheHarness;
use session_store_postgres::PostgresHarness;

static SERVER: LazyLock<PostgresHarness> = LazyLock::new(|| PostgresHarness::from_env().unwrap());

conformance_tests!(primary: &*SERVER);
conformance_tests!(layered: &*SERVER, &MemoryCacheHarness);
