//! Many sessions at once, put as logins leave them.

use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use session_store_core::Timestamp;

use crate::lab::{Item, Lab, NOW, id, later, number, text};

impl Lab {
    /// Stores copies of ada's session 1, named `first` to `last` and created a second later each, that
    /// expire at `expires_at`.
    pub(crate) async fn copy(&self, names: (u32, u32), expires_at: Timestamp) {
        self.copy_as(names, |copy| later(copy.into()), expires_at).await;
    }

    /// The same, created and expiring as told.
    pub(crate) async fn copy_as(
        &self,
        (first, last): (u32, u32),
        created_at: impl Fn(u32) -> Timestamp,
        expires_at: Timestamp,
    ) {
        let session = self.item(&format!("S#{}", id(1)), "0").await.unwrap();
        let own = |at: Timestamp, name| format!("#{:016x}#{name}", at.as_millis());
        let entry = self.item("U#ada", &format!("s{}", own(NOW, id(1)))).await.unwrap();
        let place = self.item("Q#1", session["filed"].as_s().unwrap()).await.unwrap();
        let copies = (first..=last).flat_map(|copy| {
            let (name, at) = (id(copy), created_at(copy));
            let filed = text(&format!("e{}", own(expires_at, name)));
            let entry_key = text(&format!("s{}", own(at, name)));
            let with = |item: &Item, changes: &[(&str, &AttributeValue)]| {
                let mut item = item.clone();
                let own = [("id", &text(&name.to_string()))];
                let changes = own.iter().chain(changes);
                item.extend(changes.map(|(name, value)| ((*name).to_owned(), (*value).clone())));
                item
            };
            let (pk, queue) = (text(&format!("S#{name}")), text(&format!("Q#{}", copy % 8)));
            let (at, until) = (number(at), number(expires_at));
            [
                with(
                    &session,
                    &[("pk", &pk), ("created_at", &at), ("expires_at", &until), ("filed", &filed)],
                ),
                with(&entry, &[("sk", &entry_key)]),
                with(&place, &[("pk", &queue), ("sk", &filed)]),
            ]
        });
        self.put_all(copies.collect()).await;
    }

    /// Stores items as they are.
    pub(crate) async fn put_all(&self, items: Vec<Item>) {
        let puts: Vec<_> = items
            .into_iter()
            .map(|item| PutRequest::builder().set_item(Some(item)).build().unwrap())
            .map(|put| WriteRequest::builder().put_request(put).build())
            .collect();
        for chunk in puts.chunks(25) {
            let write = self.server.client().batch_write_item();
            let write = write.request_items(&self.config.table, chunk.to_vec());
            let left = write.send().await.unwrap().unprocessed_items;
            assert!(left.is_none_or(|left| left.is_empty()));
        }
    }
}
