//! A Postgres that confirms commits before they are written, and is killed: what it may forget.

use std::time::Duration;

use session_store::postgres::{PostgresHarness, PostgresStore};
use session_store::{
    CacheName, CacheRegistration, CacheScope, CredentialEpoch, Edit, Json, Metadata, NewSession,
    PasswordHash, PrimaryStore, Reason, Rotation, SecretHash, Selection, Session, SessionChange,
    SessionId, SessionLimit, Timestamp, Ttl, User, UserChange, UserId,
};

use super::node::{Outcome, said, user};
use super::private::Private;
use super::{BUSIEST, World, ensure, until};
use crate::servers::postgres;
use crate::servers::process::Running;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// It confirms at once, and writes as late as it can.
const FORGETFUL: &str = "synchronous_commit = off\nwal_writer_delay = 10s\nautovacuum = off\n";

fn session(number: u8) -> Outcome<NewSession> {
    let session = Session {
        id: SessionId::from_bytes([number; 16]),
        user_id: Some(user()?),
        secret_hash: SecretHash::from_bytes([7; 32]),
        previous: None,
        created_at: NOW,
        authenticated_at: None,
        last_seen_at: NOW,
        expires_at: NOW.plus(Duration::from_hours(1)),
        absolute_expires_at: None,
        idle_timeout: Ttl::new(Duration::from_hours(1)).ok_or("no time")?,
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
    Ok(NewSession { session, limit: None })
}

/// What is confirmed right before the server is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Login,
    RevokeOne,
    RevokeAll,
    Evict,
    Rotate,
    ChangePassword,
    DeleteUser,
    Register,
    RegisterUser,
}

impl Deed {
    const LASTING: [Self; 8] = [
        Self::RevokeOne,
        Self::RevokeAll,
        Self::Evict,
        Self::Rotate,
        Self::ChangePassword,
        Self::DeleteUser,
        Self::Register,
        Self::RegisterUser,
    ];

    async fn done(self, on: &PostgresStore) -> Outcome {
        let id = session(1)?.session.id;
        match self {
            Self::Login => on.insert(&session(2)?, NOW).await.map_err(said).map(drop),
            Self::RevokeOne | Self::RevokeAll => {
                let one = Selection::One { id, owner: None };
                let all = Selection::AllOf(user()?);
                let selection = if self == Self::RevokeOne { one } else { all };
                on.revoke(&selection, Reason::Logout, NOW).await.map_err(said).map(drop)
            }
            Self::Evict => {
                let mut new = session(2)?;
                new.limit = Some(SessionLimit { max: 1, evict: true });
                let done = on.insert(&new, NOW).await.map_err(said)?;
                ensure(done.evicted == [id], "nobody was evicted")
            }
            Self::Rotate => {
                let secret_hash = SecretHash::from_bytes([8; 32]);
                let rotation = Rotation { secret_hash, previous: None, rotated_at: NOW };
                let change = SessionChange { rotation: Some(rotation), ..SessionChange::default() };
                on.update(&id, 1, &change, NOW).await.map_err(said).map(drop)
            }
            Self::ChangePassword => {
                let hash = PasswordHash::new("new").map_err(said)?;
                let change = UserChange { password_hash: Edit::Set(hash), ..UserChange::default() };
                on.update_user(&user()?, 1, &change).await.map_err(said).map(drop)
            }
            Self::DeleteUser => on.delete_user(&user()?, NOW).await.map_err(said).map(drop),
            Self::Register => on.register(&cache()?).await.map_err(said),
            Self::RegisterUser => {
                on.insert_user(&User::new(other()?, NOW), NOW).await.map_err(said)
            }
        }
    }

    /// Whether it still is so.
    async fn is_so(self, on: &PostgresStore) -> Outcome<bool> {
        let found = async |number| {
            let id = session(number)?.session.id;
            let found = on.find(&id).await.map_err(said)?;
            Ok::<_, String>(found.snapshot.map(|snapshot| snapshot.session))
        };
        Ok(match self {
            Self::Login => found(2).await?.is_some(),
            Self::RevokeOne | Self::RevokeAll | Self::Evict => {
                found(1).await?.is_some_and(|session| session.revoked.is_some())
            }
            Self::Rotate => found(1).await?.is_some_and(|session| {
                session.secret_hash == SecretHash::from_bytes([8; 32]) && session.version == 2
            }),
            Self::ChangePassword => {
                let account = on.find_user(&user()?).await.map_err(said)?;
                account.is_some_and(|account| account.user.password_hash.is_some())
            }
            Self::DeleteUser => on.find_user(&user()?).await.map_err(said)?.is_none(),
            Self::Register => on.caches().await.map_err(said)?.contains(&cache()?),
            Self::RegisterUser => on.find_user(&other()?).await.map_err(said)?.is_some(),
        })
    }
}

fn other() -> Outcome<UserId> {
    UserId::new("other").map_err(said)
}

fn cache() -> Outcome<CacheRegistration> {
    let name = CacheName::new("near").map_err(said)?;
    Ok(CacheRegistration { name, scope: CacheScope::Shared, ttl: Ttl::MIN })
}

/// How often the login is tried: now and then the server writes of itself, between it and the crash.
const TRIES: u32 = 3;

/// A Postgres that is killed and started again.
struct Mortal {
    server: Private,
    port: u16,
    running: Running,
}

impl Mortal {
    fn new() -> Outcome<Self> {
        let server = Private::new()?;
        let (running, port) =
            server.postgres(|folder| postgres::configure(folder, FORGETFUL).map_err(said))?;
        Ok(Self { server, port, running })
    }

    /// Whether the deed is so after a crash.
    async fn remembers(&mut self, deed: Deed) -> Outcome<bool> {
        let shell = PostgresHarness::new(postgres::url(self.port));
        let config = shell.fresh("crash").await.map_err(said)?;
        let store = PostgresStore::connect(&config).await.map_err(said)?;
        store.insert_user(&User::new(user()?, NOW), NOW).await.map_err(said)?;
        store.insert(&session(1)?, NOW).await.map_err(said)?;
        // What came before is written.
        shell.run("CHECKPOINT".to_owned()).await.map_err(said)?;
        deed.done(&store).await?;
        self.running.signal("-QUIT");
        until(BUSIEST, "it has ended", async || !self.running.is_alive()).await?;
        self.running = postgres::launch(&self.server.home, self.port).map_err(said)?;
        let store = PostgresStore::connect(&config).await.map_err(said)?;
        deed.is_so(&store).await
    }
}

pub(super) async fn what_was_ended_survives_a_crash(_: &World) -> Outcome<String> {
    let mut on = Mortal::new()?;
    let mut forgotten = Vec::new();
    for deed in Deed::LASTING {
        if !on.remembers(deed).await? {
            forgotten.push(deed);
        }
    }
    ensure(forgotten.is_empty(), &format!("forgotten: {forgotten:?}"))?;
    // That a login is forgotten shows that the server forgets what it may.
    for _ in 0..TRIES {
        if !on.remembers(Deed::Login).await? {
            return Ok(
                "a login is forgotten, as configured; nothing that ends a session or guards \
                 one"
                .to_owned(),
            );
        }
    }
    Err(format!("a login was remembered {TRIES} times: nothing was shown"))
}
