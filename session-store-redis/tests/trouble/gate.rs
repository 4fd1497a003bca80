//! The way to a real server, which can be shut, held, slowed down, or tell less than the server said.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// They pass.
    Open,
    /// They wait.
    Held,
    /// Of what is sent, so many bytes pass, and the rest waits.
    Part(usize),
    /// Replies take this much longer.
    Slow(Duration),
    /// Connections are cut, and no other ones last.
    Shut,
}

#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) line: String,
    way: Arc<watch::Sender<Way>>,
    visitors: Arc<AtomicUsize>,
}

impl Gate {
    pub(crate) async fn before(line: &str) -> Self {
        Self::hiding(line, &[]).await
    }

    /// Replies come with each of `words` made unreadable.
    pub(crate) async fn hiding(line: &str, words: &'static [&'static str]) -> Self {
        let server = line.replace("redis://", "");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let line = format!("redis://{}", listener.local_addr().unwrap());
        let way = Arc::new(watch::Sender::new(Way::Open));
        let ways = Arc::clone(&way);
        let visitors = Arc::new(AtomicUsize::new(0));
        let visits = Arc::clone(&visitors);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                visits.fetch_add(1, Ordering::SeqCst);
                if *ways.borrow() == Way::Shut {
                    continue;
                }
                let server = TcpStream::connect(&server).await.unwrap();
                let ((from, to), (back_from, back_to)) = (client.into_split(), server.into_split());
                let (there, back) = (ways.subscribe(), ways.subscribe());
                tokio::spawn(async move {
                    tokio::select! {
                        () = carry(from, back_to, there, None) => {}
                        () = carry(back_from, to, back, Some(words)) => {}
                    }
                });
            }
        });
        Self { line, way, visitors }
    }

    /// How many have come so far.
    pub(crate) fn visitors(&self) -> usize {
        self.visitors.load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
    reply: Option<&'static [&'static str]>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = tokio::select! {
            read = from.read(&mut buffer) => match read {
                Ok(length) if length > 0 => length,
                _ => return,
            },
            _ = way.wait_for(|way| *way == Way::Shut) => return,
        };
        if way.wait_for(|way| *way != Way::Held).await.is_err() {
            return;
        }
        let mut bytes = &mut buffer[..length];
        let now = *way.borrow();
        match (now, reply) {
            (Way::Slow(delay), Some(_)) => tokio::time::sleep(delay).await,
            (Way::Part(most), None) => {
                let (first, rest) = bytes.split_at_mut(most.min(length));
                let is_sent = to.write_all(first).await.is_ok();
                if !is_sent || way.wait_for(|way| *way != now).await.is_err() {
                    return;
                }
                bytes = rest;
            }
            _ => {}
        }
        for word in reply.unwrap_or_default() {
            let hidden = word.as_bytes();
            for at in 0..bytes.len().saturating_sub(hidden.len()) {
                if bytes[at..].starts_with(hidden) {
                    bytes[at] = b'x';
                }
            }
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}
