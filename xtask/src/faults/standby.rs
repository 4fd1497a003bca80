//! What stands where the truth is expected: a server that follows another one, and one that forgets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use session_store::postgres::{Access, PostgresConfig, PostgresHarness, PostgresStore};
use session_store::{ErrorKind, PrimaryStore};
use sqlx::postgres::PgPoolOptions;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::node::{Outcome, said};
use super::private::Private;
use super::{BUSIEST, World, ensure, until};
use crate::servers::install::free_port;
use crate::servers::postgres;

/// Whether it was refused, and said why.
fn is_named(refused: &session_store::Error) -> Outcome {
    let is_named = matches!(refused.kind(), ErrorKind::Configuration { what }
        if what.contains("standby") && what.contains("primary"));
    ensure(is_named, &format!("{refused} {:?}", std::error::Error::source(refused)))
}

pub(super) async fn a_standby_is_no_truth(_: &World) -> Outcome<String> {
    let (truth, copy) = (Private::new()?, Private::new()?);
    let (primary, port) = truth.postgres(|_| Ok(()))?;
    let mut config = PostgresConfig::new(postgres::url(port));
    config.connect_timeout = Duration::from_secs(20);
    let store = PostgresStore::connect(&config).await.map_err(said)?;

    postgres::copy(port, &copy.home).map_err(said)?;
    let follows = free_port().map_err(said)?;
    postgres::launch(&copy.home, follows).map_err(said)?;
    let mut other = config.clone();
    other.url = postgres::url(follows);
    for access in [Access::Migrate, Access::Ready] {
        other.access = access;
        let refused = PostgresStore::connect(&other).await.err();
        is_named(&refused.ok_or("a standby was taken for the truth")?)?;
        let pool = PgPoolOptions::new().connect_lazy(&other.url).map_err(said)?;
        let refused = PostgresStore::over(pool, &other).await.err();
        is_named(&refused.ok_or("a pool on a standby was taken for the truth")?)?;
    }

    // A failover by name: the same address, and behind it the one that follows.
    let way = Way::to(port).await?;
    let mut through = config.clone();
    through.url = postgres::url(way.port);
    // How long a busy machine takes to connect is of no interest, only that nobody dials twice.
    through.connect_timeout = Duration::from_secs(20);
    let moved = both(&through).await?;
    let stranger = session_store::SessionId::from_bytes([7; 16]);
    for moved in &moved {
        moved.find(&stranger).await.map_err(said)?;
    }
    way.lead_to(&[follows]);
    // Connections that are open still lead to the primary, until they are closed there.
    let closed = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    PostgresHarness::new(postgres::url(port)).run(closed.to_owned()).await.map_err(said)?;
    for moved in &moved {
        refuses_a_standby_behind(&way, moved).await?;
    }
    // One address, and behind it both.
    for ports in [[port, follows], [follows, port]] {
        way.lead_to(&ports);
        let refused = PostgresStore::connect(&through).await.err();
        is_named(&refused.ok_or("every second connection to a standby")?)?;
    }
    way.lead_to(&[follows]);

    drop((store, primary));
    truth.home.stop(&["-QUIT", "-KILL"]).map_err(said)?;
    let promote = "SELECT pg_promote()".to_owned();
    PostgresHarness::new(postgres::url(follows)).run(promote).await.map_err(said)?;
    let healed = until(BUSIEST, "the new primary is used", async || {
        moved[0].find(&stranger).await.is_ok() && moved[1].find(&stranger).await.is_ok()
    });
    let healed = healed.await?;
    PostgresStore::connect(&other).await.map_err(said)?;
    Ok(format!("refused by name, also behind a name that moved; promoted, used in {healed:?}"))
}

/// A store with a pool of its own, and one over the application's.
async fn both(config: &PostgresConfig) -> Outcome<[PostgresStore; 2]> {
    let options = config.guard(PgPoolOptions::new().acquire_timeout(config.connect_timeout));
    let pool = options.map_err(said)?.connect_lazy(&config.url).map_err(said)?;
    let own = PostgresStore::connect(config).await.map_err(said)?;
    Ok([own, PostgresStore::over(pool, config).await.map_err(said)?])
}

/// Each call fails by itself, dials once, and says why.
async fn refuses_a_standby_behind(way: &Way, on: &PostgresStore) -> Outcome {
    let stranger = session_store::SessionId::from_bytes([7; 16]);
    // The first one notices that its connection was closed.
    for round in 0..3 {
        let before = way.dials();
        let refused = on.find(&stranger).await.err().ok_or("the standby was read")?;
        let source = std::error::Error::source(&refused).map(ToString::to_string);
        let is_named = source.as_ref().is_some_and(|source| source.contains("standby"));
        let is_typed = refused.kind() == &ErrorKind::Unavailable && is_named;
        ensure(is_typed, &format!("{refused} {source:?}"))?;
        let dials = way.dials() - before;
        ensure(dials == 1, &format!("call {round}: dialled {dials} times"))?;
    }
    Ok(())
}

/// A way to a server, which may become one to another, or to several in turn.
struct Way {
    port: u16,
    servers: watch::Sender<Vec<u16>>,
    dials: Arc<AtomicUsize>,
}

impl Way {
    async fn to(port: u16) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(said)?;
        let own = listener.local_addr().map_err(said)?.port();
        let (servers, watch) = watch::channel(vec![port]);
        let dials = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&dials);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let ports = watch.borrow().clone();
                let port = ports.get(number % ports.len().max(1)).copied();
                let Some(port) = port else { continue };
                tokio::spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Ok(Self { port: own, servers, dials })
    }

    fn lead_to(&self, ports: &[u16]) {
        self.servers.send_replace(ports.to_vec());
    }

    /// How many connections were made.
    fn dials(&self) -> usize {
        self.dials.load(Ordering::SeqCst)
    }
}
