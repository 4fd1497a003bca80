//! The memory store, the memory cache and the pair of them conform: a test per case.

use std::sync::LazyLock;

use session_store_core::conformance_tests;
use session_store_memory::{MemoryCacheHarness, MemoryHarness};

static STORES: LazyLock<MemoryHarness> = LazyLock::new(MemoryHarness::default);

conformance_tests!(primary: &*STORES);
conformance_tests!(secondary: &MemoryCacheHarness);
conformance_tests!(layered: &*STORES, &MemoryCacheHarness);
