//! A network that goes silent: nothing arrives, and nobody says so.

use std::time::Duration;

use futures_util::future::join_all;
use session_store_core::{ErrorKind, PrimaryStore, Reason, Selection};
use session_store_postgres::{Access, PostgresConfig, PostgresStore};
use sqlx::Executor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::fixture::{NOW, address, server, session, store, user};
use crate::gate::Gate;
use crate::races::{is_waited_for, say, shell};

/// What logins of Ada and revocations of all her sessions wait for.
const LOCKS_ADA: &str = "SELECT FROM session_users WHERE user_id = 'ada' FOR UPDATE";

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

/// The same server by the way that begins at `port`.
fn by_way_of(port: u16, mut config: PostgresConfig) -> PostgresConfig {
    let (user_part, rest) = config.url.split_once('@').unwrap();
    config.url = format!("{user_part}@127.0.0.1:{port}/{}", rest.split_once('/').unwrap().1);
    config
}

#[tokio::test]
async fn a_pool_that_was_cut_off_in_silence_recovers_with_the_network() {
    let config = server().fresh("silence").await.unwrap();
    PostgresStore::connect(&config).await.unwrap().pool().close().await;
    let (port, silent) = gate().await;
    let mut config = by_way_of(port, config);
    config.access = Access::Ready;
    config.max_connections = 2;
    // Long enough for what a busy machine does while the network speaks.
    (config.connect_timeout, config.statement_timeout) =
        (Duration::from_secs(5), Duration::from_secs(5));
    config.deadline = Duration::from_secs(6);
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

#[tokio::test]
async fn what_was_cut_off_in_a_transaction_keeps_nobody_from_logging_out() {
    let on = server();
    let here = store(&on, "cut_off").await;
    let (port, silent) = gate().await;
    let mut config = by_way_of(port, on.config("cut_off"));
    config.access = Access::Ready;
    let there = PostgresStore::connect(&config).await.unwrap();
    let all = Selection::AllOf(user("ada"));
    let mut other = shell(&on, "cut_off").await;
    say(&mut other, LOCKS_ADA).await;
    let cut_off = tokio::spawn({
        let all = all.clone();
        async move { there.revoke(&all, Reason::Logout, NOW).await }
    });
    is_waited_for(&mut other).await;
    silent.send_replace(true);
    // Now the lock is with a transaction that will never hear anything again.
    say(&mut other, "ROLLBACK").await;
    here.revoke(&all, Reason::Logout, NOW).await.unwrap();
    cut_off.abort();
}

/// What whoever brings the schema up to date waits for.
const LOCKS_MIGRATION: &str =
    "SELECT pg_advisory_xact_lock(x'696f6e73'::int, hashtext(current_schema() || ''))";

#[tokio::test]
async fn a_node_that_stood_still_in_a_migration_begins_it_again() {
    let on = server();
    let config = on.fresh("still_migrating").await.unwrap();
    let gate = Gate::open().await;
    let slow = gate.on_the_way_to(&config);
    let mut other = shell(&on, "still_migrating").await;
    say(&mut other, LOCKS_MIGRATION).await;
    let late = tokio::spawn(async move { PostgresStore::connect(&slow).await });
    is_waited_for(&mut other).await;
    gate.hold();
    say(&mut other, "ROLLBACK").await;
    // Whoever waits for the lock has it once the server has given up on its holder.
    let mut next = shell(&on, "still_migrating").await;
    say(&mut next, LOCKS_MIGRATION).await;
    say(&mut next, "ROLLBACK").await;
    gate.release();
    assert_eq!(late.await.unwrap().unwrap().count_users().await.unwrap(), 0);
}

#[tokio::test]
async fn a_node_that_stood_still_in_a_transaction_begins_it_again() {
    let on = server();
    let here = store(&on, "stood_still").await;
    let gate = Gate::open().await;
    let slow =
        PostgresStore::connect(&gate.on_the_way_to(&on.config("stood_still"))).await.unwrap();
    let new = session(1, Some("ada"));
    let id = new.session.id;
    let mut other = shell(&on, "stood_still").await;
    say(&mut other, LOCKS_ADA).await;
    let late = tokio::spawn(async move { slow.insert(&new, NOW).await });
    is_waited_for(&mut other).await;
    gate.hold();
    say(&mut other, "ROLLBACK").await;
    // Whoever waits for the lock has it once the server has given up on its holder.
    let mut next = shell(&on, "stood_still").await;
    say(&mut next, LOCKS_ADA).await;
    say(&mut next, "ROLLBACK").await;
    gate.release();
    late.await.unwrap().unwrap();
    assert!(here.find(&id).await.unwrap().snapshot.is_some());
}

#[tokio::test]
async fn an_answer_that_nobody_takes_keeps_nobody_from_logging_out() {
    let on = server();
    store(&on, "not_taken").await.pool().close().await;
    let mut config = on.config("not_taken");
    // The server gives up whoever takes nothing before whoever waits for that gives up.
    config.statement_timeout = Duration::from_secs(50);
    let here = PostgresStore::connect(&config).await.unwrap();
    let gate = Gate::open().await;
    let there = PostgresStore::connect(&gate.on_the_way_to(&config)).await.unwrap();
    let mut deaf = there.pool().acquire().await.unwrap();
    say(&mut deaf, "BEGIN").await;
    say(&mut deaf, LOCKS_ADA).await;
    gate.hold();
    // More than fits on the way, so that the server is still sending.
    let answer = tokio::spawn(async move {
        // One message, or the server would wait for the next one instead.
        deaf.execute(sqlx::raw_sql("SELECT repeat('x', 50000000)")).await.is_ok()
    });
    here.revoke(&Selection::AllOf(user("ada")), Reason::Logout, NOW).await.unwrap();
    gate.release();
    assert!(!answer.await.unwrap(), "there was a whole answer");
}
