//! A store of its own for each test, on a wire that can be bent.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use session_store_core::conformance::TestClock;
use session_store_core::{
    BoxFuture, CredentialEpoch, Error, ErrorKind, Host, Json, Metadata, NewSession, PrimaryStore,
    Runtime, SecretHash, Session, SessionId, SweepBounds, Timestamp, Ttl, User, UserId,
};
use session_store_kv::dynamo::{
    CallConfig, DynamoCache, DynamoCacheConfig, DynamoConfig, DynamoHarness, DynamoStore,
    create_table,
};
use tokio::sync::Semaphore;

use crate::wire::{CONFLICT, Mischief, Wire};

/// An item as the SDK has it.
pub(crate) type Item = std::collections::HashMap<String, AttributeValue>;

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// `seconds` after the beginning.
pub(crate) fn later(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

pub(crate) fn id(number: u32) -> SessionId {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&NOW.as_millis().to_be_bytes()[2..]);
    bytes[12..].copy_from_slice(&number.to_be_bytes());
    SessionId::from_bytes(bytes)
}

pub(crate) fn ada() -> UserId {
    UserId::new("ada").unwrap()
}

/// A guest's session that lives for an hour.
pub(crate) fn guest(number: u32) -> Session {
    Session {
        id: id(number),
        user_id: None,
        secret_hash: SecretHash::from_bytes([7; 32]),
        previous: None,
        created_at: NOW,
        authenticated_at: None,
        last_seen_at: NOW,
        expires_at: later(3600),
        absolute_expires_at: None,
        idle_timeout: Ttl::new(Duration::from_hours(1)).unwrap(),
        rotated_at: NOW,
        metadata: Metadata::default(),
        remember: false,
        aal: None,
        amr: Vec::new(),
        external_sid: None,
        data: Json::default(),
        version: 1,
        credential_epoch: CredentialEpoch::default(),
        revoked: None,
    }
}

/// The same, ada's.
pub(crate) fn session(number: u32) -> Session {
    Session { user_id: Some(ada()), ..guest(number) }
}

pub(crate) fn new(session: Session) -> NewSession {
    NewSession { session, limit: None }
}

/// A document of `length` bytes.
pub(crate) fn document(length: usize) -> Json {
    Json::parse(format!("\"{}\"", "x".repeat(length - 2))).unwrap()
}

pub(crate) fn bounds(expired: u64, revoked: u64) -> SweepBounds {
    SweepBounds { expired_before: later(expired), revoked_before: later(revoked) }
}

/// What kind of error it is, or a panic.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind().clone()
}

/// One table, and a store on a wire to it.
pub(crate) struct Lab {
    pub(crate) server: DynamoHarness,
    pub(crate) config: DynamoConfig,
    pub(crate) wire: Wire,
    pub(crate) store: DynamoStore,
    namespace: &'static str,
}

impl Lab {
    pub(crate) async fn new(namespace: &'static str) -> Self {
        Self::with(namespace, |_| ()).await
    }

    /// The same with other calls.
    pub(crate) async fn with(namespace: &'static str, set: impl FnOnce(&mut CallConfig)) -> Self {
        let server = DynamoHarness::from_env().unwrap();
        let mut config = server.fresh(namespace).await.unwrap();
        set(&mut config.calls);
        let wire = Wire::default();
        let client = client(&server, &wire);
        let store = DynamoStore::connect(client, &config).await.unwrap();
        wire.reset();
        Self { server, config, wire, store, namespace }
    }

    /// A node of its own, whose wire nobody bends.
    pub(crate) async fn node(&self) -> DynamoStore {
        DynamoStore::connect(self.server.client(), &self.config).await.unwrap()
    }

    /// Registers ada.
    pub(crate) async fn register(&self) {
        self.store.insert_user(&User::new(ada(), NOW), NOW).await.unwrap();
    }

    /// Registers ada and stores her sessions 1 to `count`: most of a crowd as copies of the first, since
    /// the server does one thing at a time.
    pub(crate) async fn log_in(&self, count: u32) {
        const MOST: u32 = 50;
        self.register().await;
        let logins = (1..=count.min(MOST)).map(|number| {
            let store = self.store.clone();
            let login = new(session(number));
            tokio::spawn(async move { PrimaryStore::insert(&store, &login, NOW).await })
        });
        for login in logins.collect::<Vec<_>>() {
            login.await.unwrap().unwrap();
        }
        self.copy_as((MOST + 1, count), |_| NOW, later(3600)).await;
        self.wire.reset();
    }

    /// How many items of `kind` are stored.
    pub(crate) async fn count(&self, kind: &str) -> usize {
        let items = self.server.items(self.namespace).await.unwrap();
        items.iter().filter(|item| item.get("k") == Some(&text(kind))).count()
    }

    /// The sort keys of everything filed in the queues, without the ids.
    pub(crate) async fn filed(&self) -> Vec<String> {
        let items = self.server.items(self.namespace).await.unwrap();
        let places = items.iter().filter(|item| item["k"].as_s().unwrap() == "deadline");
        let mut filed: Vec<String> =
            places.map(|item| item["sk"].as_s().unwrap()[..18].to_owned()).collect();
        filed.sort();
        filed
    }

    /// The attribute `ttl` of a session, in seconds.
    pub(crate) async fn ttl(&self, number: u32) -> i64 {
        let items = self.server.items(self.namespace).await.unwrap();
        let key = format!("S#{}", id(number));
        let item = items.iter().find(|item| *item["pk"].as_s().unwrap() == key).unwrap();
        item["ttl"].as_n().unwrap().parse().unwrap()
    }

    /// Sets the format of an item, as another version of this crate would have written it.
    pub(crate) async fn set_format(&self, pk: &str, format: u32) {
        let update = self.server.client().update_item().table_name(&self.config.table);
        let update = update.key("pk", text(pk)).key("sk", text("0"));
        let update = update.update_expression("SET v = :v");
        let format = AttributeValue::N(format.to_string());
        update.expression_attribute_values(":v", format).send().await.unwrap();
    }

    /// Files a session a second time, by a moment at which it does not end.
    pub(crate) async fn leave_place(&self, number: u32, at: u64) {
        let items = self.server.items(self.namespace).await.unwrap();
        let own = |item: &&std::collections::HashMap<String, AttributeValue>| {
            let is_own = item.get("id") == Some(&text(&id(number).to_string()));
            is_own && item["k"].as_s().unwrap() == "deadline"
        };
        let mut place = items.iter().find(own).unwrap().clone();
        let sk = format!("e#{:016x}#{}", later(at).as_millis(), id(number));
        place.insert("sk".to_owned(), text(&sk));
        let put = self.server.client().put_item().table_name(&self.config.table);
        put.set_item(Some(place)).send().await.unwrap();
    }

    /// An item as it is stored.
    pub(crate) async fn item(&self, pk: &str, sk: &str) -> Option<Item> {
        let get = self.server.client().get_item().table_name(&self.config.table);
        let get = get.key("pk", text(pk)).key("sk", text(sk)).consistent_read(true);
        get.send().await.unwrap().item
    }

    /// Stores an item as it is.
    pub(crate) async fn put(&self, item: Item) {
        let put = self.server.client().put_item().table_name(&self.config.table);
        put.set_item(Some(item)).send().await.unwrap();
    }

    /// Sets an attribute, or takes it away.
    pub(crate) async fn set(&self, pk: &str, name: &str, value: Option<AttributeValue>) {
        let mut item = self.item(pk, "0").await.unwrap();
        match value {
            Some(value) => _ = item.insert(name.to_owned(), value),
            None => _ = item.remove(name),
        }
        self.put(item).await;
    }

    /// Takes a session of ada and its entry away, as if its login were not visible yet; what is to be
    /// put back.
    pub(crate) async fn hide(&self, number: u32) -> [Item; 2] {
        let session = format!("S#{}", id(number));
        let entry = format!("s#{:016x}#{}", NOW.as_millis(), id(number));
        let mut hidden = Vec::new();
        for (pk, sk) in [(session.as_str(), "0"), ("U#ada", entry.as_str())] {
            hidden.push(self.item(pk, sk).await.unwrap());
            let delete = self.server.client().delete_item().table_name(&self.config.table);
            delete.key("pk", text(pk)).key("sk", text(sk)).send().await.unwrap();
        }
        hidden.try_into().unwrap()
    }

    /// Lets `work` meet a transaction that is under way: two reads of it conflict, and the third waits
    /// until `rest` has made it visible, which happens after a while also to whoever does not ask.
    pub(crate) async fn meeting<T>(
        &self,
        work: impl Future<Output = T>,
        rest: impl Future<Output = ()>,
    ) -> T {
        self.between((&CONFLICT, "TransactGetItems", 3), work, rest).await
    }

    /// Lets `work` go until it makes its call number `which` of `action`, and those before come to
    /// `before`; then `other` happens, or after a while if there is no such call, and then the rest.
    pub(crate) async fn between<T>(
        &self,
        (before, action, which): (&Mischief, &'static str, usize),
        work: impl Future<Output = T>,
        other: impl Future<Output = ()>,
    ) -> T {
        self.wire.reset();
        let gate = Arc::new(Semaphore::new(0));
        self.wire.plan(action, before, which - 1);
        self.wire.plan(action, &Mischief::Wait(Arc::clone(&gate)), 1);
        let other = async {
            for _ in 0..20_000 {
                if self.wire.calls(action).len() >= which {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            other.await;
            gate.add_permits(1);
        };
        let done = futures_util::future::join(work, other).await.0;
        assert!(self.wire.is_at_peace(), "{action} was not called {which} times");
        done
    }

    /// Adds one to an attribute.
    pub(crate) async fn add_one(&self, pk: &str, name: &str) {
        let update = self.server.client().update_item().table_name(&self.config.table);
        let update = update.key("pk", text(pk)).key("sk", text("0"));
        let update = update.update_expression("ADD #name :one");
        let update = update.expression_attribute_names("#name", name);
        let one = AttributeValue::N("1".to_owned());
        update.expression_attribute_values(":one", one).send().await.unwrap();
    }

    /// Puts something begun that this version can't read.
    pub(crate) async fn leave_job(&self, user: &str, work: &str) {
        let put = self.server.client().put_item().table_name(&self.config.table);
        let put = put.item("pk", text("R#jobs")).item("sk", text(user));
        let put = put.item("k", text("job")).item("v", AttributeValue::N("1".to_owned()));
        let put = put.item("user", text(user)).item("work", text(work));
        put.item("barrier", AttributeValue::N("1".to_owned())).send().await.unwrap();
    }

    /// Removes an item as somebody with a console does.
    pub(crate) async fn delete_item(&self, pk: &str) {
        let client = self.server.client();
        let delete = client.delete_item().table_name(&self.config.table);
        delete.key("pk", text(pk)).key("sk", text("0")).send().await.unwrap();
    }
}

pub(crate) fn number(at: Timestamp) -> AttributeValue {
    AttributeValue::N(at.as_millis().to_string())
}

pub(crate) fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

/// Tokio, as the host of an application has it.
#[derive(Debug)]
struct OnTokio;

impl Runtime for OnTokio {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(tokio::spawn(task));
    }

    fn sleep(&self, length: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(length))
    }
}

/// A host whose time is that of `clock`.
pub(crate) fn host(clock: Arc<TestClock>) -> Host {
    Host::new(clock, Arc::new(OnTokio))
}

/// A client on `wire`.
pub(crate) fn client(server: &DynamoHarness, wire: &Wire) -> Client {
    Client::from_conf(server.client_config().http_client(wire.client()).build())
}

/// A cache in a table of its own, on a wire.
pub(crate) async fn cache(namespace: &str) -> (DynamoCache, Wire, Arc<TestClock>) {
    cache_with(namespace, |_| ()).await
}

/// The same, which does not wait for a server that has too much to do.
pub(crate) async fn impatient_cache(namespace: &str) -> (DynamoCache, Wire, Arc<TestClock>) {
    cache_with(namespace, |calls| calls.patience = Duration::from_millis(200)).await
}

async fn cache_with(
    namespace: &str,
    set: impl FnOnce(&mut CallConfig),
) -> (DynamoCache, Wire, Arc<TestClock>) {
    let server = DynamoHarness::from_env().unwrap();
    let wire = Wire::default();
    let mut config = DynamoCacheConfig::new(server.table(namespace));
    config.garbage_after = Duration::from_hours(24 * 365 * 50);
    config.calls.timeout = Duration::from_mins(1);
    set(&mut config.calls);
    let client = client(&server, &wire);
    create_table(&client, &config.table).await.unwrap();
    let clock = TestClock::at(NOW);
    let cache = DynamoCache::connect(client, &config, clock.clone()).await.unwrap();
    wire.reset();
    (cache, wire, clock)
}
