//! Redis caches conform, through either client library, on every kind of server: a test per case.
#![cfg(all(feature = "redis", feature = "fred"))]
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::LazyLock;

use session_store_core::conformance_tests;
use session_store_memory::MemoryHarness;
use session_store_redis::{Client, RedisHarness};

static TRUTH: LazyLock<MemoryHarness> = LazyLock::new(MemoryHarness::default);

fn server(name: &'static str, variable: &str, client: Client) -> RedisHarness {
    RedisHarness::from_env(name, variable, client).unwrap()
}

mod redis {
    use super::*;

    static SERVER: LazyLock<RedisHarness> =
        LazyLock::new(|| server("redis", "SESSION_STORE_REDIS_URL", Client::Redis));
    conformance_tests!(secondary: &*SERVER);
    conformance_tests!(layered: &*TRUTH, &*SERVER);
}

mod redis_fred {
    use super::*;

    static SERVER: LazyLock<RedisHarness> =
        LazyLock::new(|| server("redis-fred", "SESSION_STORE_REDIS_URL", Client::Fred));
    conformance_tests!(secondary: &*SERVER);
    conformance_tests!(layered: &*TRUTH, &*SERVER);
}

mod redis_cluster {
    use super::*;

    static SERVER: LazyLock<RedisHarness> =
        LazyLock::new(|| server("redis-cluster", "SESSION_STORE_REDIS_CLUSTER_URL", Client::Redis));
    conformance_tests!(secondary: &*SERVER);
    conformance_tests!(layered: &*TRUTH, &*SERVER);
}

mod redis_sentinel {
    use super::*;

    static SERVER: LazyLock<RedisHarness> = LazyLock::new(|| {
        server("redis-sentinel", "SESSION_STORE_REDIS_SENTINEL_URL", Client::Fred)
    });
    conformance_tests!(secondary: &*SERVER);
    conformance_tests!(layered: &*TRUTH, &*SERVER);
}

mod valkey {
    use super::*;

    static SERVER: LazyLock<RedisHarness> =
        LazyLock::new(|| server("valkey", "SESSION_STORE_VALKEY_URL", Client::Fred));
    conformance_tests!(secondary: &*SERVER);
    conformance_tests!(layered: &*TRUTH, &*SERVER);
}
