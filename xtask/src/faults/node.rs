//! One node of an application, as it would be shipped: Postgres, Redis and `Sessions` over both.

use std::sync::Arc;
use std::time::Duration;

use session_store::postgres::{PostgresConfig, PostgresStore};
use session_store::redis::{Client, RedisCache, RedisConfig};
use session_store::{
    Authentication, Layered, LayeredConfig, Login, MaintenanceConfig, Policy, PrimaryStore,
    Sessions, Source, Token, Ttl, User, UserId, tokio_host,
};

use super::{at_last, until};

/// How long an entry and a lease may live here: short, so that a bound can be waited for.
pub(super) const CACHE_TTL: Duration = Duration::from_secs(5);
pub(super) const LEASE_TTL: Duration = Duration::from_secs(1);
/// How long an entry lives where none may end by itself while something is shown.
pub(super) const LONG: Duration = Duration::from_mins(2);

/// How long an answer from the cache may be waited for: as long as an entry and a lease of somebody else
/// may be in the way, and longer where a machine is busy.
const WARM: Duration = Duration::from_secs(20);

pub(super) type App = Sessions<Arc<dyn PrimaryStore>, Arc<RedisCache>>;
pub(super) type Outcome<T = ()> = Result<T, String>;

/// Turns any error into the text of a failed case.
pub(super) fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// How the servers that `line` names are used. A busy machine is no outage, so they may take their time:
/// what is late fails a removal, and a first connection that is late is a change to be waited out.
pub(super) fn cache_at(line: &str, client: Client) -> Outcome<RedisConfig> {
    let mut config = RedisConfig::parse(line).map_err(said)?;
    config.client = client;
    config.deadline = Duration::from_secs(5);
    config.connect_timeout = Duration::from_secs(10);
    Ok(config)
}

/// The same under a load, which copes with what is late, and is there to see what waits for too long.
pub(super) fn cache_in_use(line: &str, client: Client) -> Outcome<RedisConfig> {
    let mut config = RedisConfig::parse(line).map_err(said)?;
    config.client = client;
    config.deadline = Duration::from_secs(1);
    Ok(config)
}

/// A node, with its maintenance running.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) app: App,
    pub(super) cache: Arc<RedisCache>,
    pub(super) truth: PostgresStore,
    maintenance: tokio::task::JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.maintenance.abort();
    }
}

impl Node {
    /// A node on a database and the servers that `line` names.
    pub(super) async fn start(truth: &PostgresConfig, line: &str, client: Client) -> Outcome<Self> {
        Self::with(truth, &cache_at(line, client)?).await
    }

    /// The same with a configuration of the cache.
    pub(super) async fn with(truth: &PostgresConfig, cache: &RedisConfig) -> Outcome<Self> {
        Self::tuned(truth, cache, |_| {}).await
    }

    /// The same with other times.
    pub(super) async fn tuned(
        truth: &PostgresConfig,
        cache: &RedisConfig,
        tune: impl FnOnce(&mut LayeredConfig),
    ) -> Outcome<Self> {
        // Nodes on one schema share their entries, whatever else is on the servers.
        let prefix = format!("{}:", truth.schema.as_deref().unwrap_or("ss"));
        let truth_config = truth;
        let truth = PostgresStore::connect(truth_config).await.map_err(said)?;
        // A removal may wait for replicas.
        let waits = cache.wait.map(|wait| wait.timeout).unwrap_or_default();
        let cache_deadline = cache.deadline + waits + Duration::from_secs(2);
        let cache = Arc::new(RedisCache::new(cache).map_err(said)?);
        let mut config = LayeredConfig::default();
        config.cache_ttl = Ttl::new(CACHE_TTL);
        config.lease_ttl = Ttl::new(LEASE_TTL).unwrap_or(Ttl::MIN);
        config.cache_deadline = cache_deadline;
        // A busy machine is no outage.
        config.read_wait = truth_config.connect_timeout;
        config.read_deadline = truth_config.deadline;
        config.key_prefix = prefix;
        tune(&mut config);
        let primary: Arc<dyn PrimaryStore> = Arc::new(truth.clone());
        let store = Layered::new(primary, Arc::clone(&cache), config, tokio_host());
        let app = Sessions::new(store.map_err(said)?, Policy::default()).map_err(said)?;
        let maintenance = app.maintenance(MaintenanceConfig::default()).map_err(said)?;
        let maintenance = tokio::spawn(maintenance.run());
        Ok(Self { app, cache, truth, maintenance })
    }

    /// Ends the background work, so that nobody but the case talks to the servers.
    pub(super) fn rest(&self) {
        self.maintenance.abort();
    }

    /// Waits until nothing that the cache has lost and brought back can be left.
    pub(super) async fn wait_out(&self) {
        tokio::time::sleep(self.app.store().guarantee().rollback.unwrap_or_default()).await;
    }

    /// Registers the user of the tests.
    pub(super) async fn register(&self) -> Outcome {
        let user = User::new(user()?, self.app.now());
        self.app.register_user(&user).await.map_err(said)
    }

    /// The same, if an attempt before has not done so already.
    pub(super) async fn register_once(&self) -> Outcome {
        match self.register().await {
            Err(_) if self.is_registered().await => Ok(()),
            outcome => outcome,
        }
    }

    /// Whether that user is there.
    async fn is_registered(&self) -> bool {
        let Ok(user) = user() else { return false };
        self.app.find_user(&user).await.is_ok_and(|found| found.is_some())
    }

    /// Logs that user in.
    pub(super) async fn log_in(&self) -> Outcome<Token> {
        let account = self.app.find_user(&user()?).await.map_err(said)?;
        let account = account.ok_or("the user is not there")?;
        Ok(self.app.create(Login::of(&account)).await.map_err(said)?.token)
    }

    /// Logs that user in and lets the cache learn of it.
    pub(super) async fn log_in_warm(&self) -> Outcome<Token> {
        let token = self.log_in().await?;
        until(WARM, "an answer comes from the cache", async || {
            let live = self.app.authenticate(&token).await.live();
            live.is_some_and(|live| live.source == Source::Secondary)
        })
        .await?;
        Ok(token)
    }

    /// Whether the database itself lets the token in.
    pub(super) async fn finds(&self, token: &Token) -> bool {
        let live = self.app.authenticate_fresh(token).await.live();
        live.is_some_and(|live| live.source == Source::Primary)
    }

    /// Whether the node can't say who the token is, which is no logout.
    pub(super) async fn is_at_a_loss(&self, token: &Token) -> bool {
        matches!(self.app.authenticate(token).await, Authentication::Unavailable(_))
    }

    /// Whether the node lets the token in.
    pub(super) async fn accepts(&self, token: &Token) -> bool {
        self.app.authenticate(token).await.live().is_some()
    }
}

/// Two nodes under a load on one database and the servers that `line` names, and the user of the tests.
pub(super) async fn two(
    truth: &PostgresConfig,
    line: &str,
    client: Client,
) -> Outcome<[Arc<Node>; 2]> {
    two_tuned(truth, &cache_in_use(line, client)?, |_| {}).await
}

/// The same with a configuration of the cache and other times.
pub(super) async fn two_tuned(
    truth: &PostgresConfig,
    cache: &RedisConfig,
    tune: impl Fn(&mut LayeredConfig),
) -> Outcome<[Arc<Node>; 2]> {
    let node = async || Node::tuned(truth, cache, &tune).await;
    let nodes = [at_last(node).await?, at_last(node).await?];
    at_last(async || nodes[0].register_once().await).await?;
    Ok(nodes.map(Arc::new))
}

pub(super) fn user() -> Outcome<UserId> {
    UserId::new("ada").map_err(said)
}
