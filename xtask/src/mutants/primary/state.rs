//! What a broken store remembers beside the store it breaks.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use session_store_core::{
    CacheName, CredentialEpoch, Json, LogId, Metadata, Revocation, SecretHash, Session, SessionId,
    Snapshot, Timestamp, Ttl, UserId,
};

/// Shared by every handle on one broken store.
#[derive(Debug, Default)]
pub(in super::super) struct State {
    /// Found although it is not stored.
    pub(super) ghosts: HashMap<SessionId, Snapshot>,
    /// Not found although it is stored.
    pub(super) hidden: HashSet<SessionId>,
    /// Every session as it was last seen.
    pub(super) known: BTreeMap<SessionId, Session>,
    /// Which handle stored it, until another one has asked for it.
    pub(super) born: HashMap<SessionId, usize>,
    pub(super) deadlines: HashMap<SessionId, Timestamp>,
    pub(super) seen: HashMap<SessionId, Timestamp>,
    pub(super) ended: HashMap<SessionId, Revocation>,
    pub(super) rotated: HashSet<SessionId>,
    pub(super) updated: HashSet<SessionId>,
    pub(super) stale: HashMap<SessionId, CredentialEpoch>,
    pub(super) index: HashMap<UserId, Vec<SessionId>>,
    pub(super) deleted: HashSet<UserId>,
    pub(super) caches: BTreeSet<CacheName>,
    pub(super) drained: BTreeSet<LogId>,
    pub(super) is_damaged: bool,
    /// The latest moment that any call named.
    pub(super) now: Option<Timestamp>,
    pub(super) calls: u64,
}

/// A session that nobody has stored.
pub(super) fn blank(id: SessionId, now: Timestamp) -> Session {
    let end = now.plus(std::time::Duration::from_hours(1));
    Session {
        id,
        user_id: None,
        secret_hash: SecretHash::from_bytes([0; 32]),
        previous: None,
        created_at: now,
        authenticated_at: None,
        last_seen_at: now,
        expires_at: end,
        absolute_expires_at: None,
        idle_timeout: Ttl::MIN,
        rotated_at: now,
        metadata: Metadata::default(),
        remember: false,
        aal: None,
        amr: Vec::new(),
        external_sid: None,
        data: Json::default(),
        version: 1,
        credential_epoch: CredentialEpoch::default(),
        revoked: None,
    }
}
