//! The table: made, or checked if it is there.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    TableDescription, TableStatus, TimeToLiveSpecification, TimeToLiveStatus,
};
use session_store_core::{Error, ErrorKind, Result};

use super::call::{Calls, once, unbuilt};
use super::config::CallConfig;
use super::error::{Effect, NAME, classify, error};

/// The attribute that DynamoDB's own removal looks at.
const TTL: &str = "ttl";
/// How long a new table may take until it can be used.
const PATIENCE: Duration = Duration::from_mins(2);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Makes the table for a [`DynamoStore`](super::DynamoStore) or a [`DynamoCache`](super::DynamoCache),
/// and waits until it can be used.
///
/// Asks for a string `pk` as hash key, a string `sk` as range key, no index, payment per request, and
/// removal by the attribute `ttl`; [`table_definition`] prints it. A table that is there already is
/// checked, and its removal is switched on. One with other keys, or that removes by another attribute,
/// is `SchemaMismatch`; credentials that may not are `Configuration`, and
/// [`minimal_policy`](super::minimal_policy) prints what they need.
pub async fn create_table(client: &Client, table: &str) -> Result<()> {
    let config = CallConfig { timeout: Duration::from_secs(10), ..CallConfig::default() };
    config.check(table)?;
    let calls = Calls::new(client.clone(), table, &config);
    if create(&calls).await? {
        tracing::debug!(table, "table created");
    }
    let made = wait(&calls).await?;
    check_keys(&made)?;
    remove_by_ttl(&calls).await
}

/// What [`create_table`] asks for, as `aws dynamodb create-table --cli-input-json` takes it; removal by
/// the attribute `ttl` is switched on by a second call, `update-time-to-live`.
pub fn table_definition(table: &str) -> Result<String> {
    CallConfig::default().check(table)?;
    Ok(format!(
        r#"{{
  "TableName": "{table}",
  "AttributeDefinitions": [
    {{ "AttributeName": "pk", "AttributeType": "S" }},
    {{ "AttributeName": "sk", "AttributeType": "S" }}
  ],
  "KeySchema": [
    {{ "AttributeName": "pk", "KeyType": "HASH" }},
    {{ "AttributeName": "sk", "KeyType": "RANGE" }}
  ],
  "BillingMode": "PAY_PER_REQUEST"
}}
"#
    ))
}

/// Whether it was not there.
async fn create(calls: &Calls) -> Result<bool> {
    let attribute = |name| {
        let kind = ScalarAttributeType::S;
        AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build()
    };
    let key = |name, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
    let request = calls.client.create_table().table_name(&*calls.table);
    let request = request
        .attribute_definitions(attribute("pk").map_err(unbuilt)?)
        .attribute_definitions(attribute("sk").map_err(unbuilt)?)
        .key_schema(key("pk", KeyType::Hash).map_err(unbuilt)?)
        .key_schema(key("sk", KeyType::Range).map_err(unbuilt)?)
        .billing_mode(BillingMode::PayPerRequest);
    calls
        .patiently(|| async {
            let call = request.clone().customize().config_override(once()).send();
            match calls.in_time(call).await? {
                Ok(_) => Ok(true),
                Err(failed) => match failed.as_service_error() {
                    Some(CreateTableError::ResourceInUseException(_)) => Ok(false),
                    _ => Err(classify(Effect::Writes, &failed)),
                },
            }
        })
        .await
}

async fn wait(calls: &Calls) -> Result<TableDescription> {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let answer = calls
            .patiently(|| {
                let call = calls.client.describe_table().table_name(&*calls.table);
                let call = call.customize().config_override(calls.repeatable());
                calls.timed(Effect::Reads, call.send())
            })
            .await;
        let found = match answer {
            Ok(answer) => answer.table,
            // What was made a moment ago may not be known everywhere yet.
            Err(failed) if matches!(failed.kind(), ErrorKind::SchemaMismatch { .. }) => None,
            Err(failed) => return Err(failed),
        };
        let usable = [Some(&TableStatus::Active), Some(&TableStatus::Updating)];
        match found {
            Some(table) if usable.contains(&table.table_status()) => return Ok(table),
            _ if tokio::time::Instant::now() > end => return Err(error(ErrorKind::Timeout)),
            _ => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

fn check_keys(table: &TableDescription) -> Result<()> {
    let keys: Vec<_> =
        table.key_schema().iter().map(|key| (key.attribute_name(), key.key_type())).collect();
    let attributes = table.attribute_definitions().iter();
    let are_strings = attributes
        .filter(|attribute| matches!(attribute.attribute_name(), "pk" | "sk"))
        .all(|attribute| *attribute.attribute_type() == ScalarAttributeType::S);
    if keys == [("pk", &KeyType::Hash), ("sk", &KeyType::Range)] && are_strings {
        return Ok(());
    }
    let names: Vec<_> = keys.iter().map(|(name, _)| *name).collect();
    let what = format!(
        "the table has the keys {}; expected are pk (hash) and sk (range), both strings: give another \
         name",
        names.join(", ")
    );
    Err(Error::schema(NAME, what))
}

async fn remove_by_ttl(calls: &Calls) -> Result<()> {
    let answer = calls
        .patiently(|| {
            let call = calls.client.describe_time_to_live().table_name(&*calls.table);
            calls.timed(Effect::Reads, call.customize().config_override(calls.repeatable()).send())
        })
        .await?;
    let ttl = answer.time_to_live_description;
    let status = ttl.as_ref().and_then(|ttl| ttl.time_to_live_status());
    if matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)) {
        let attribute = ttl.as_ref().and_then(|ttl| ttl.attribute_name()).unwrap_or_default();
        if attribute == TTL {
            return Ok(());
        }
        let what = format!("the table removes items by {attribute}; expected is {TTL}");
        return Err(Error::schema(NAME, what));
    }
    let wanted = TimeToLiveSpecification::builder().enabled(true).attribute_name(TTL).build();
    let wanted = wanted.map_err(unbuilt)?;
    calls
        .patiently(|| async {
            let call = calls.client.update_time_to_live().table_name(&*calls.table);
            let call = call.time_to_live_specification(wanted.clone());
            let call = call.customize().config_override(once()).send();
            match calls.in_time(call).await? {
                // Another node was faster.
                Err(failed) if is_on_already(failed.as_service_error()) => Ok(()),
                Err(failed) => Err(classify(Effect::Writes, &failed)),
                Ok(_) => Ok(()),
            }
        })
        .await
}

fn is_on_already<E: ProvideErrorMetadata>(failed: Option<&E>) -> bool {
    failed.is_some_and(|failed| {
        let says = failed.message().is_some_and(|text| text.contains("already enabled"));
        failed.code() == Some("ResourceInUseException") || says
    })
}
