//! Input and surroundings that can't work, as the real bindings see them: each is an error of a kind, and
//! says what to do.
//!
//! `KV_BUSY` is a namespace that answers every write as Workers KV does when a key is written too often.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use session_store_core::{
    CacheKey, Clock, ErrorKind, Json, Layered, LayeredConfig, Login, Metadata, Policy,
    PrimaryStore, Record, Result, SecondaryStore, SessionId, Sessions, Source, SwapTtl, Ttl, User,
    UserChange, UserId,
};
use session_store_kv::d1::{D1Config, D1Store};
use session_store_kv::workers::{WorkerClock, WorkersKvCache, WorkersKvConfig, worker_host};
use worker::{Context, Env};

/// The largest value of Workers KV, and what the cache puts before a record.
const LARGEST: usize = 25 * 1024 * 1024;
const HEADER: usize = 18;

type Outcome = std::result::Result<(), String>;

fn ensure(holds: bool, what: impl Display) -> Outcome {
    if holds { Ok(()) } else { Err(what.to_string()) }
}

/// Whether `result` is an error of a kind that `is_wanted`, whose text has every one of `parts`.
fn refused<T>(result: Result<T>, is_wanted: fn(&ErrorKind) -> bool, parts: &[&str]) -> Outcome {
    let Err(error) = result else { return Err("it was not refused".to_owned()) };
    let text = error.to_string();
    ensure(is_wanted(error.kind()), format!("{:?}", error.kind()))?;
    ensure(parts.iter().all(|part| text.contains(part)), text)
}

fn is_configuration(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::Configuration { .. })
}

fn is_schema(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::SchemaMismatch { .. })
}

fn is_too_large(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::TooLarge { .. })
}

fn cache(env: &Env, binding: &str) -> Result<WorkersKvCache> {
    let mut config = WorkersKvConfig::default();
    binding.clone_into(&mut config.binding);
    WorkersKvCache::from_env(env, &config, Arc::new(WorkerClock))
}

fn database(env: &Env, binding: &str, prefix: &str) -> Result<D1Store> {
    let mut config = D1Config::default();
    (config.binding, config.table_prefix) = (binding.to_owned(), prefix.to_owned());
    D1Store::from_env(env, &config)
}

fn told(error: impl Display) -> String {
    error.to_string()
}

/// Every check, in order.
pub(crate) async fn all(env: &Env, context: &Context) -> Value {
    let checks: [(&str, Outcome); 12] = [
        ("a binding that is not there is named, and where to add it", bindings(env)),
        ("a key of 513 bytes is refused as KV refuses it", keys(env).await),
        ("a record that is too large is refused before the call", sizes(env).await),
        ("a record of another version is a miss", versions(env).await),
        ("a key that is written too often is unavailable, not broken", busy(env).await),
        ("and a lookup goes on without it", busy_lookup(env, context).await),
        ("a database without tables says how to get them", tables(env).await),
        ("one of another version says which", schemas(env).await),
        ("session data that are too large are refused", data(env, context).await),
        ("so are a user's claims", claims(env).await),
        ("a reserved name is no prefix", reserved(env)),
        ("a full database is not asked again", full(env).await),
    ];
    let line = |(name, outcome): &(&str, Outcome)| {
        let detail = outcome.as_ref().err().cloned().unwrap_or_default();
        json!({ "check": name, "passed": outcome.is_ok(), "detail": detail })
    };
    checks.iter().map(line).collect()
}

fn bindings(env: &Env) -> Outcome {
    refused(cache(env, "NOWHERE"), is_configuration, &["NOWHERE", "kv_namespaces", "wrangler"])?;
    // There is one of that name, and it is something else.
    refused(cache(env, "DB"), is_configuration, &["DB", "kv_namespaces"])?;
    let nowhere = database(env, "NOWHERE", "");
    refused(nowhere, is_configuration, &["NOWHERE", "d1_databases", "wrangler"])?;
    refused(database(env, "KV", ""), is_configuration, &["KV", "d1_databases"])
}

async fn keys(env: &Env) -> Outcome {
    let long = "k".repeat(513);
    refused(CacheKey::new(&long), is_too_large, &["cache key", "400"])?;
    let kv = env.kv("KV").map_err(told)?;
    let Err(error) = kv.get(&long).text().await else { return Err("KV took it".to_owned()) };
    ensure(error.to_string().contains("failed: 414"), error)?;
    kv.get(&long[1..]).text().await.map(drop).map_err(told)
}

async fn sizes(env: &Env) -> Outcome {
    let cache = cache(env, "KV").map_err(told)?;
    let key = CacheKey::new("large").map_err(told)?;
    let lease = cache.reserve(&key, Ttl::MIN).await.map_err(told)?;
    let session_store_core::Reservation::Granted(lease) = lease else {
        return Err("no lease".to_owned());
    };
    let ttl = SwapTtl::Set(Ttl::new(Duration::from_mins(1)).unwrap_or(Ttl::MIN));
    let put = async |size: usize| {
        let record = Record::new(vec![b'V'; size]);
        cache.swap(&key, &lease, Some(&record), ttl).await
    };
    refused(put(LARGEST - HEADER + 1).await, is_too_large, &["cache record", "26214382"])?;
    ensure(put(LARGEST - HEADER).await.map_err(told)?, "not stored")?;
    let found = cache.get(&key).await.map_err(told)?;
    ensure(found.is_some_and(|found| found.as_bytes().len() == LARGEST - HEADER), "not there")?;
    cache.remove(std::slice::from_ref(&key)).await.map_err(told)?;
    let kv = env.kv("KV").map_err(told)?;
    let put = kv.put_bytes("larger", &vec![0; LARGEST + 1]).map_err(told)?;
    let Err(error) = put.execute().await else { return Err("KV took it".to_owned()) };
    ensure(error.to_string().contains("failed: 413"), error)
}

async fn versions(env: &Env) -> Outcome {
    let (kv, cache) = (env.kv("KV").map_err(told)?, cache(env, "KV").map_err(told)?);
    let now = WorkerClock.now();
    let times = [now.as_millis(), now.as_millis() + 60_000].map(i64::to_be_bytes).concat();
    let key = CacheKey::new("other-version").map_err(told)?;
    // As this version writes it, as the next one might, and something else.
    for (head, is_read) in [(&b"K\x01"[..], true), (b"K\x02", false), (b"{}", false)] {
        let bytes = [head, &times, b"Vx"].concat();
        let put = kv.put_bytes(key.as_str(), &bytes).map_err(told)?;
        put.execute().await.map_err(told)?;
        let found = cache.get(&key).await.map_err(told)?;
        ensure(found.is_some() == is_read, format!("{head:?}: {found:?}"))?;
    }
    cache.remove(std::slice::from_ref(&key)).await.map_err(told)
}

async fn busy(env: &Env) -> Outcome {
    let cache = cache(env, "KV_BUSY").map_err(told)?;
    let key = CacheKey::new("busy").map_err(told)?;
    let (lease, record) = (Record::lease(b"1"), Record::new(b"Vx".as_slice()));
    let ttl = SwapTtl::Set(Ttl::MIN);
    let put = cache.swap(&key, &lease, Some(&record), ttl).await.map(drop);
    for refusal in [put, cache.remove(std::slice::from_ref(&key)).await] {
        let error = refusal.err().ok_or("not refused")?;
        ensure(*error.kind() == ErrorKind::Unavailable && error.is_retryable(), &error)?;
        let said = std::error::Error::source(&error).map(told).unwrap_or_default();
        ensure(said.contains("429"), said)?;
    }
    Ok(())
}

type App = Sessions<D1Store, WorkersKvCache>;

async fn app(env: &Env, context: &Context, kv: &str, prefix: &str) -> Result<App> {
    let truth = database(env, "DB", prefix)?;
    truth.migrate().await?;
    let host = worker_host(context);
    let store = Layered::new(truth, cache(env, kv)?, LayeredConfig::default(), host)?;
    Sessions::new(store, Policy::default())
}

async fn busy_lookup(env: &Env, context: &Context) -> Outcome {
    let app = app(env, context, "KV_BUSY", "busy_").await.map_err(told)?;
    let user = User::new(UserId::new("ada").map_err(told)?, app.now());
    app.register_user(&user).await.map_err(told)?;
    let login = Login::new(user.id, session_store_core::CredentialEpoch::default());
    let token = app.create(login).await.map_err(told)?.token;
    let live = app.authenticate(&token).await.live().ok_or("not accepted")?;
    ensure(live.source == Source::Primary, format!("{:?}", live.source))?;
    let done = app.logout(&token).await.map_err(told)?;
    ensure(done.count == 1 && done.visibility.bound() > Duration::ZERO, format!("{done:?}"))?;
    // The log knows what is still to be removed.
    ensure(app.store().drain().await.is_err(), "drained without a cache")
}

async fn tables(env: &Env) -> Outcome {
    let store = database(env, "DB", "nowhere_").map_err(told)?;
    let id = SessionId::generate(WorkerClock.now()).map_err(told)?;
    for refusal in [store.check().await, store.find(&id).await.map(drop)] {
        refused(refusal, is_schema, &["wrangler d1 migrations apply", "D1Store::migrate"])?;
    }
    Ok(())
}

async fn schemas(env: &Env) -> Outcome {
    let store = database(env, "DB", "later_").map_err(told)?;
    store.migrate().await.map_err(told)?;
    let d1 = env.d1("DB").map_err(told)?;
    d1.exec("UPDATE later_session_schema SET version = 99").await.map_err(told)?;
    let read = store.caches().await.map(drop);
    for refusal in [store.check().await, store.migrate().await, read] {
        refused(refusal, is_schema, &["99", "knows 1", "deploy", "wrangler d1 migrations apply"])?;
    }
    d1.exec("UPDATE later_session_schema SET version = 0").await.map_err(told)?;
    refused(store.check().await, is_schema, &["[0]", "knows 1", "wrangler d1 migrations apply"])?;
    Ok(())
}

async fn data(env: &Env, context: &Context) -> Outcome {
    let app = app(env, context, "KV", "large_").await.map_err(told)?;
    let data = |size: usize| Json::parse(format!("\"{}\"", "x".repeat(size))).map_err(told);
    // The policy refuses more than it allows, and the store more than D1 takes.
    let guest = app.create_guest(Metadata::default(), data(1 << 20)?).await;
    refused(guest, is_too_large, &["session data"])?;
    let token = app.create_guest(Metadata::default(), data(9)?).await.map_err(told)?.token;
    let primary = app.store().primary();
    let found = primary.find(&token.id()).await.map_err(told)?.snapshot.ok_or("not there")?;
    let mut new = found.session;
    (new.id, new.data) = (SessionId::generate(app.now()).map_err(told)?, data(1 << 20)?);
    let new = session_store_core::NewSession { session: new, limit: None };
    refused(primary.insert(&new, app.now()).await, is_too_large, &["session data", "1048576"])
}

async fn claims(env: &Env) -> Outcome {
    let store = database(env, "DB", "claims_").map_err(told)?;
    store.migrate().await.map_err(told)?;
    let now = WorkerClock.now();
    let mut user = User::new(UserId::new("ada").map_err(told)?, now);
    store.insert_user(&user, now).await.map_err(told)?;
    let large = Json::parse(format!("\"{}\"", "x".repeat(2_100_000))).map_err(told)?;
    let change = UserChange { claims: Some(large.clone()), ..UserChange::default() };
    let changed = store.update_user(&user.id, user.version, &change).await.map(drop);
    refused(changed, is_too_large, &["user claims", "1048576"])?;
    (user.id, user.claims) = (UserId::new("bob").map_err(told)?, large);
    refused(store.insert_user(&user, now).await, is_too_large, &["user claims", "1048576"])
}

fn reserved(env: &Env) -> Outcome {
    for prefix in ["sqlite_", "_cf_auth_"] {
        let store = database(env, "DB", prefix);
        refused(store, is_configuration, &["table_prefix", "reserved", "another"])?;
    }
    Ok(())
}

async fn full(env: &Env) -> Outcome {
    let store = database(env, "DB_FULL", "").map_err(told)?;
    let now = WorkerClock.now();
    let user = User::new(UserId::new("ada").map_err(told)?, now);
    refused(store.insert_user(&user, now).await, is_configuration, &["full", "remove", "plan"])
}
