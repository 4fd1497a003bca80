//! A network between a client and a server that does what it is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::cli::Failure;

/// What happens to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// They pass.
    Fair,
    /// They are held back, those of new connections too, and pass later.
    Held,
    /// Those of connections that are open now are held for ever; new connections are fair.
    HalfOpen,
    /// What clients say is lost for good, and its connection with it.
    Deaf,
    /// The next reply is lost, and its connection with it; fair afterwards.
    LosesReply,
    /// They pass, each piece after 20 ms.
    Slow,
    /// New connections are refused, and open ones are cut.
    Refused,
}

/// A proxy on a port of its own.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    weather: watch::Sender<Weather>,
    /// How many connections there were.
    count: AtomicU64,
    /// Connections up to this one are silent.
    silent: AtomicU64,
}

impl Proxy {
    /// A proxy before the server on `port`.
    pub(crate) async fn before(port: u16) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::io("proxy", &error);
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let own = listener.local_addr().map_err(failed)?.port();
        let shared = Arc::new(Shared {
            weather: watch::Sender::new(Weather::Fair),
            count: AtomicU64::new(0),
            silent: AtomicU64::new(0),
        });
        let server = SocketAddr::from(([127, 0, 0, 1], port));
        let task = tokio::spawn(accept(listener, server, Arc::clone(&shared)));
        Ok(Self { port: own, shared, task })
    }

    pub(crate) fn set(&self, weather: Weather) {
        if weather == Weather::HalfOpen {
            let count = self.shared.count.load(Ordering::SeqCst);
            self.shared.silent.store(count, Ordering::SeqCst);
        }
        self.shared.weather.send_replace(weather);
    }

    /// Whether the reply that was to be lost has been.
    pub(crate) fn is_fair(&self) -> bool {
        *self.shared.weather.borrow() == Weather::Fair
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        if *shared.weather.borrow() == Weather::Refused {
            continue;
        }
        let number = shared.count.fetch_add(1, Ordering::SeqCst) + 1;
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let Ok(upstream) = TcpStream::connect(server).await else { return };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = upstream.into_split();
            let there = carry(from_client, to_server, &shared, (number, false));
            let back = carry(from_server, to_client, &shared, (number, true));
            // When one side is gone, so is the connection.
            tokio::select! { () = there => {}, () = back => {} }
        });
    }
}

/// Carries bytes one way until an end is gone or the weather takes the connection.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    (number, is_reply): (u64, bool),
) {
    let mut weather = shared.weather.subscribe();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let length = tokio::select! {
            read = from.read(&mut buffer) => match read {
                Ok(length) if length > 0 => length,
                _ => return,
            },
            _ = weather.wait_for(|weather| *weather == Weather::Refused) => return,
        };
        if !is_reply && *weather.borrow() == Weather::Deaf {
            return;
        }
        if is_reply && shared.weather.send_if_modified(take_reply) {
            return;
        }
        if number <= shared.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if weather.wait_for(|weather| *weather != Weather::Held).await.is_err() {
            return;
        }
        if *shared.weather.borrow() == Weather::Slow {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// Whether this reply is the one that is lost.
fn take_reply(weather: &mut Weather) -> bool {
    let is_lost = *weather == Weather::LosesReply;
    if is_lost {
        *weather = Weather::Fair;
    }
    is_lost
}
