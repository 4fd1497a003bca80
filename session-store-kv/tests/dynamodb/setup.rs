//! Tables, rights and credentials: what an operator gets wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Region};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use session_store_core::{
    CacheKey, CacheName, CacheRegistration, CacheScope, ErrorKind, Page, PrimaryStore, Reason,
    Record, Reservation, SecondaryStore, Selection, SessionChange, SwapTtl, Touch, Ttl, User,
    UserChange, UserId, Which,
};
use session_store_kv::dynamo::{
    Access, DynamoConfig, DynamoHarness, DynamoStore, create_table, minimal_policy,
    table_definition,
};

use crate::lab::{Lab, NOW, ada, bounds, cache, client, guest, id, later, new, session};
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
    let config = DynamoConfig::new(server.table("missing"));
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
        let name = server.table(name);
        table(&server, &name, keys).await;
        let config = DynamoConfig::new(&name);
        let error = DynamoStore::connect(server.client(), &config).await.unwrap_err();
        assert!(mismatch(&error).contains("pk"), "{error}");
        let error = create_table(&server.client(), &name).await.unwrap_err();
        assert!(mismatch(&error).contains("pk (hash) and sk (range)"), "{error}");
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
    // A port that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let known = server.client_config().http_client(http());
    let lost = Client::from_conf(known.endpoint_url(format!("http://127.0.0.1:{port}")).build());
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

/// The IAM actions that these calls need.
fn needed(wire: &Wire) -> BTreeSet<String> {
    let mut needed = BTreeSet::new();
    for call in wire.all() {
        if !call.action.starts_with("Transact") {
            needed.insert(call.action);
            continue;
        }
        for step in call.body["TransactItems"].as_array().unwrap() {
            let (kind, _) = step.as_object().unwrap().iter().next().unwrap();
            let is_check = kind == "ConditionCheck";
            needed.insert(if is_check {
                "ConditionCheckItem".into()
            } else {
                format!("{kind}Item")
            });
        }
    }
    needed
}

fn allowed(access: Access) -> BTreeSet<String> {
    let arn = "arn:aws:dynamodb:us-east-1:000000000000:table/sessions";
    let policy = minimal_policy(arn, access).unwrap();
    let policy: serde_json::Value = serde_json::from_str(&policy).unwrap();
    let actions = policy["Statement"][0]["Action"].as_array().unwrap().iter();
    actions.map(|action| action.as_str().unwrap().replace("dynamodb:", "")).collect()
}

#[tokio::test]
async fn the_policy_of_a_store_is_what_it_needs_and_no_more() {
    let lab = Lab::new("policy").await;
    let store: &dyn PrimaryStore = &lab.store;
    lab.log_in(3).await;
    store.insert(&new(guest(9)), NOW).await.unwrap();
    let touch = |expires| Touch { id: id(1), seen_at: later(1), expires_at: later(expires) };
    store.touch(&[touch(7200)]).await.unwrap();
    // A place that its session left, as a crash of an older version may leave one.
    let filed = lab.filed().await;
    store.sweep(&bounds(3600, 0), 0).await.unwrap();
    assert_ne!(lab.filed().await, filed);
    lab.leave_place(1, 5).await;
    let left = lab.filed().await.len();
    store.sweep(&bounds(3600, 0), 9).await.unwrap();
    assert_eq!(lab.filed().await.len(), left - 4);
    store.update(&id(1), 1, &SessionChange::default(), NOW).await.unwrap();
    let scope = CacheScope::Shared;
    let (name, ttl) = (CacheName::main(), Ttl::new(Duration::from_mins(5)).unwrap());
    store.register(&CacheRegistration { name: name.clone(), scope, ttl }).await.unwrap();
    store.unregister(&name).await.unwrap();
    store.list(&ada(), Which::All, &Page::first(1)).await.unwrap();
    store.list_users(&Page::first(1)).await.unwrap();
    store.count_users().await.unwrap();
    store.find_user_by_email("ada@example.org").await.unwrap();
    store.update_user(&ada(), 1, &UserChange::default()).await.unwrap();
    store.census(NOW, None).await.unwrap();
    store.revoke(&Selection::AllOf(ada()), Reason::Admin, NOW).await.unwrap();
    store.delete_user(&ada(), NOW).await.unwrap();
    assert_eq!(needed(&lab.wire), allowed(Access::Store));
}

#[tokio::test]
async fn the_other_policies_are_what_they_say() {
    let lab = Lab::new("others").await;
    lab.log_in(1).await;
    let reader = DynamoStore::connect(client(&lab.server, &lab.wire), &lab.config).await.unwrap();
    PrimaryStore::find(&reader, &id(1)).await.unwrap();
    PrimaryStore::caches(&reader).await.unwrap();
    assert_eq!(needed(&lab.wire), allowed(Access::Verifier));

    let (cache, wire, _clock) = cache("othercache").await;
    let key = CacheKey::new("key").unwrap();
    let ttl = Ttl::new(Duration::from_secs(3)).unwrap();
    for new in [Some(Record::new(*b"V")), None] {
        let Reservation::Granted(lease) = cache.reserve(&key, ttl).await.unwrap() else {
            panic!("not granted");
        };
        assert!(cache.swap(&key, &lease, new.as_ref(), SwapTtl::Set(ttl)).await.unwrap());
        cache.get(&key).await.unwrap();
        cache.remove(std::slice::from_ref(&key)).await.unwrap();
    }
    assert_eq!(needed(&wire), allowed(Access::Cache));

    let wire = Wire::default();
    create_table(&client(&lab.server, &wire), &lab.server.table("othertable")).await.unwrap();
    assert_eq!(needed(&wire), allowed(Access::Setup));
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
