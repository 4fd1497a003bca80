//! What stands between a node and its wires, and does there what a broken protocol would do.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use session_store_core::{
    CacheKey, Found, Host, Page, PrimaryStore, Record, Result, SecondaryStore, Selection,
    SessionId, Snapshot, Which,
};

use super::Quirk;

static NODES: AtomicU64 = AtomicU64::new(0);

/// The stores of one node, and what it remembers although it should not.
#[derive(Debug)]
pub(in super::super) struct Link {
    pub(in super::super) primary: Arc<dyn PrimaryStore>,
    pub(in super::super) secondary: Arc<dyn SecondaryStore>,
    pub(in super::super) quirk: Quirk,
    pub(super) host: Host,
    node: u64,
    /// The next removal is left out.
    pub(super) is_skipping: AtomicBool,
    prefix: Mutex<String>,
    pub(super) read: Mutex<Option<Found>>,
    pub(super) found: Mutex<Option<Snapshot>>,
    pub(super) last: Mutex<HashMap<SessionId, Found>>,
    pub(super) kept: Mutex<HashMap<CacheKey, (Duration, Record)>>,
    pub(super) leases: Mutex<HashMap<CacheKey, Record>>,
    pub(super) count: AtomicU64,
}

impl Link {
    pub(in super::super) fn new(
        primary: Arc<dyn PrimaryStore>,
        secondary: Arc<dyn SecondaryStore>,
        host: Host,
        quirk: Quirk,
    ) -> Arc<Self> {
        Arc::new(Self {
            primary,
            secondary,
            quirk,
            host,
            node: NODES.fetch_add(1, Ordering::Relaxed),
            is_skipping: AtomicBool::new(false),
            prefix: Mutex::new("ss:1:".to_owned()),
            read: Mutex::default(),
            found: Mutex::default(),
            last: Mutex::default(),
            kept: Mutex::default(),
            leases: Mutex::default(),
            count: AtomicU64::new(0),
        })
    }

    pub(super) fn skip(&self) {
        self.is_skipping.store(true, Ordering::SeqCst);
    }

    /// The key that is used instead of `key`.
    pub(super) fn key(&self, key: &CacheKey) -> CacheKey {
        let text = key.as_str();
        if let Some((prefix, _)) = text.rsplit_once(':') {
            *self.prefix.lock() = format!("{prefix}:");
        }
        let text = match self.quirk {
            Quirk::KeysPerNode => format!("{text}/{}", self.node),
            Quirk::IgnoresThePrefix => text.rsplit(':').next().unwrap_or(text).to_owned(),
            _ => return key.clone(),
        };
        CacheKey::new(text).unwrap_or_else(|_| key.clone())
    }

    pub(super) fn key_of(&self, id: &SessionId) -> Option<CacheKey> {
        CacheKey::new(format!("{}{id}", self.prefix.lock())).ok()
    }

    pub(super) async fn ids(&self, selection: &Selection) -> Result<Vec<SessionId>> {
        let user = match selection {
            Selection::One { id, .. } => return Ok(vec![*id]),
            Selection::Ids(ids) => return Ok(ids.clone()),
            Selection::AllOf(user) | Selection::AllBut(user, _) => user,
            Selection::Everyone { .. } => return Ok(Vec::new()),
        };
        let all = self.primary.list(user, Which::All, &Page::first(1_000)).await?;
        Ok(all.items.into_iter().map(|session| session.id).collect())
    }
}

/// The same session without its user, which a scratch store does not know.
pub(super) fn guest(mut snapshot: Snapshot) -> Snapshot {
    if snapshot.user.is_none() {
        snapshot.session.user_id = None;
    }
    snapshot
}
