//! A way to the server on which replies can be held back, while requests go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use session_store_postgres::PostgresConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::fixture::address;

/// A way to the server.
pub(crate) struct Gate {
    port: u16,
    held: watch::Sender<bool>,
    begun: Arc<AtomicUsize>,
}

impl Gate {
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let truth = address().split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
        let (held, watch) = watch::channel(false);
        let begun = Arc::new(AtomicUsize::new(0));
        let gate = Self { port, held, begun: Arc::clone(&begun) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&truth).await.unwrap();
                let ((ask, tell), (answer, question)) = (client.into_split(), server.into_split());
                tokio::spawn(asked(ask, question, Arc::clone(&begun)));
                tokio::spawn(answered(answer, tell, watch.clone()));
            }
        });
        gate
    }

    /// The same server by this way.
    pub(crate) fn on_the_way_to(&self, config: &PostgresConfig) -> PostgresConfig {
        let mut config = config.clone();
        let (user_part, rest) = config.url.split_once('@').unwrap();
        let database = rest.split_once('/').unwrap().1;
        config.url = format!("{user_part}@127.0.0.1:{}/{database}", self.port);
        config
    }

    pub(crate) fn hold(&self) {
        self.held.send_replace(true);
    }

    pub(crate) fn release(&self) {
        self.held.send_replace(false);
    }

    /// How many transactions were asked for.
    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// Waits until one more than `before` was asked for.
    pub(crate) async fn begins(&self, before: usize) {
        while self.begun() <= before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn asked(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, begun: Arc<AtomicUsize>) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
        begun.fetch_add(text.matches("BEGIN").count(), Ordering::SeqCst);
    }
}

async fn answered(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut held: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let is_open = held.wait_for(|is_held| !is_held).await.is_ok();
        if !is_open || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
