//! The caches over a table, each an item of one partition.

use std::time::Duration;

use session_store_core::{CacheName, CacheRegistration, CacheScope, Result, Ttl};

use super::call::Outcome;
use super::error::corrupt;
use super::key::{CACHES, Key};
use super::query::Query;
use super::row::{Item, Row, item, number, text};
use super::step::{NEW, Terms};
use super::store::DynamoStore;

impl DynamoStore {
    pub(super) async fn register(&self, cache: &CacheRegistration) -> Result<()> {
        let key = Key::cache(&cache.name);
        let mut pauses = self.calls.pauses();
        loop {
            let old = self.calls.get(&key).await?;
            let old = old.map(|item| read(&item)).transpose()?;
            let new = CacheRegistration {
                ttl: old.as_ref().map_or(cache.ttl, |old| old.ttl.max(cache.ttl)),
                ..cache.clone()
            };
            if old.as_ref() == Some(&new) {
                return Ok(());
            }
            let terms = old.map_or(Terms::when(NEW), |old| {
                Terms::when("#ttl_ms = :ttl").with(":ttl", number(old.ttl.as_millis()))
            });
            let step = self.calls.put_if(write(&new), &terms)?;
            if self.calls.transact(&[step]).await? == Outcome::Done {
                return Ok(());
            }
            pauses.pause().await?;
        }
    }

    pub(super) async fn unregister(&self, cache: &CacheName) -> Result<()> {
        self.calls.delete_all(vec![Key::cache(cache)]).await
    }

    pub(super) async fn caches(&self) -> Result<Vec<CacheRegistration>> {
        let items = self.calls.query_all(Query::all(CACHES)).await?;
        items.iter().map(read).collect()
    }
}

fn write(cache: &CacheRegistration) -> Item {
    let mut item = item(Key::cache(&cache.name), "cache");
    let scope = match cache.scope {
        CacheScope::Process => "process",
        CacheScope::Shared => "shared",
    };
    item.insert("scope".to_owned(), text(scope));
    item.insert("ttl_ms".to_owned(), number(cache.ttl.as_millis()));
    item
}

fn read(item: &Item) -> Result<CacheRegistration> {
    let row = Row::of(item)?;
    let scope = match row.text("scope")? {
        "process" => CacheScope::Process,
        "shared" => CacheScope::Shared,
        _ => return Err(corrupt()),
    };
    let ttl = Ttl::new(Duration::from_millis(row.number("ttl_ms")?)).ok_or_else(corrupt)?;
    let name = CacheName::new(row.text("sk")?).map_err(|_| corrupt())?;
    Ok(CacheRegistration { name, scope, ttl })
}
