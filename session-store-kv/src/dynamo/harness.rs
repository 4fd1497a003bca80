//! How the conformance suite gets at stores and caches: a table of its own for each case.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Credentials, Region, SharedHttpClient};
use aws_sdk_dynamodb::types::AttributeValue;
use session_store_core::conformance::{Deed, Guard, PrimaryHarness, SecondaryHarness, TestClock};
use session_store_core::{
    BoxFuture, CacheKey, Error, PrimaryStore, Result, SecondaryStore, SessionId,
};

use super::call::Calls;
use super::config::{CallConfig, DynamoCacheConfig, DynamoConfig};
use super::error::{Effect, Fault, NAME, classify};
use super::key::Key;
use super::row::{number, text};
use super::step::Terms;
use super::{DynamoCache, DynamoStore, create_table};

/// The variable that names the server.
const URL: &str = "SESSION_STORE_DYNAMODB_URL";
/// The clock of a case stands where the case wants it, and that of the server's own removal does not:
/// what the suite writes must never be garbage.
const GARBAGE_AFTER: Duration = Duration::from_hours(50 * 365 * 24);

/// Numbers the harnesses of this process.
static MADE: AtomicU64 = AtomicU64::new(0);

/// Stores on a server that speaks DynamoDB's protocol.
#[derive(Debug)]
pub struct DynamoHarness {
    url: String,
    /// Tells the tables of this run from those of others.
    run: String,
    /// What the stores and caches under test send their calls with.
    http: fn() -> SharedHttpClient,
}

impl DynamoHarness {
    /// A harness on the server of `SESSION_STORE_DYNAMODB_URL`; without it, an error that says how to
    /// get one.
    pub fn from_env() -> Result<Self> {
        let url = std::env::var(URL).map_err(|_| {
            let what = "SESSION_STORE_DYNAMODB_URL is not set: run `cargo xtask test`, which starts a \
                        server, or set it to one with `cargo xtask servers env`";
            Error::configuration(NAME, what)
        })?;
        Ok(Self::new(url))
    }

    /// A harness on the server at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let run = format!("t{}_{}_{number}", std::process::id(), since.subsec_nanos());
        Self { url: url.into(), run, http: plain }
    }

    /// The same, whose stores and caches have HTTP clients that `http` makes; what the harness does
    /// itself has not.
    #[must_use]
    pub fn with_http(self, http: fn() -> SharedHttpClient) -> Self {
        Self { http, ..self }
    }

    /// What a client needs but its HTTP: the server, a region, and credentials that nobody checks.
    pub fn client_config(&self) -> aws_sdk_dynamodb::config::Builder {
        Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(&self.url)
            .credentials_provider(Credentials::new("test", "test", None, None, "harness"))
    }

    /// A client with connections of its own: they end with the runtime that made them.
    pub fn client(&self) -> Client {
        Client::from_conf(self.client_config().http_client(plain()).build())
    }

    fn client_under_test(&self) -> Client {
        Client::from_conf(self.client_config().http_client((self.http)()).build())
    }

    /// The table of `namespace`.
    pub fn table(&self, namespace: &str) -> String {
        format!("{}_{namespace}", self.run)
    }

    /// A configuration for that table.
    pub fn config(&self, namespace: &str) -> DynamoConfig {
        let mut config = DynamoConfig::new(self.table(namespace));
        config.garbage_after = GARBAGE_AFTER;
        // The machine that runs the suite may have a lot to do.
        config.calls.timeout = Duration::from_mins(1);
        config.calls.patience = Duration::from_mins(2);
        config
    }

    /// The same, for a table that is made anew.
    pub async fn fresh(&self, namespace: &str) -> Result<DynamoConfig> {
        fresh(&self.client(), &self.table(namespace)).await?;
        Ok(self.config(namespace))
    }

    /// Everything that is stored.
    pub async fn items(
        &self,
        namespace: &str,
    ) -> Result<Vec<std::collections::HashMap<String, AttributeValue>>> {
        let config = self.config(namespace);
        let calls = Calls::new(self.client(), &config.table, &config.calls);
        let (mut all, mut start) = (Vec::new(), None);
        loop {
            let (items, next) = calls.scan(start).await?;
            all.extend(items);
            if next.is_none() {
                return Ok(all);
            }
            start = next;
        }
    }
}

fn plain() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_http()
}

async fn fresh(client: &Client, table: &str) -> Result<()> {
    // As long as the cases themselves may wait for a machine with a lot to do.
    let config = CallConfig { timeout: Duration::from_mins(1), ..CallConfig::default() };
    let calls = Calls::new(client.clone(), table, &config);
    let gone = calls.in_time(client.delete_table().table_name(table).send()).await;
    // That there was none is the usual case.
    let _ = gone.map_err(Fault::into_error)?;
    create_table(client, table).await
}

#[async_trait]
impl PrimaryHarness for DynamoHarness {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn open(&self, namespace: &str) -> Result<(Arc<dyn PrimaryStore>, Guard)> {
        let config = self.fresh(namespace).await?;
        let store = DynamoStore::connect(self.client_under_test(), &config).await?;
        Ok((Arc::new(store), Box::new(())))
    }

    async fn reopen(&self, namespace: &str) -> Result<Arc<dyn PrimaryStore>> {
        let config = self.config(namespace);
        Ok(Arc::new(DynamoStore::connect(self.client_under_test(), &config).await?))
    }

    async fn by_hand(&self, namespace: &str, deed: &Deed) -> Result<bool> {
        let client = self.client();
        let delete = |key: Key| {
            let delete = client.delete_item().table_name(self.table(namespace));
            delete.set_key(Some(key.into_item())).send()
        };
        let update = |key: Key, terms: Terms| {
            let update = client.update_item().table_name(self.table(namespace));
            let update = update.set_key(Some(key.into_item()));
            let update = update.set_update_expression(terms.change_text());
            let update = update.set_condition_expression(terms.condition_text());
            let update = update.set_expression_attribute_names(terms.names());
            update.set_expression_attribute_values(terms.values()).send()
        };
        let there = "attribute_exists(#pk)";
        let failed = match deed {
            Deed::DeleteUser(user) => {
                delete(Key::user(user)).await.err().map(|failed| classify(Effect::Writes, &failed))
            }
            Deed::DeleteSession(id) => {
                delete(Key::session(id)).await.err().map(|failed| classify(Effect::Writes, &failed))
            }
            Deed::Damage(id) => {
                let terms = Terms::change("SET #amr = :amr", there).with(":amr", number(1));
                let done = update(Key::session(id), terms).await;
                done.err().map(|failed| classify(Effect::Writes, &failed))
            }
            Deed::SetRole(user, role) => {
                let terms = Terms::change("SET #role = :role", there).with(":role", text(*role));
                let done = update(Key::user(user), terms).await;
                done.err().map(|failed| classify(Effect::Writes, &failed))
            }
        };
        failed.map_or(Ok(true), |failed| Err(failed.into_error()))
    }

    async fn dump(&self, namespace: &str) -> Result<Option<Vec<u8>>> {
        let mut all = Vec::new();
        for item in self.items(namespace).await? {
            for (name, value) in &item {
                all.extend_from_slice(name.as_bytes());
                write_value(&mut all, value);
            }
        }
        Ok(Some(all))
    }

    fn patience(&self) -> BoxFuture<'static, ()> {
        patience()
    }
}

/// The bytes of a value as they are stored.
fn write_value(all: &mut Vec<u8>, value: &AttributeValue) {
    match value {
        AttributeValue::S(text) | AttributeValue::N(text) => {
            all.extend_from_slice(text.as_bytes());
            // An id is stored as its digits; whoever searches the dump knows its bytes.
            all.extend(SessionId::parse(text).iter().flat_map(|id| *id.as_bytes()));
        }
        AttributeValue::B(blob) => all.extend_from_slice(blob.as_ref()),
        AttributeValue::L(values) => values.iter().for_each(|value| write_value(all, value)),
        _ => {}
    }
    all.push(b'\n');
}

/// Caches on the same kind of server, whose time is the case's.
#[derive(Debug)]
pub struct DynamoCacheHarness {
    server: DynamoHarness,
    opened: AtomicU64,
}

impl DynamoCacheHarness {
    /// A harness on the server of `SESSION_STORE_DYNAMODB_URL`, as for [`DynamoHarness`].
    pub fn from_env() -> Result<Self> {
        DynamoHarness::from_env().map(Self::over)
    }

    /// A harness on the server at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self::over(DynamoHarness::new(url))
    }

    /// A harness on the server of another one.
    pub fn over(server: DynamoHarness) -> Self {
        Self { server, opened: AtomicU64::new(0) }
    }
}

#[async_trait]
impl SecondaryHarness for DynamoCacheHarness {
    fn name(&self) -> &'static str {
        "dynamodb-cache"
    }

    async fn open(&self, clock: &Arc<TestClock>) -> Result<(Arc<dyn SecondaryStore>, Guard)> {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let mut config = DynamoCacheConfig::new(self.server.table(&format!("cache_{number}")));
        config.garbage_after = GARBAGE_AFTER;
        config.calls.timeout = Duration::from_mins(1);
        fresh(&self.server.client(), &config.table).await?;
        let client = self.server.client_under_test();
        let cache = DynamoCache::connect(client, &config, Arc::clone(clock) as _).await?;
        Ok((Arc::new(cache), Box::new(())))
    }

    async fn pass_time(&self, clock: &TestClock, length: Duration) {
        clock.advance(length);
    }

    async fn evict(&self, store: &Arc<dyn SecondaryStore>, key: &CacheKey) -> Result<bool> {
        // DynamoDB evicts nothing; what is gone is gone just as after a removal.
        store.remove(std::slice::from_ref(key)).await?;
        Ok(true)
    }

    fn patience(&self) -> BoxFuture<'static, ()> {
        patience()
    }
}

fn patience() -> BoxFuture<'static, ()> {
    // Some cases make thousands of calls, one after the other.
    Box::pin(tokio::time::sleep(Duration::from_mins(5)))
}
