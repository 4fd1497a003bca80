//! A network that goes silent: nothing arrives, and nobody says so.

use std::time::Duration;

use futures_util::future::join_all;
use session_store_core::{ErrorKind, PrimaryStore};
use session_store_postgres::{Access, PostgresStore};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::fixture::{address, server, session};

/// A way to the server. Connections that were there while it was silent are silent for ever.
async fn gate() -> (u16, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let truth = address().split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
    let (silent, watch) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (truth, mut watch) = (truth.clone(), watch.clone());
            tokio::spawn(async move {
                let mut server = TcpStream::connect(truth).await.unwrap();
                let silence = async { watch.wait_for(|is_silent| *is_silent).await.is_ok() };
                let is_silent = tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => false,
                    is_silent = silence => is_silent,
                };
                if is_silent {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    (port, silent)
}

#[tokio::test]
async fn a_pool_that_was_cut_off_in_silence_recovers_with_the_network() {
    let mut config = server().fresh("silence").await.unwrap();
    PostgresStore::connect(&config).await.unwrap().pool().close().await;
    let (port, silent) = gate().await;
    let (user_part, rest) = config.url.split_once('@').unwrap();
    config.url = format!("{user_part}@127.0.0.1:{port}/{}", rest.split_once('/').unwrap().1);
    config.access = Access::Ready;
    config.max_connections = 2;
    (config.connect_timeout, config.statement_timeout) =
        (Duration::from_millis(500), Duration::from_millis(500));
    config.deadline = Duration::from_secs(1);
    let store = PostgresStore::connect(&config).await.unwrap();
    let busy: Vec<_> = join_all((0..2).map(|_| store.pool().acquire())).await;
    assert!(busy.iter().all(Result::is_ok));
    drop(busy);
    while store.pool().num_idle() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    silent.send_replace(true);
    let id = session(1, None).session.id;
    for outcome in join_all((0..2).map(|_| store.find(&id))).await {
        assert_eq!(outcome.unwrap_err().kind(), &ErrorKind::Timeout);
    }
    silent.send_replace(false);
    for _ in 0..20 {
        if store.find(&id).await.is_ok() {
            return;
        }
    }
    panic!("the pool is still used up");
}
