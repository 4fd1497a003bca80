//! The store, the cache, and the pair of them conform: a test per case.

use std::sync::LazyLock;

use session_store_core::conformance_tests;
use session_store_kv::dynamo::{DynamoCacheHarness, DynamoHarness};

static STORE: LazyLock<DynamoHarness> = LazyLock::new(|| DynamoHarness::from_env().unwrap());
static CACHE: LazyLock<DynamoCacheHarness> =
    LazyLock::new(|| DynamoCacheHarness::from_env().unwrap());

conformance_tests!(primary: &*STORE);
conformance_tests!(secondary: &*CACHE);
conformance_tests!(layered: &*STORE, &*CACHE);
