//! What the printed policies allow, and what is done.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;
use session_store_core::{
    CacheKey, CacheName, CacheRegistration, CacheScope, Email, ErrorKind, Page, PasswordHash,
    PrimaryStore, Reason, Record, Reservation, SecondaryStore, Selection, SessionChange, SwapTtl,
    Touch, Ttl, User, UserChange, Which,
};
use session_store_kv::dynamo::{Access, DynamoStore, create_table, minimal_policy};

use crate::lab::{Lab, NOW, ada, bounds, cache, client, guest, id, later, new, text};
use crate::wire::{Call, Mischief, Wire};

const ARN: &str = "arn:aws:dynamodb:us-east-1:000000000000:table/sessions";

/// What IAM sees of one access to one item, or of a request that is about no item.
#[derive(Debug)]
struct Request {
    action: String,
    partition: Option<String>,
    /// `None`: all of them.
    attributes: Option<Vec<String>>,
}

fn statements(access: Access) -> Vec<Value> {
    let policy = minimal_policy(ARN, access).unwrap();
    let policy: Value = serde_json::from_str(&policy).unwrap();
    policy["Statement"].as_array().unwrap().clone()
}

/// The accesses of a call: a transaction is judged step by step.
fn requests(call: &Call) -> Vec<Request> {
    let body = &call.body;
    let keys =
        |batch: &Value| -> Vec<Value> { batch["Keys"].as_array().cloned().unwrap_or_default() };
    match call.action.as_str() {
        "TransactWriteItems" | "TransactGetItems" => {
            let steps = body["TransactItems"].as_array().unwrap().iter();
            let request = |step: &Value| {
                let (kind, step) = step.as_object().unwrap().iter().next().unwrap();
                let action = if kind == "ConditionCheck" {
                    "ConditionCheckItem".to_owned()
                } else {
                    format!("{kind}Item")
                };
                request(action, step.get("Key").unwrap_or(&step["Item"]), step)
            };
            steps.map(request).collect()
        }
        "BatchGetItem" | "BatchWriteItem" => {
            let batches = body["RequestItems"].as_object().unwrap().values();
            let all =
                batches.flat_map(keys).map(|key| request(call.action.clone(), &key, &Value::Null));
            let mut all: Vec<_> = all.collect();
            if all.is_empty() {
                all.push(request(call.action.clone(), &Value::Null, &Value::Null));
            }
            all
        }
        "Query" => {
            let key = serde_json::json!({ "pk": body["ExpressionAttributeValues"][":pk"] });
            vec![request("Query".to_owned(), &key, body)]
        }
        action => vec![request(action.to_owned(), &body["Key"], body)],
    }
}

fn request(action: String, key: &Value, part: &Value) -> Request {
    let partition = key["pk"]["S"].as_str().map(str::to_owned);
    let attributes = part["ProjectionExpression"].as_str().map(|names| {
        let known = &part["ExpressionAttributeNames"];
        let named = names.split(", ").map(|name| known[name].as_str().unwrap().to_owned());
        named.chain(["pk".to_owned(), "sk".to_owned()]).collect()
    });
    Request { action, partition, attributes }
}

/// Whether IAM would let it through, as far as the printed conditions go.
fn is_allowed(request: &Request, statements: &[Value]) -> bool {
    let list = |value: &Value| -> Option<Vec<String>> {
        Some(value.as_array()?.iter().map(|one| one.as_str().unwrap().to_owned()).collect())
    };
    statements.iter().any(|statement| {
        let actions = list(&statement["Action"]).unwrap();
        let condition = &statement["Condition"];
        let partitions = list(&condition["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]);
        let attributes = list(&condition["ForAllValues:StringEquals"]["dynamodb:Attributes"]);
        let is_action = actions.contains(&format!("dynamodb:{}", request.action));
        let is_partition = partitions.is_none_or(|known| {
            let own = request.partition.as_ref().unwrap();
            known.iter().any(|known| match known.strip_suffix('*') {
                Some(prefix) => own.starts_with(prefix),
                None => own == known,
            })
        });
        let is_part = attributes.is_none_or(|known| {
            let asked = request.attributes.as_ref();
            asked.is_some_and(|asked| asked.iter().all(|name| known.contains(name)))
        });
        is_action && is_partition && is_part
    })
}

/// Every call of every test on a wire must be one that a store, a cache or a setup may make.
pub(crate) fn is_allowed_to_somebody(call: &Call) -> bool {
    static ALL: LazyLock<Vec<Value>> = LazyLock::new(|| {
        [Access::Store, Access::Cache, Access::Setup].into_iter().flat_map(statements).collect()
    });
    requests(call).iter().all(|request| is_allowed(request, &ALL))
}

/// The actions of these calls.
fn needed(wire: &Wire) -> BTreeSet<String> {
    wire.all().iter().flat_map(requests).map(|request| request.action).collect()
}

fn allowed(access: Access) -> BTreeSet<String> {
    let statements = statements(access);
    let actions = statements.iter().flat_map(|one| one["Action"].as_array().unwrap());
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

    let lab = Lab::new("others").await;
    let wire = Wire::default();
    create_table(&client(&lab.server, &wire), &lab.server.table("othertable")).await.unwrap();
    assert_eq!(needed(&wire), allowed(Access::Setup));
}

#[tokio::test]
async fn a_verifier_gets_by_with_its_policy_and_never_sees_a_password() {
    let lab = Lab::new("verifier").await;
    let mut user = User::new(ada(), NOW);
    user.password_hash = Some(PasswordHash::new("$argon2id$confidential").unwrap());
    user.email = Some(Email::parse("ada@example.org").unwrap());
    PrimaryStore::insert_user(&lab.store, &user, NOW).await.unwrap();
    PrimaryStore::insert(&lab.store, &new(crate::lab::session(1)), NOW).await.unwrap();
    PrimaryStore::insert(&lab.store, &new(guest(2)), NOW).await.unwrap();
    // A revoke-all under way, so that both items are read together.
    lab.add_one("U#ada", "barrier").await;
    lab.set("U#ada", "spared", Some(text(&id(1).to_string()))).await;
    lab.wire.reset();
    let reader = DynamoStore::connect(client(&lab.server, &lab.wire), &lab.config).await.unwrap();
    for number in 1..=3 {
        PrimaryStore::find(&reader, &id(number)).await.unwrap();
    }
    PrimaryStore::caches(&reader).await.unwrap();
    let statements = statements(Access::Verifier);
    assert!(!lab.wire.calls("TransactGetItems").is_empty());
    for request in lab.wire.all().iter().flat_map(requests) {
        assert!(is_allowed(&request, &statements), "{request:?}");
    }
    assert_eq!(needed(&lab.wire), allowed(Access::Verifier));
    // What it must not do: read a user whole, find one by address, write.
    lab.wire.reset();
    PrimaryStore::find_user(&reader, &ada()).await.unwrap();
    PrimaryStore::find_user_by_email(&reader, "ada@example.org").await.unwrap();
    PrimaryStore::insert(&reader, &new(guest(4)), NOW).await.unwrap();
    for request in lab.wire.all().iter().flat_map(requests) {
        assert!(!is_allowed(&request, &statements), "{request:?}");
    }
}

#[tokio::test]
async fn a_projected_address_is_read_and_the_password_is_not() {
    let lab = Lab::new("projected").await;
    let mut config = lab.config.clone();
    config.project_email = true;
    let mut user = User::new(ada(), NOW);
    user.password_hash = Some(PasswordHash::new("$argon2id$confidential").unwrap());
    user.email = Some(Email::parse("ada@example.org").unwrap());
    PrimaryStore::insert_user(&lab.store, &user, NOW).await.unwrap();
    PrimaryStore::insert(&lab.store, &new(crate::lab::session(1)), NOW).await.unwrap();
    let reader = DynamoStore::connect(client(&lab.server, &lab.wire), &config).await.unwrap();
    lab.wire.reset();
    let found = PrimaryStore::find(&reader, &id(1)).await.unwrap().snapshot.unwrap();
    assert_eq!(found.user.unwrap().email, user.email);
    for request in lab.wire.all().iter().flat_map(requests) {
        if request.partition.as_deref() == Some("U#ada") {
            let names = request.attributes.unwrap();
            assert!(names.iter().all(|name| name != "password_hash"), "{names:?}");
        }
    }
}

#[tokio::test]
async fn what_a_role_may_not_do_is_told_with_the_way_out() {
    let lab = Lab::new("denied").await;
    lab.wire.plan("GetItem", &Mischief::Refuse("AccessDeniedException"), 1);
    let error = PrimaryStore::find(&lab.store, &id(1)).await.unwrap_err();
    let ErrorKind::Configuration { what } = error.kind() else { panic!("{error}") };
    assert!(what.contains("minimal_policy"), "{what}");
}
