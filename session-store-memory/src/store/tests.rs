//! What the memory store does beyond the contract: its log, its indexes, its mock mode.

use std::collections::BTreeSet;
use std::time::Duration;

use session_store_core::{
    CacheName, CacheRegistration, CacheScope, CredentialEpoch, Edit, Email, ErrorKind, Json,
    Metadata, NewSession, PasswordHash, PrimaryStore, Promotion, Reason, Role, SecretHash,
    Selection, Session, SessionChange, SessionId, SessionIds, SessionLimit, State, SweepBounds,
    Timestamp, Touch, Touched, Ttl, Update, User, UserChange, UserId, UserUpdate,
};

use super::{MemoryConfig, MemoryStore};
use crate::host::ready;
use crate::tables::Tables;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn later(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

fn id(number: u8) -> SessionId {
    SessionId::from_bytes([number; 16])
}

fn ada() -> UserId {
    UserId::new("ada").unwrap()
}

fn user(name: &str) -> User {
    let mut user = User::new(UserId::new(name).unwrap(), NOW);
    user.email = Some(Email::parse(format!("{name}@example.org")).unwrap());
    user
}

/// A session that is active for a minute from `NOW`.
fn session(number: u8, owner: Option<&str>) -> Session {
    Session {
        id: id(number),
        user_id: owner.map(|name| UserId::new(name).unwrap()),
        secret_hash: SecretHash::from_bytes([number; 32]),
        previous: None,
        created_at: NOW,
        authenticated_at: None,
        last_seen_at: NOW,
        expires_at: later(60),
        absolute_expires_at: None,
        idle_timeout: Ttl::new(Duration::from_mins(1)).unwrap(),
        rotated_at: NOW,
        metadata: Metadata::default(),
        remember: false,
        aal: None,
        amr: Vec::new(),
        external_sid: None,
        data: Json::default(),
        version: 1,
        credential_epoch: CredentialEpoch(0),
        revoked: None,
    }
}

fn insert(store: &MemoryStore, session: Session) -> Result<SessionIds, ErrorKind> {
    let limit = None;
    let inserted = ready(store.insert(&NewSession { session, limit }, NOW));
    inserted.map(|inserted| inserted.evicted).map_err(|error| error.kind().clone())
}

/// A store with the user `ada` and her sessions 1 to `count`.
fn store(count: u8) -> MemoryStore {
    let store = MemoryStore::with_users([user("ada")]).unwrap();
    for number in 1..=count {
        insert(&store, session(number, Some("ada"))).unwrap();
    }
    store
}

fn stored(store: &MemoryStore, number: u8) -> Session {
    let found = ready(store.find(&id(number))).unwrap();
    found.snapshot.unwrap().session
}

fn cache(name: &str, scope: CacheScope) -> CacheRegistration {
    CacheRegistration {
        name: CacheName::new(name).unwrap(),
        scope,
        ttl: Ttl::new(Duration::from_mins(5)).unwrap(),
    }
}

fn register(store: &MemoryStore, name: &str, scope: CacheScope) -> CacheName {
    ready(store.register(&cache(name, scope))).unwrap();
    CacheName::new(name).unwrap()
}

fn drained(store: &MemoryStore, cache: &CacheName) -> Vec<SessionIds> {
    let drained = ready(store.drain(cache, 100)).unwrap();
    let sessions = drained.entries.into_iter().map(|entry| entry.sessions);
    sessions.collect()
}

fn acknowledge(store: &MemoryStore, cache: &CacheName) {
    let drained = ready(store.drain(cache, 100)).unwrap();
    let entries: Vec<_> = drained.entries.iter().map(|entry| entry.id).collect();
    ready(store.acknowledge(cache, &entries)).unwrap();
}

fn revoke(store: &MemoryStore, selection: &Selection, now: Timestamp) -> (SessionIds, SessionIds) {
    let outcome = ready(store.revoke(selection, Reason::Admin, now)).unwrap();
    (outcome.revoked, outcome.earlier)
}

fn log_length(store: &MemoryStore) -> usize {
    store.tables.read().log.len()
}

#[test]
fn a_mock_holds_the_users_it_was_made_of() {
    let store = MemoryStore::with_users([user("ada"), user("bob")]).unwrap();
    assert_eq!(ready(store.count_users()).unwrap(), 2);
    let bob = ready(store.find_user_by_email("bob@example.org")).unwrap();
    assert_eq!(bob.unwrap().user, user("bob"));
    let twice = MemoryStore::with_users([user("ada"), user("ada")]).unwrap_err();
    assert_eq!(twice.kind(), &ErrorKind::Conflict);
}

#[test]
fn the_address_is_projected_only_when_asked_for() {
    let mut config = MemoryConfig::default();
    for project_email in [false, true] {
        config.project_email = project_email;
        let store = MemoryStore::from_config(&config);
        ready(store.insert_user(&user("ada"), NOW)).unwrap();
        insert(&store, session(1, Some("ada"))).unwrap();
        let snapshot = ready(store.find(&id(1))).unwrap().snapshot.unwrap();
        assert_eq!(snapshot.user.unwrap().email.is_some(), project_email);
    }
}

#[test]
fn an_epoch_does_not_restart_with_its_user() {
    let store = store(1);
    let deleted = ready(store.delete_user(&ada(), later(10))).unwrap();
    assert_eq!(deleted.unwrap().sessions, [id(1)]);
    let early = ready(store.insert_user(&user("ada"), later(9))).unwrap_err();
    assert_eq!(early.kind(), &ErrorKind::UnknownUser);
    ready(store.insert_user(&user("ada"), later(10))).unwrap();
    let account = ready(store.find_user(&ada())).unwrap().unwrap();
    assert_eq!(account.credential_epoch, CredentialEpoch(1));
    let old = insert(&store, session(2, Some("ada")));
    assert_eq!(old, Err(ErrorKind::StaleCredentials));
}

#[test]
fn revoking_everything_counts_before_the_first_session_and_leaves_no_row_of_a_stranger() {
    let store = store(0);
    revoke(&store, &Selection::AllOf(ada()), NOW);
    revoke(&store, &Selection::AllOf(UserId::new("eve").unwrap()), NOW);
    let late = insert(&store, session(1, Some("ada")));
    assert_eq!(late, Err(ErrorKind::StaleCredentials));
    assert_eq!(store.tables.read().owners.len(), 1);
}

#[test]
fn the_spared_session_gets_the_epoch_without_a_version() {
    let store = store(2);
    let (revoked, earlier) = revoke(&store, &Selection::AllBut(ada(), id(2)), NOW);
    assert_eq!((revoked, earlier), (vec![id(1)], Vec::new()));
    let spared = stored(&store, 2);
    assert_eq!(spared.credential_epoch, CredentialEpoch(1));
    assert_eq!((spared.version, spared.revoked), (1, None));
}

#[test]
fn an_expired_session_is_ended_and_not_counted() {
    let store = store(1);
    let one = Selection::Ids(vec![id(1), id(1)]);
    assert_eq!(revoke(&store, &one, later(60)), Default::default());
    assert_eq!(revoke(&store, &one, later(61)).1, [id(1)]);
    let ended = stored(&store, 1).revoked.unwrap();
    assert_eq!(ended.at, later(60));
}

#[test]
fn everyone_is_reached_a_few_at_a_time() {
    let store = store(9);
    ready(store.touch(&[Touch { id: id(5), seen_at: NOW, expires_at: later(90) }])).unwrap();
    let some = Selection::Everyone { created_before: Timestamp::MAX, limit: 4 };
    assert_eq!(revoke(&store, &some, later(70)).0, [id(5)]);
    for _ in 0..2 {
        assert_eq!(revoke(&store, &some, later(70)).0, []);
    }
    assert!((1..=9).all(|number| stored(&store, number).revoked.is_some()));
}

#[test]
fn a_promotion_makes_room_and_refuses_a_session_of_another_user() {
    let store = store(2);
    ready(store.insert_user(&user("bob"), NOW)).unwrap();
    insert(&store, session(3, None)).unwrap();
    let promote = |name: &str| SessionChange {
        promotion: Some(Promotion {
            user_id: UserId::new(name).unwrap(),
            credential_epoch: CredentialEpoch(0),
            limit: Some(SessionLimit { max: 2, evict: true }),
            remember: false,
            idle_timeout: Ttl::MIN,
            absolute_expires_at: None,
            external_sid: None,
        }),
        ..SessionChange::default()
    };
    let Update::Updated(updated) = ready(store.update(&id(3), 1, &promote("ada"), NOW)).unwrap()
    else {
        panic!("the promotion was refused");
    };
    assert_eq!(updated.evicted, [id(1)]);
    assert_eq!(updated.snapshot.user.unwrap().id, ada());
    let stolen = ready(store.update(&id(3), 2, &promote("bob"), NOW)).unwrap_err();
    assert!(matches!(stolen.kind(), ErrorKind::InvalidInput { .. }));
    assert_eq!(stored(&store, 3).user_id, Some(ada()));
}

#[test]
fn data_over_the_limit_is_refused_before_any_effect() {
    let store = store(1);
    let limit = store.promise().max_data_bytes;
    let exact = Json::of(&"x".repeat(limit - 2)).unwrap();
    let over = Json::of(&"x".repeat(limit - 1)).unwrap();
    let change = |data| SessionChange { data: Some(data), ..SessionChange::default() };
    let refused = ready(store.update(&id(1), 1, &change(over), NOW)).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::TooLarge { .. }));
    assert_eq!(stored(&store, 1), session(1, Some("ada")));
    ready(store.update(&id(1), 1, &change(exact), NOW)).unwrap();
    assert_eq!(stored(&store, 1).version, 2);
}

#[test]
fn nothing_is_logged_while_no_cache_is_shared() {
    let store = store(2);
    let own = register(&store, "own", CacheScope::Process);
    revoke(&store, &Selection::AllOf(ada()), NOW);
    assert!(drained(&store, &own).is_empty());
    assert_eq!(log_length(&store), 0);
}

#[test]
fn an_entry_goes_when_the_last_shared_cache_has_acknowledged_it() {
    let store = store(1);
    let (east, west) = (
        register(&store, "east", CacheScope::Shared),
        register(&store, "west", CacheScope::Shared),
    );
    register(&store, "own", CacheScope::Process);
    revoke(&store, &Selection::AllOf(ada()), NOW);
    acknowledge(&store, &east);
    assert!(drained(&store, &east).is_empty());
    assert_eq!(drained(&store, &west), [[id(1)]]);
    acknowledge(&store, &west);
    assert_eq!(log_length(&store), 0);
}

#[test]
fn an_entry_about_a_user_names_sessions_that_came_later() {
    let store = store(1);
    let main = register(&store, "main", CacheScope::Shared);
    let mut change = UserChange::default();
    let update = |version, change: &UserChange| {
        let updated = ready(store.update_user(&ada(), version, change)).unwrap();
        assert!(matches!(updated, UserUpdate::Updated { .. }));
    };
    change.password_hash = Edit::Set(PasswordHash::new("x").unwrap());
    update(1, &change);
    assert!(drained(&store, &main).is_empty(), "nothing projected");
    change.password_hash = Edit::Keep;
    change.role = Some(Role::new("admin").unwrap());
    update(2, &change);
    let mut login = session(2, Some("ada"));
    login.credential_epoch = CredentialEpoch(1);
    insert(&store, login).unwrap();
    assert_eq!(drained(&store, &main), [[id(1), id(2)]]);
}

#[test]
fn a_sweep_logs_nothing_and_drops_entries_that_outlived_every_ttl() {
    let store = store(2);
    let main = register(&store, "main", CacheScope::Shared);
    revoke(&store, &Selection::Ids(vec![id(1)]), NOW);
    let sweep = |seconds| {
        let bounds = SweepBounds { expired_before: later(seconds), revoked_before: NOW };
        ready(store.sweep(&bounds, 10)).unwrap().removed
    };
    assert_eq!((sweep(60), log_length(&store)), (2, 1));
    assert_eq!(drained(&store, &main), [[id(1)]]);
    assert_eq!((sweep(360), log_length(&store)), (0, 1));
    assert_eq!((sweep(361), log_length(&store)), (0, 0));
}

#[test]
fn a_touch_ends_at_the_absolute_deadline_and_revives_nothing() {
    let store = store(0);
    let mut capped = session(1, Some("ada"));
    capped.absolute_expires_at = Some(later(70));
    insert(&store, capped).unwrap();
    let touch = |at, until| {
        let (seen_at, expires_at) = (later(at), later(until));
        let id = id(1);
        let touches = [Touch { id, seen_at, expires_at }];
        ready(store.touch(&touches)).unwrap()[0]
    };
    let expires_at = later(70);
    assert_eq!(touch(10, 100), Touched::Active { expires_at });
    assert_eq!(touch(5, 20), Touched::Active { expires_at });
    assert_eq!(touch(70, 100), Touched::Missing);
    assert_eq!(stored(&store, 1).last_seen_at, later(10));
}

#[test]
fn every_index_agrees_with_the_table_after_any_history() {
    let store = MemoryStore::with_users([user("ada"), user("bob")]).unwrap();
    let limit = Some(SessionLimit { max: 5, evict: true });
    for step in 0..2_000_u32 {
        let mixed = step.wrapping_mul(2_654_435_761).to_be_bytes();
        let (number, now) = (mixed[1] % 40, later(u64::from(step / 20)));
        let owner = [None, Some("ada"), Some("bob")][usize::from(mixed[2] % 3)];
        let mut new = session(number, owner);
        (new.created_at, new.expires_at) = (now, now.plus(Duration::from_secs(20)));
        if let Some(owner) = owner {
            let owner = ready(store.find_user(&UserId::new(owner).unwrap())).unwrap();
            new.credential_epoch = owner.unwrap().credential_epoch;
        }
        let expires_at = now.plus(Duration::from_secs(30));
        match mixed[3] % 16 {
            0 => _ = revoke(&store, &Selection::AllBut(ada(), id(number)), now),
            1 => _ = revoke(&store, &Selection::Everyone { created_before: now, limit: 3 }, now),
            2 => {
                let bounds = SweepBounds { expired_before: now, revoked_before: now };
                ready(store.sweep(&bounds, 7)).unwrap();
            }
            3..7 => {
                let touch = Touch { id: id(number), seen_at: now, expires_at };
                ready(store.touch(&[touch])).unwrap();
            }
            _ => {
                let new = NewSession { session: new, limit };
                // A taken id or a stale epoch is part of the history.
                drop(ready(store.insert(&new, now)));
            }
        }
        check_indexes(&store.tables.read(), now);
    }
}

fn check_indexes(tables: &Tables, now: Timestamp) {
    let all = || tables.sessions.values();
    let ids = |sessions: Vec<&Session>| sessions.iter().map(|s| s.id).collect::<BTreeSet<_>>();
    let deadlines = tables.by_deadline.iter().map(|key| (key.0, key.1, key.2));
    let expected: BTreeSet<_> =
        all().map(|session| (session.revoked.is_some(), session.expires_at, session.id)).collect();
    assert!(deadlines.eq(expected));
    let revoked = ids(all().filter(|session| session.revoked.is_some()).collect());
    let indexed: BTreeSet<_> = tables.by_revocation.iter().map(|key| key.1).collect();
    assert_eq!(revoked, indexed);
    for (user, keys) in &tables.by_user {
        let of_user = |session: &&Session| session.user_id.as_ref() == Some(user);
        assert_eq!(ids(all().filter(of_user).collect()).len(), keys.len());
        let active = |session: &&Session| session.state(now) == State::Active;
        assert!(tables.of(user).filter(active).count() <= 5);
    }
}
