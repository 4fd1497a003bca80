//! Calls about one item.

use std::collections::HashMap;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::get_item::GetItemOutput;
use aws_sdk_dynamodb::operation::transact_get_items::{
    TransactGetItemsError, TransactGetItemsOutput,
};
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{Get, TransactGetItem};
use session_store_core::Result;

use super::call::{Calls, once, unbuilt, why_cancelled};
use super::error::{Effect, Fault, classify};
use super::key::Key;
use super::row::Item;
use super::step::Terms;

/// The attributes that are read of an item.
pub(super) type Part = &'static [&'static str];

impl Calls {
    /// The item at `key`, from the authority.
    pub(super) async fn get(&self, key: &Key) -> Result<Option<Item>> {
        Ok(self.patiently(|| self.fetch(key, None)).await?.item)
    }

    /// The same, without waiting for a server that has too much to do.
    pub(super) async fn get_now(&self, key: &Key) -> Result<Option<Item>> {
        Ok(self.fetch(key, None).await.map_err(Fault::into_error)?.item)
    }

    /// These attributes of the item.
    pub(super) async fn get_part(&self, key: &Key, part: Part) -> Result<Option<Item>> {
        Ok(self.patiently(|| self.fetch(key, Some(part))).await?.item)
    }

    /// Two items as they are together, the second in part: neither is of before a transaction and the
    /// other of after it.
    pub(super) async fn get_both(
        &self,
        keys: [Key; 2],
        part: Option<Part>,
    ) -> Result<[Option<Item>; 2]> {
        let parts = [None, part];
        let gets = keys.into_iter().zip(parts).map(|(key, part)| {
            Get::builder()
                .table_name(&*self.table)
                .set_key(Some(key.into_item()))
                .set_projection_expression(part.map(projection))
                .set_expression_attribute_names(part.map(names))
                .build()
        });
        let gets: Result<Vec<_>, _> = gets.collect();
        let gets: Vec<_> = gets.map_err(unbuilt)?;
        let answer = self.patiently(|| self.try_both(&gets)).await?;
        let mut found = answer.responses.unwrap_or_default().into_iter().map(|one| one.item);
        let mut next = || found.next().flatten().filter(|item| !item.is_empty());
        Ok([next(), next()])
    }

    async fn try_both(&self, gets: &[Get]) -> Result<TransactGetItemsOutput, Fault> {
        let items = gets.iter().cloned();
        let items = items.map(|get| TransactGetItem::builder().get(get).build());
        let call = self.client.transact_get_items();
        let call = call.set_transact_items(Some(items.collect()));
        let call = call.customize().config_override(self.repeatable()).send();
        let failed = match self.in_time(call).await? {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        match failed.as_service_error() {
            Some(TransactGetItemsError::TransactionCanceledException(cancelled)) => {
                Err(why_cancelled(cancelled.cancellation_reasons()))
            }
            _ => Err(classify(Effect::Reads, &failed)),
        }
    }

    async fn fetch(&self, key: &Key, part: Option<Part>) -> Result<GetItemOutput, Fault> {
        let get = self.client.get_item().table_name(&*self.table).consistent_read(true);
        let get = get.set_key(Some(key.clone().into_item()));
        let get = get.set_projection_expression(part.map(projection));
        let get = get.set_expression_attribute_names(part.map(names));
        self.timed(Effect::Reads, get.customize().config_override(self.repeatable()).send()).await
    }

    /// Changes one item; `false` when the condition does not hold. It is tried again after a lost
    /// answer, and then a condition that the first attempt has broken does not hold either.
    pub(super) async fn update_item(&self, key: &Key, terms: &Terms) -> Result<bool> {
        self.surely(|| async {
            let call = self.updating(key, terms).customize().config_override(once());
            held(self.attempt(call.send()).await?)
        })
        .await
    }

    /// The same, sent at most once.
    pub(super) async fn update_once(&self, key: &Key, terms: &Terms) -> Result<bool> {
        let call = self.updating(key, terms).customize().config_override(once());
        let answer = self.in_time(call.send()).await.map_err(Fault::into_error)?;
        held(answer).map_err(Fault::into_error)
    }

    fn updating(&self, key: &Key, terms: &Terms) -> UpdateItemFluentBuilder {
        let call = self.client.update_item().table_name(&*self.table);
        call.set_key(Some(key.clone().into_item()))
            .set_update_expression(terms.change_text())
            .set_condition_expression(terms.condition_text())
            .set_expression_attribute_names(terms.names())
            .set_expression_attribute_values(terms.values())
    }

    /// Deletes one item, sent at most once; `false` when the condition does not hold.
    pub(super) async fn delete_once(&self, key: &Key, terms: &Terms) -> Result<bool> {
        let call = self.client.delete_item().table_name(&*self.table);
        let call = call
            .set_key(Some(key.clone().into_item()))
            .set_condition_expression(terms.condition_text())
            .set_expression_attribute_names(terms.names())
            .set_expression_attribute_values(terms.values());
        let call = call.customize().config_override(once()).send();
        let answer = self.in_time(call).await.map_err(Fault::into_error)?;
        held(answer).map_err(Fault::into_error)
    }
}

/// Whether the condition of a call held.
fn held<T, E>(answer: Result<T, SdkError<E, HttpResponse>>) -> Result<bool, Fault>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let Err(failed) = answer else { return Ok(true) };
    let code = failed.as_service_error().and_then(ProvideErrorMetadata::code);
    if code == Some("ConditionalCheckFailedException") {
        return Ok(false);
    }
    Err(classify(Effect::Writes, &failed))
}

/// As an expression; every name is written `#name`, so that none is taken for a reserved word.
fn projection(part: Part) -> String {
    part.iter().map(|name| format!("#{name}")).collect::<Vec<_>>().join(", ")
}

fn names(part: Part) -> HashMap<String, String> {
    part.iter().map(|name| (format!("#{name}"), (*name).to_owned())).collect()
}
