//! The SQLite store, and the pair of it and a memory cache, conform.

use session_store_core::conformance::{Filter, run_layered, run_primary};
use session_store_memory::MemoryCacheHarness;
use session_store_sqlite::SqliteHarness;

#[tokio::test]
async fn the_store_conforms() {
    let harness = Box::leak(Box::new(SqliteHarness::new().unwrap()));
    run_primary(harness, &Filter::all()).await.assert_conforms();
}

#[tokio::test]
async fn the_pair_conforms() {
    let harness = Box::leak(Box::new(SqliteHarness::new().unwrap()));
    run_layered(harness, &MemoryCacheHarness, &Filter::all()).await.assert_conforms();
}
