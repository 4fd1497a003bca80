//! The store, the cache, and the pair of them conform: a test per case, on a wire that minds what no
//! emulator does.

use std::sync::LazyLock;

use session_store_core::conformance_tests;
use session_store_kv::dynamo::{DynamoCacheHarness, DynamoHarness};

use crate::wire::Wire;

static STORE: LazyLock<DynamoHarness> = LazyLock::new(on_a_wire);
static CACHE: LazyLock<DynamoCacheHarness> =
    LazyLock::new(|| DynamoCacheHarness::over(on_a_wire()));

fn on_a_wire() -> DynamoHarness {
    DynamoHarness::from_env().unwrap().with_http(|| Wire::default().client())
}

conformance_tests!(primary: &*STORE);
conformance_tests!(secondary: &*CACHE);
conformance_tests!(layered: &*STORE, &*CACHE);
