//! What the tests of this crate begin with.

use std::time::Duration;

use session_store_core::{
    CredentialEpoch, Json, Metadata, NewSession, PrimaryStore, SecretHash, Session, SessionId,
    Timestamp, Ttl, User, UserId,
};
use session_store_postgres::{PostgresHarness, PostgresStore};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
pub(crate) const HOUR: Duration = Duration::from_hours(1);

pub(crate) fn server() -> PostgresHarness {
    PostgresHarness::from_env().unwrap()
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub(crate) fn session(number: u32, owner: Option<&str>) -> NewSession {
    let mut id = [0; 16];
    id[12..].copy_from_slice(&number.to_be_bytes());
    let session = Session {
        id: SessionId::from_bytes(id),
        user_id: owner.map(user),
        secret_hash: SecretHash::from_bytes([7; 32]),
        previous: None,
        created_at: NOW,
        authenticated_at: None,
        last_seen_at: NOW,
        expires_at: NOW.plus(HOUR),
        absolute_expires_at: None,
        idle_timeout: Ttl::new(HOUR).unwrap(),
        rotated_at: NOW,
        metadata: Metadata::default(),
        remember: false,
        aal: None,
        amr: vec![],
        external_sid: None,
        data: Json::default(),
        version: 1,
        credential_epoch: CredentialEpoch(0),
        revoked: None,
    };
    NewSession { session, limit: None }
}

/// A store in which `ada` is registered.
pub(crate) async fn store(on: &PostgresHarness, namespace: &str) -> PostgresStore {
    let store = PostgresStore::connect(&on.fresh(namespace).await.unwrap()).await.unwrap();
    store.insert_user(&User::new(user("ada"), NOW), NOW).await.unwrap();
    store
}

pub(crate) fn address() -> String {
    std::env::var("SESSION_STORE_POSTGRES_URL").unwrap()
}
