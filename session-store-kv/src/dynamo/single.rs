//! Calls about one item.

use aws_sdk_dynamodb::config::Builder;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::get_item::GetItemOutput;
use aws_sdk_dynamodb::operation::transact_get_items::TransactGetItemsError;
use aws_sdk_dynamodb::types::{Get, TransactGetItem};
use session_store_core::Result;

use super::call::{Calls, once, unbuilt, why_cancelled};
use super::error::{Effect, Fault, classify};
use super::key::Key;
use super::row::Item;
use super::step::Terms;

impl Calls {
    /// The item at `key`, from the authority.
    pub(super) async fn get(&self, key: &Key) -> Result<Option<Item>> {
        Ok(self.patiently(|| self.fetch(key)).await?.item)
    }

    /// The same, without waiting for a server that has too much to do.
    pub(super) async fn get_now(&self, key: &Key) -> Result<Option<Item>> {
        Ok(self.fetch(key).await.map_err(Fault::into_error)?.item)
    }

    /// Two items as they are together: neither is of before a transaction and the other of after it.
    pub(super) async fn get_both(&self, keys: [Key; 2]) -> Result<[Option<Item>; 2]> {
        let gets = keys.map(|key| {
            Get::builder().table_name(&*self.table).set_key(Some(key.into_item())).build()
        });
        let gets: Result<Vec<_>, _> = gets.into_iter().collect();
        let gets: Vec<_> = gets.map_err(unbuilt)?;
        let answer = self
            .patiently(|| async {
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
            })
            .await?;
        let mut found = answer.responses.unwrap_or_default().into_iter().map(|one| one.item);
        let mut next = || found.next().flatten().filter(|item| !item.is_empty());
        Ok([next(), next()])
    }

    async fn fetch(&self, key: &Key) -> Result<GetItemOutput, Fault> {
        let get = self.client.get_item().table_name(&*self.table).consistent_read(true);
        let get = get.set_key(Some(key.clone().into_item()));
        self.timed(Effect::Reads, get.customize().config_override(self.repeatable()).send()).await
    }

    /// Changes one item; `false` when the condition does not hold. The SDK repeats it after a lost
    /// answer, and then a condition that the first attempt has broken does not hold either.
    pub(super) async fn update_item(&self, key: &Key, terms: &Terms) -> Result<bool> {
        self.patiently(|| self.try_update(key, terms, self.repeatable())).await
    }

    /// The same, sent at most once.
    pub(super) async fn update_once(&self, key: &Key, terms: &Terms) -> Result<bool> {
        self.try_update(key, terms, once()).await.map_err(Fault::into_error)
    }

    async fn try_update(&self, key: &Key, terms: &Terms, how: Builder) -> Result<bool, Fault> {
        let call = self.client.update_item().table_name(&*self.table);
        let call = call
            .set_key(Some(key.clone().into_item()))
            .set_update_expression(terms.change_text())
            .set_condition_expression(terms.condition_text())
            .set_expression_attribute_names(terms.names())
            .set_expression_attribute_values(terms.values());
        held(self.in_time(call.customize().config_override(how).send()).await?)
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
