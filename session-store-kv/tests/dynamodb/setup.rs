//! Tables, rights and credentials: what an operator gets wrong.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Region};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use session_store_core::conformance::TestClock;
use session_store_core::{CacheKey, ErrorKind, PrimaryStore, SecondaryStore, Ttl, User, UserId};
use session_store_kv::dynamo::{
    DynamoCache, DynamoCacheConfig, DynamoConfig, DynamoHarness, DynamoStore, create_table,
    table_definition,
};

use crate::lab::{Lab, NOW, cache, client, id, new, session};
use crate::wire::{Mischief, Wire};

/// A table with these keys.
async fn table(server: &DynamoHarness, name: &str, keys: &[(&str, ScalarAttributeType)]) {
    let mut create = server.client().create_table().table_name(name);
    for ((name, kind), key) in keys.iter().zip([KeyType::Hash, KeyType::Range]) {
        let attribute = AttributeDefinition::builder().attribute_name(*name);
        create = create
            .attribute_definitions(attribute.attribute_type(kind.clone()).build().unwrap())
            .key_schema(
                KeySchemaElement::builder().attribute_name(*name).key_type(key).build().unwrap(),
            );
    }
    create.billing_mode(BillingMode::PayPerRequest).send().await.unwrap();
}

fn mismatch(error: &session_store_core::Error) -> &str {
    match error.kind() {
        ErrorKind::SchemaMismatch { what } => what,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_missing_table_is_named_as_such_with_the_way_to_get_it() {
    let server = DynamoHarness::from_env().unwrap();
    let config = server.config("missing");
    let error = DynamoStore::connect(server.client(), &config).await.unwrap_err();
    assert!(mismatch(&error).contains("create_table"), "{error}");
}

#[tokio::test]
async fn a_table_with_other_keys_is_refused() {
    use ScalarAttributeType::{N, S};
    let server = DynamoHarness::from_env().unwrap();
    let wrong: [(&str, &[(&str, ScalarAttributeType)]); 3] =
        [("alone", &[("id", S)]), ("nosort", &[("pk", S)]), ("number", &[("pk", S), ("sk", N)])];
    for (name, keys) in wrong {
        let config = server.config(name);
        let name = config.table.clone();
        table(&server, &name, keys).await;
        let error = DynamoStore::connect(server.client(), &config).await.unwrap_err();
        assert!(mismatch(&error).contains("pk"), "{error}");
        let error = create_table(&server.client(), &name).await.unwrap_err();
        assert!(mismatch(&error).contains("pk (hash) and sk (range)"), "{error}");
    }
}

#[tokio::test]
async fn a_cache_tells_the_same_of_its_table() {
    let server = DynamoHarness::from_env().unwrap();
    let mut missing = DynamoCacheConfig::new(server.table("missingcache"));
    missing.calls.timeout = Duration::from_mins(1);
    let clock = TestClock::at(NOW);
    let error = DynamoCache::connect(server.client(), &missing, clock.clone()).await.unwrap_err();
    assert!(mismatch(&error).contains("create_table"), "{error}");
    assert_eq!(error.backend(), "dynamodb-cache");
    let name = server.table("cachekeys");
    table(&server, &name, &[("id", ScalarAttributeType::S)]).await;
    let mut wrong = missing.clone();
    wrong.table.clone_from(&name);
    let error = DynamoCache::connect(server.client(), &wrong, clock.clone()).await.unwrap_err();
    assert!(mismatch(&error).contains("pk"), "{error}");
    let mut short = DynamoCacheConfig::new(&name);
    short.garbage_after = short.max_skew;
    let error = DynamoCache::connect(server.client(), &short, clock).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Configuration { .. }), "{error}");
}

#[tokio::test]
async fn credentials_of_a_cache_that_have_expired_are_no_outage() {
    let (cache, wire, _clock) = cache("cachecredentials").await;
    let key = CacheKey::new("key").unwrap();
    for action in ["GetItem", "PutItem"] {
        wire.plan(action, &Mischief::Refuse("ExpiredTokenException"), 1);
        let error = match action {
            "GetItem" => cache.get(&key).await.map(drop).unwrap_err(),
            _ => cache.reserve(&key, Ttl::MIN).await.map(drop).unwrap_err(),
        };
        let ErrorKind::Configuration { what } = error.kind() else { panic!("{error}") };
        assert!(what.contains("expired") && error.backend() == "dynamodb-cache", "{error}");
    }
}

#[tokio::test]
async fn a_table_is_made_once_however_many_ask_for_it() {
    let server = DynamoHarness::from_env().unwrap();
    let name = server.table("eight");
    let clients: Vec<_> = (0..8).map(|_| server.client()).collect();
    let all = clients.iter().map(|client| create_table(client, &name));
    for done in futures_util::future::join_all(all).await {
        done.unwrap();
    }
    create_table(&server.client(), &name).await.unwrap();
    let ttl = server.client().describe_time_to_live().table_name(&name).send().await.unwrap();
    let ttl = ttl.time_to_live_description.unwrap();
    assert_eq!(ttl.attribute_name(), Some("ttl"));
    assert_eq!(ttl.time_to_live_status().unwrap().as_str(), "ENABLED");
}

#[tokio::test]
async fn what_is_asked_for_is_what_is_printed() {
    let server = DynamoHarness::from_env().unwrap();
    let (name, wire) = (server.table("printed"), Wire::default());
    create_table(&client(&server, &wire), &name).await.unwrap();
    let printed: serde_json::Value =
        serde_json::from_str(&table_definition(&name).unwrap()).unwrap();
    assert_eq!(wire.calls("CreateTable")[0].body, printed);
    assert!(table_definition("no table").is_err());
}

#[tokio::test]
async fn credentials_that_do_not_do_are_no_outage() {
    let lab = Lab::new("credentials").await;
    let wrong = [
        ("ExpiredTokenException", "expired"),
        ("UnrecognizedClientException", "refused"),
        ("AccessDeniedException", "minimal_policy"),
    ];
    for (code, hint) in wrong {
        lab.wire.plan("GetItem", &Mischief::Refuse(code), 1);
        let error = PrimaryStore::find(&lab.store, &id(1)).await.unwrap_err();
        let ErrorKind::Configuration { what } = error.kind() else { panic!("{error}") };
        assert!(what.contains(hint), "{what}");
        assert!(!error.is_retryable());
    }
    // Each was told at once.
    assert_eq!(lab.wire.calls("GetItem").len(), wrong.len());
}

#[tokio::test]
async fn a_client_without_credentials_or_server_is_told_apart() {
    let http = || aws_smithy_http_client::Builder::new().build_http();
    let base = |url: &str| {
        let base = Config::builder().behavior_version(BehaviorVersion::latest());
        base.region(Region::new("us-east-1")).endpoint_url(url).http_client(http())
    };
    let server = DynamoHarness::from_env().unwrap();
    let config = server.fresh("nobody").await.unwrap();
    let url = std::env::var("SESSION_STORE_DYNAMODB_URL").unwrap();
    let anonymous = Client::from_conf(base(&url).build());
    let error = DynamoStore::connect(anonymous, &config).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Configuration { .. }), "{error}");
    // A port that nobody listens on, nor is given.
    let known = server.client_config().http_client(http());
    let lost = Client::from_conf(known.endpoint_url("http://127.0.0.1:1").build());
    let error = DynamoStore::connect(lost, &config).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable);
}

#[tokio::test]
async fn numbers_that_can_not_work_are_refused_before_any_call() {
    let server = DynamoHarness::from_env().unwrap();
    let mut config = DynamoConfig::new("no such name");
    let error = DynamoStore::connect(server.client(), &config).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Configuration { .. }), "{error}");
    config.table = "sessions".to_owned();
    config.calls.timeout = Duration::ZERO;
    let error = DynamoStore::connect(server.client(), &config).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Configuration { .. }), "{error}");
}

#[tokio::test]
async fn an_item_of_another_version_is_refused_and_told_what_to_do() {
    let lab = Lab::new("version").await;
    lab.log_in(1).await;
    lab.set_format(&format!("S#{}", id(1)), 2).await;
    let error = PrimaryStore::find(&lab.store, &id(1)).await.unwrap_err();
    assert!(mismatch(&error).contains("format 2"), "{error}");
    let other = User::new(UserId::new("bob").unwrap(), NOW);
    PrimaryStore::insert_user(&lab.store, &other, NOW).await.unwrap();
    PrimaryStore::insert(&lab.store, &new(session(2)), NOW).await.unwrap();
    assert!(PrimaryStore::find(&lab.store, &id(2)).await.unwrap().snapshot.is_some());
}
