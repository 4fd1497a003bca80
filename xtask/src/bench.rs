//! `cargo xtask bench`: what our code costs on top of the bare drivers, as ratios of one run.
//!
//! Contenders take turns in short rounds, so that a busy machine slows all of them alike; the median
//! of the rounds counts.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use session_store::memory::{MemoryCache, MemoryCacheConfig};
use session_store::postgres::{PostgresConfig, PostgresHarness, PostgresStore};
use session_store::redis::{Client, RedisCache, RedisConfig};
use session_store::{
    CacheKey, Layered, LayeredConfig, Login, Policy, PrimaryStore, Reservation, SecondaryStore,
    Sessions, SwapTtl, Token, Topology, Ttl, User, UserId, tokio_host,
};
use sqlx::Row;

use crate::cli::{Failure, Verdict, say};
use crate::command::Program;
use crate::servers::{Addresses, Lease};

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(400);
/// How many callers there are at once.
const TASKS: usize = 64;

type Work = Box<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// Something that is done as often as possible.
struct Contender {
    name: &'static str,
    work: Work,
}

impl Contender {
    fn new<F>(name: &'static str, work: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        Self { name, work: Box::new(move || Box::pin(work())) }
    }

    /// How often per second; none if the work failed.
    async fn round(&self) -> Option<f64> {
        let began = Instant::now();
        let task = async || {
            let mut count = 0_u32;
            while began.elapsed() < ROUND {
                if !(self.work)().await {
                    return None;
                }
                count += 1;
            }
            Some(count)
        };
        let counts: Option<Vec<u32>> =
            join_all((0..TASKS).map(|_| task())).await.into_iter().collect();
        let count: u32 = counts?.iter().sum();
        Some(f64::from(count) / began.elapsed().as_secs_f64())
    }
}

/// Runs itself again, optimised.
pub(crate) fn run(root: &Path) -> Result<Verdict, Failure> {
    if !cfg!(debug_assertions) {
        let servers = Lease::take(root)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::io("tokio", &error))?;
        return runtime.block_on(measure(&servers.addresses)).map_err(Failure::new);
    }
    let optimised = Program::cargo("run --release --quiet --package xtask -- bench");
    Ok(if optimised.succeeds(root)? { Verdict::Held } else { Verdict::Broken })
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

async fn measure(servers: &Addresses) -> Result<Verdict, String> {
    let url = |name| servers.of(name).ok_or_else(|| format!("no {name}"));
    let harness = PostgresHarness::new(url("SESSION_STORE_POSTGRES_URL")?);
    let truth = harness.fresh("bench").await.map_err(said)?;
    compare("a point read of Postgres", postgres(&truth).await?).await?;
    let line = url("SESSION_STORE_REDIS_URL")?;
    compare("a read of Redis", redis(line).await?).await?;
    compare("who is this?", who(&truth, line).await?).await?;
    Ok(Verdict::Held)
}

/// Prints every contender against the first.
async fn compare(title: &str, contenders: Vec<Contender>) -> Result<(), String> {
    let mut rates = vec![Vec::new(); contenders.len()];
    for _ in 0..ROUNDS {
        for (contender, rates) in contenders.iter().zip(&mut rates) {
            let rate = contender.round().await;
            rates.push(rate.ok_or_else(|| format!("{} failed", contender.name))?);
        }
    }
    say(&format!("\n{title}, {TASKS} callers, median of {ROUNDS} rounds"));
    let mut base = None;
    for (contender, mut rates) in contenders.iter().zip(rates) {
        rates.sort_by(f64::total_cmp);
        let (median, best) = (rates[ROUNDS / 2], rates[ROUNDS - 1]);
        let base = *base.get_or_insert(median);
        say(&format!(
            "  {:<44} {:>5.2} of the first  ({median:>9.0}/s, best {best:.0})",
            contender.name,
            median / base
        ));
    }
    Ok(())
}

async fn postgres(config: &PostgresConfig) -> Result<Vec<Contender>, String> {
    let plain = PostgresStore::connect(config).await.map_err(said)?;
    let mut config = config.clone();
    config.test_before_acquire = true;
    let tested = PostgresStore::connect(&config).await.map_err(said)?;
    let user = User::new(UserId::new("ada").map_err(said)?, tokio_host().clock.now());
    plain.insert_user(&user, user.created_at).await.map_err(said)?;
    let id = log_in(&app(plain.clone(), memory())?).await?.id();
    let pool = plain.pool().clone();
    Ok(vec![
        Contender::new("sqlx, the row by its key", move || {
            let pool = pool.clone();
            async move {
                let sql = "SELECT data FROM sessions WHERE id = $1";
                let row = sqlx::query(sql).bind(id.as_bytes().to_vec()).fetch_one(&pool).await;
                row.is_ok_and(|row| row.try_get::<String, _>(0).is_ok())
            }
        }),
        Contender::new("PostgresStore::find", move || find(plain.clone(), id)),
        Contender::new("the same with test_before_acquire", move || find(tested.clone(), id)),
    ])
}

async fn find(store: PostgresStore, id: session_store::SessionId) -> bool {
    store.find(&id).await.is_ok_and(|found| found.snapshot.is_some())
}

async fn cache(line: &str, client: Client) -> Result<RedisCache, String> {
    let mut config = RedisConfig::parse(line).map_err(said)?;
    config.client = client;
    config.deadline = Duration::from_secs(5);
    RedisCache::connect(&config).await.map_err(said)
}

async fn redis(line: &str) -> Result<Vec<Contender>, String> {
    let client = redis::Client::open(line).map_err(said)?;
    let bare = client.get_multiplexed_async_connection().await.map_err(said)?;
    let caches = [cache(line, Client::Redis).await?, cache(line, Client::Fred).await?];
    let key = CacheKey::new(format!("bench:{}", std::process::id())).map_err(said)?;
    let ttl = Ttl::new(Duration::from_mins(10)).unwrap_or(Ttl::MIN);
    let Reservation::Granted(lease) = caches[0].reserve(&key, ttl).await.map_err(said)? else {
        return Err("the key is taken".to_owned());
    };
    let record = session_store::Record::new(vec![b'V'; 256]);
    let put = caches[0].swap(&key, &lease, Some(&record), SwapTtl::Set(ttl)).await;
    put.map_err(said)?;
    let name = key.as_str().to_owned();
    let mut all = vec![Contender::new("redis, GET of 256 bytes", move || {
        let (mut bare, name) = (bare.clone(), name.clone());
        async move {
            let got: Result<Vec<u8>, _> = redis::cmd("GET").arg(name).query_async(&mut bare).await;
            got.is_ok_and(|bytes| bytes.len() == 256)
        }
    })];
    for (cache, name) in caches.into_iter().zip(["RedisCache::get by redis", "the same by fred"]) {
        let key = key.clone();
        all.push(Contender::new(name, move || {
            let (cache, key) = (cache.clone(), key.clone());
            async move { matches!(cache.get(&key).await, Ok(Some(_))) }
        }));
    }
    Ok(all)
}

type App = Sessions<Arc<dyn PrimaryStore>, Arc<dyn SecondaryStore>>;

fn memory() -> Arc<dyn SecondaryStore> {
    Arc::new(MemoryCache::new(&MemoryCacheConfig::default(), tokio_host().clock))
}

fn app(truth: PostgresStore, cache: Arc<dyn SecondaryStore>) -> Result<App, String> {
    let mut config = LayeredConfig::default();
    config.topology = Topology::SingleProcess;
    config.key_prefix = format!("bench{}:", std::process::id());
    config.cache_deadline = Duration::from_secs(5);
    let truth: Arc<dyn PrimaryStore> = Arc::new(truth);
    let store = Layered::new(truth, cache, config, tokio_host()).map_err(said)?;
    Sessions::new(store, Policy::default()).map_err(said)
}

async fn log_in(app: &App) -> Result<Token, String> {
    let account = app.find_user(&UserId::new("ada").map_err(said)?).await.map_err(said)?;
    let login = Login::of(&account.ok_or("no such user")?);
    Ok(app.create(login).await.map_err(said)?.token)
}

/// The same question to every pair of stores, answered by the cache; and by the database alone.
async fn who(truth: &PostgresConfig, line: &str) -> Result<Vec<Contender>, String> {
    let truth = PostgresStore::connect(truth).await.map_err(said)?;
    let pairs: [(&str, Arc<dyn SecondaryStore>); 4] = [
        ("Postgres, no cache", Arc::new(session_store::NoCache::new())),
        ("Postgres and Redis by redis", Arc::new(cache(line, Client::Redis).await?)),
        ("Postgres and Redis by fred", Arc::new(cache(line, Client::Fred).await?)),
        ("Postgres and a cache in the process", memory()),
    ];
    let mut all = Vec::new();
    for (name, cache) in pairs {
        let app = Arc::new(app(truth.clone(), cache)?);
        let token = Arc::new(log_in(&app).await?);
        all.push(Contender::new(name, move || {
            let (app, token) = (Arc::clone(&app), Arc::clone(&token));
            async move { app.authenticate(&token).await.live().is_some() }
        }));
    }
    Ok(all)
}
