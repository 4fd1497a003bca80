//! The stores of one request, found by the names of their bindings.
//!
//! Nothing that does I/O outlives its request. What an isolate remembers is one flag.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use session_store::kv::d1::{D1Config, D1Store};
use session_store::kv::workers::{WorkersKvCache, WorkersKvConfig};
use session_store::{
    Error, Host, Layered, LayeredConfig, Policy, PrimaryStore, Result, Sessions, Ttl, Visibility,
};
use worker::Env;

pub(crate) type App = Sessions<D1Store, WorkersKvCache>;

/// Whether a request of this isolate has registered the cache in the database and compared the clocks:
/// two reads of D1 that are asked for once.
static IS_REGISTERED: AtomicBool = AtomicBool::new(false);

pub(crate) fn open(env: &Env, host: Host) -> Result<App> {
    let mut kv = WorkersKvConfig::default();
    let mut d1 = D1Config::default();
    kv.binding = named(env, "SESSION_KV").unwrap_or(kv.binding);
    d1.binding = named(env, "SESSION_DB").unwrap_or(d1.binding);
    let cache = WorkersKvCache::from_env(env, &kv, host.clock.clone())?;
    let truth = D1Store::from_env(env, &d1)?;
    let store = Layered::new(truth, cache, config(env)?, host)?;
    // Else the first lookup does it. If D1 is down then, hits are served all the same, and the next
    // request tries again.
    if IS_REGISTERED.load(Ordering::Relaxed) {
        store.registered_before();
    }
    Sessions::new(store, Policy::default())
}

/// Refuses a database of another schema: asked by the first request of an isolate, in the read that
/// registers the cache. An outage is for whoever needs the database then.
pub(crate) async fn check(app: &App) -> Result<()> {
    if app.store().is_registered() {
        return Ok(());
    }
    let patience = app.store().host().runtime.sleep(app.store().config().cache_deadline);
    match select(pin!(app.store().register()), patience).await {
        Either::Left((Err(error), _)) if !error.is_retryable() => Err(error),
        Either::Left(_) | Either::Right(_) => Ok(()),
    }
}

/// From when on no location accepts a session that the database does not know any more.
pub(crate) async fn bound(app: &App) -> Result<Visibility> {
    let own = app.store().guarantee().healthy;
    let caches = app.store().primary().caches().await?;
    // Another deployment may have one whose entries live for longer.
    let others = caches.iter().map(|cache| Visibility::Within(cache.ttl.as_duration()));
    Ok(others.fold(own, Visibility::weaker))
}

/// Keeps for the next request what this one has found out.
pub(crate) fn remember(app: &App) {
    IS_REGISTERED.store(app.store().is_registered(), Ordering::Relaxed);
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
    config.read_deadline = Duration::from_secs(5);
    Ok(config)
}

fn named(env: &Env, variable: &str) -> Option<String> {
    env.var(variable).ok().map(|value| value.to_string())
}
