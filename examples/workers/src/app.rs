//! The stores of one request, found by the names of their bindings.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use session_store::kv::d1::{D1Config, D1Store};
use session_store::kv::workers::{WorkersKvCache, WorkersKvConfig};
use session_store::{Error, Host, Layered, LayeredConfig, Policy, Result, Sessions, Ttl};
use worker::Env;

pub(crate) type App = Sessions<D1Store, WorkersKvCache>;

/// Whether this isolate knows that the cache is registered in the database, which is asked once.
static IS_REGISTERED: AtomicBool = AtomicBool::new(false);

pub(crate) async fn open(env: &Env, host: Host) -> Result<App> {
    let mut kv = WorkersKvConfig::default();
    let mut d1 = D1Config::default();
    kv.binding = named(env, "SESSION_KV").unwrap_or(kv.binding);
    d1.binding = named(env, "SESSION_DB").unwrap_or(d1.binding);
    let cache = WorkersKvCache::from_env(env, &kv, host.clock.clone())?;
    let truth = D1Store::from_env(env, &d1)?;
    let store = Layered::new(truth, cache, config(env)?, host)?;
    if IS_REGISTERED.load(Ordering::Relaxed) {
        store.registered_before();
    } else {
        store.register().await?;
        IS_REGISTERED.store(true, Ordering::Relaxed);
    }
    Sessions::new(store, Policy::default())
}

fn config(env: &Env) -> Result<LayeredConfig> {
    let mut config = LayeredConfig::default();
    let seconds = named(env, "SESSION_CACHE_SECONDS").unwrap_or_else(|| "60".to_owned());
    let ttl = seconds.parse().ok().and_then(|seconds| Ttl::new(Duration::from_secs(seconds)));
    let what = "SESSION_CACHE_SECONDS: wanted a number of seconds, one at least";
    config.cache_ttl = Some(ttl.ok_or_else(|| Error::configuration("worker", what))?);
    // A Worker's clock is Cloudflare's, and each read of D1 compares it with the database's.
    config.max_skew = Duration::from_secs(10);
    // A location that has not seen a key for a while takes its time.
    config.cache_deadline = Duration::from_secs(2);
    Ok(config)
}

fn named(env: &Env, variable: &str) -> Option<String> {
    env.var(variable).ok().map(|value| value.to_string())
}
