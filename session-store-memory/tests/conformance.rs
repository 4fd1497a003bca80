//! The memory store, the memory cache and the pair of them conform.

use session_store_core::conformance::{Filter, run_layered, run_primary, run_secondary};
use session_store_memory::{MemoryCacheHarness, MemoryHarness};

fn harness() -> &'static MemoryHarness {
    Box::leak(Box::default())
}

#[tokio::test]
async fn the_store_conforms() {
    run_primary(harness(), &Filter::all()).await.assert_conforms();
}

#[tokio::test]
async fn the_cache_conforms() {
    run_secondary(&MemoryCacheHarness, &Filter::all()).await.assert_conforms();
}

#[tokio::test]
async fn the_pair_conforms() {
    run_layered(harness(), &MemoryCacheHarness, &Filter::all()).await.assert_conforms();
}
