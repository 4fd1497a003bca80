//! Many items in one call, and again what DynamoDB has left.

use aws_sdk_dynamodb::operation::batch_write_item::BatchWriteItemOutput;
use aws_sdk_dynamodb::types::{DeleteRequest, KeysAndAttributes, WriteRequest};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use session_store_core::Result;

use super::call::{Calls, once, unbuilt};
use super::error::{Effect, Fault, classify, uncertain};
use super::key::Key;
use super::row::Item;

/// How many items one batch reads.
const READ_BATCH: usize = 100;
/// How many items one batch writes.
const WRITE_BATCH: usize = 25;

impl Calls {
    /// The items at `keys` that are there, from the authority, in no order.
    pub(super) async fn get_all(&self, mut keys: Vec<Key>) -> Result<Vec<Item>> {
        keys.sort_unstable();
        keys.dedup();
        let batches = keys.chunks(READ_BATCH).map(|batch| self.get_batch(batch));
        let batches = batches.collect::<Vec<_>>();
        let found: Vec<Vec<Item>> =
            stream::iter(batches).buffer_unordered(self.parallel()).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn get_batch(&self, keys: &[Key]) -> Result<Vec<Item>> {
        let mut wanted: Vec<Item> = keys.iter().cloned().map(Key::into_item).collect();
        let mut found = Vec::new();
        let mut pauses = self.pauses();
        loop {
            let request = KeysAndAttributes::builder().consistent_read(true);
            let request = request.set_keys(Some(wanted)).build().map_err(unbuilt)?;
            let answer = self
                .patiently(|| {
                    let get = self.client.batch_get_item();
                    let get = get.request_items(&*self.table, request.clone());
                    let get = get.customize().config_override(self.repeatable());
                    self.timed(Effect::Reads, get.send())
                })
                .await?;
            let items = answer.responses.unwrap_or_default().into_values().flatten();
            let before = found.len();
            found.extend(items);
            let left = answer.unprocessed_keys.unwrap_or_default().into_values().next();
            match left.map(|left| left.keys).filter(|keys| !keys.is_empty()) {
                None => return Ok(found),
                Some(left) => wanted = left,
            }
            // An answer that is cut because it is long is no sign of trouble.
            if found.len() == before {
                pauses.pause().await?;
            }
        }
    }

    /// Deletes without conditions, in batches, until all are done. A batch names no key twice.
    pub(super) async fn delete_all(&self, mut keys: Vec<Key>) -> Result<()> {
        keys.sort_unstable();
        keys.dedup();
        let requests = keys.into_iter().map(deleting).collect::<Result<Vec<_>>>()?;
        let batches = requests.chunks(WRITE_BATCH).map(|batch| self.write_batch(batch.to_vec()));
        let batches = batches.collect::<Vec<_>>();
        let is_one = batches.len() <= 1;
        let done = stream::iter(batches).buffer_unordered(self.parallel()).try_collect().await;
        done.map_err(|failed| if is_one { failed } else { uncertain(failed) })
    }

    async fn write_batch(&self, mut requests: Vec<WriteRequest>) -> Result<()> {
        let mut pauses = self.pauses();
        let mut is_begun = false;
        loop {
            // Once a part is done, nobody may say that nothing is.
            let known = |failed| if is_begun { uncertain(failed) } else { failed };
            let answer = self.surely(|| self.try_write(&requests)).await.map_err(known)?;
            let left = answer.unprocessed_items.unwrap_or_default();
            let left: Vec<_> = left.into_values().flatten().collect();
            if left.is_empty() {
                return Ok(());
            }
            is_begun |= left.len() < requests.len();
            requests = left;
            let known = |failed| if is_begun { uncertain(failed) } else { failed };
            pauses.pause().await.map_err(known)?;
        }
    }

    async fn try_write(&self, requests: &[WriteRequest]) -> Result<BatchWriteItemOutput, Fault> {
        let call = self.client.batch_write_item();
        let call = call.request_items(&*self.table, requests.to_vec());
        let call = call.customize().config_override(once()).send();
        self.attempt(call).await?.map_err(|failed| classify(Effect::Writes, &failed))
    }
}

fn deleting(key: Key) -> Result<WriteRequest> {
    let delete = DeleteRequest::builder().set_key(Some(key.into_item())).build();
    Ok(WriteRequest::builder().delete_request(delete.map_err(unbuilt)?).build())
}
