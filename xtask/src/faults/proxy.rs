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
    /// What servers say is held back and passes later; what clients say passes.
    Mute,
    /// Those of connections that are open now are held for ever; new connections are fair.
    HalfOpen,
    /// Connections that are open now are reset; new connections are fair.
    Reset,
    /// What clients say is lost for good, and its connection with it.
    Deaf,
    /// Instead of the next reply its connection is reset; fair afterwards.
    LosesReply,
    /// The same for the next reply after somebody has said this word.
    LosesReplyTo(&'static str),
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
    /// Connections up to this one are reset.
    doomed: AtomicU64,
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
            doomed: AtomicU64::new(0),
        });
        let server = SocketAddr::from(([127, 0, 0, 1], port));
        let task = tokio::spawn(accept(listener, server, Arc::clone(&shared)));
        Ok(Self { port: own, shared, task })
    }

    pub(crate) fn set(&self, weather: Weather) {
        let count = self.shared.count.load(Ordering::SeqCst);
        match weather {
            Weather::HalfOpen => self.shared.silent.store(count, Ordering::SeqCst),
            Weather::Reset => self.shared.doomed.store(count, Ordering::SeqCst),
            _ => {}
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
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = upstream.into_split();
            let there = carry(&mut from_client, &mut to_server, &shared, (number, false));
            let back = carry(&mut from_server, &mut to_client, &shared, (number, true));
            // When one side is gone, so is the connection.
            let end = tokio::select! { end = there => end, end = back => end };
            if end == End::Reset {
                for half in [to_client, to_server] {
                    let _ = half.as_ref().set_zero_linger();
                    // An orderly end first would be all that the other side sees.
                    half.forget();
                }
            }
        });
    }
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

/// Carries bytes one way until an end is gone or the weather takes the connection.
async fn carry(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    shared: &Shared,
    (number, is_reply): (u64, bool),
) -> End {
    let mut weather = shared.weather.subscribe();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let length = tokio::select! {
            read = from.read(&mut buffer) => match read {
                Ok(length) if length > 0 => length,
                _ => return End::Closed,
            },
            end = taken(&mut weather, shared, number) => return end,
        };
        if !is_reply && *weather.borrow() == Weather::Deaf {
            return End::Closed;
        }
        if !is_reply {
            shared.weather.send_if_modified(|weather| hear(weather, &buffer[..length]));
        }
        if is_reply && shared.weather.send_if_modified(take_reply) {
            return End::Reset;
        }
        if number <= shared.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let passes = |weather: &Weather| {
            *weather != Weather::Held && !(is_reply && *weather == Weather::Mute)
        };
        // What was held back when the wire is cut is lost.
        let is_cut = weather.wait_for(passes).await.is_ok_and(|now| *now == Weather::Refused);
        if is_cut {
            return End::Closed;
        }
        if *shared.weather.borrow() == Weather::Slow {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return End::Closed;
        }
    }
}

/// Returns when the weather takes the connection of this number.
async fn taken(weather: &mut watch::Receiver<Weather>, shared: &Shared, number: u64) -> End {
    let is_doomed = || number <= shared.doomed.load(Ordering::SeqCst);
    let _ = weather.wait_for(|weather| *weather == Weather::Refused || is_doomed()).await;
    if is_doomed() { End::Reset } else { End::Closed }
}

/// Whether this is the request whose reply is to be lost.
fn hear(weather: &mut Weather, said: &[u8]) -> bool {
    let Weather::LosesReplyTo(word) = *weather else { return false };
    let is_it = said.windows(word.len()).any(|some| some == word.as_bytes());
    if is_it {
        *weather = Weather::LosesReply;
    }
    is_it
}

/// Whether this reply is the one that is lost.
fn take_reply(weather: &mut Weather) -> bool {
    let is_lost = *weather == Weather::LosesReply;
    if is_lost {
        *weather = Weather::Fair;
    }
    is_lost
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that says one byte when it hears one, and a client of it through a proxy.
    async fn pair() -> (Proxy, TcpStream) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::before(server.local_addr().unwrap().port()).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = server.accept().await {
                tokio::spawn(async move {
                    while stream.read_u8().await.is_ok() && stream.write_u8(7).await.is_ok() {}
                });
            }
        });
        let client = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        (proxy, client)
    }

    async fn asks(client: &mut TcpStream) -> Result<u8, std::io::ErrorKind> {
        client.write_u8(1).await.map_err(|error| error.kind())?;
        client.read_u8().await.map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn a_reset_is_one_and_spares_the_next_connection() {
        for weather in [Weather::Reset, Weather::LosesReply] {
            let (proxy, mut client) = pair().await;
            assert_eq!(asks(&mut client).await, Ok(7));
            proxy.set(weather);
            let lost = asks(&mut client).await.unwrap_err();
            assert_eq!(lost, std::io::ErrorKind::ConnectionReset, "{weather:?}");
            let mut next = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
            assert_eq!(asks(&mut next).await, Ok(7));
        }
    }

    #[tokio::test]
    async fn the_reply_to_a_word_is_lost_and_no_other() {
        let (proxy, mut client) = pair().await;
        proxy.set(Weather::LosesReplyTo("\x02"));
        assert_eq!(asks(&mut client).await, Ok(7));
        client.write_u8(2).await.unwrap();
        assert!(client.read_u8().await.is_err() && proxy.is_fair());
    }

    #[tokio::test]
    async fn replies_that_are_held_back_come_later() {
        let (proxy, mut client) = pair().await;
        proxy.set(Weather::Mute);
        let early = tokio::time::timeout(Duration::from_millis(50), asks(&mut client)).await;
        assert!(early.is_err());
        proxy.set(Weather::Fair);
        assert_eq!(client.read_u8().await.unwrap(), 7);
    }
}
