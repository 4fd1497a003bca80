//! What stands where the truth is expected: a server that follows another one, and one that forgets.

use std::time::Duration;

use session_store::postgres::{Access, PostgresConfig, PostgresHarness, PostgresStore};
use session_store::{ErrorKind, PrimaryStore};
use sqlx::postgres::PgPoolOptions;

use super::node::{Outcome, said};
use super::private::Private;
use super::{World, ensure, until};
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
    postgres::make(&truth.home.folder).map_err(said)?;
    let port = free_port().map_err(said)?;
    let primary = postgres::launch(&truth.home, port).map_err(said)?;
    let mut config = PostgresConfig::new(postgres::url(port));
    config.connect_timeout = Duration::from_secs(5);
    let store = PostgresStore::connect(&config).await.map_err(said)?;

    postgres::copy(port, &copy.home.folder).map_err(said)?;
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
    through.connect_timeout = Duration::from_secs(1);
    let moved = PostgresStore::connect(&through).await.map_err(said)?;
    let stranger = session_store::SessionId::from_bytes([7; 16]);
    moved.find(&stranger).await.map_err(said)?;
    way.lead_to(follows);
    // Connections that are open still lead to the primary, until they are closed there.
    let closed = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    PostgresHarness::new(postgres::url(port)).run(closed.to_owned()).await.map_err(said)?;
    let refused = moved.find(&stranger).await.err().ok_or("the standby was read")?;
    ensure(refused.kind() == &ErrorKind::Unavailable, &refused.to_string())?;

    drop((store, primary));
    truth.home.stop(&["-QUIT"]).map_err(said)?;
    let promote = "SELECT pg_promote()".to_owned();
    PostgresHarness::new(postgres::url(follows)).run(promote).await.map_err(said)?;
    let healed = until(Duration::from_secs(20), "the new primary is used", async || {
        moved.find(&stranger).await.is_ok()
    });
    let healed = healed.await?;
    PostgresStore::connect(&other).await.map_err(said)?;
    Ok(format!("refused by name, also behind a name that moved; promoted, used in {healed:?}"))
}

/// A way to a server, which may become one to another.
struct Way {
    port: u16,
    server: tokio::sync::watch::Sender<u16>,
}

impl Way {
    async fn to(port: u16) -> Outcome<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(said)?;
        let own = listener.local_addr().map_err(said)?.port();
        let (server, watch) = tokio::sync::watch::channel(port);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let port = *watch.borrow();
                tokio::spawn(async move {
                    let server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
                    if let Ok(mut server) = server {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Ok(Self { port: own, server })
    }

    fn lead_to(&self, port: u16) {
        self.server.send_replace(port);
    }
}
