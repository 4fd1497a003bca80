//! What is not there: negatives, floods, malformed tokens.

use futures_util::future::join;

use super::super::checks;
use super::super::report::{Violation, ensure, expect};
use super::super::runner::Outcome;
use super::super::sample::{NOW, guest, new};
use super::super::wire::{Op, Point};
use super::PairBench;
use crate::layered::LayeredConfig;
use crate::primary::CacheScope;
use crate::session::{NewSession, Reason, Session};
use crate::token::Token;

checks! { ($) layered_absent: PairBench;
    "K6-N01 L-45" a_cached_absence_ends_with_a_login
        "A random id that was looked up is accepted by every node once it is created.",
    "K6-N02" an_absence_under_way_ends_too "A reader that read 'absent' before fills nothing after.",
    "K6-N03 L-20" creating_never_fills "A session revoked while its login returns stays revoked.",
    "K6-N04 P-09" malformed_tokens_cost_nothing "What is no token causes no store call at all.",
    "L-46 T-19" a_flood_is_cheap "Unknown ids cost one read each, and one per window when repeated.",
}

fn fresh(token: &Token) -> NewSession {
    new(Session { id: token.id(), secret_hash: token.secret_hash(), ..guest(1) })
}

async fn a_cached_absence_ends_with_a_login(on: &PairBench) -> Outcome {
    let (one, other) = (on.node()?, on.node()?);
    let token = Token::generate(NOW)?;
    for node in [&one, &other] {
        ensure(!node.accepts(&token).await, "nobody was accepted")?;
        on.runtime.settle().await;
    }
    one.app.store().insert(fresh(&token), NOW).await?;
    for node in [&one, &other] {
        ensure(node.accepts(&token).await, "a cached absence outlived a login")?;
    }
    Ok(())
}

async fn an_absence_under_way_ends_too(on: &PairBench) -> Outcome {
    for (op, point) in [(Op::Find, Point::After), (Op::Swap, Point::Before)] {
        let (one, other) = (on.node()?, on.node()?);
        let token = Token::generate(NOW)?;
        let wire = if op == Op::Find { &one.db } else { &one.cache };
        let mut held = wire.hold(op, point);
        let reader = one.accepts(&token);
        let creator = async {
            held.reached().await;
            let done = other.app.store().insert(fresh(&token), NOW).await;
            held.release();
            done
        };
        let (_, done) = join(reader, creator).await;
        done?;
        on.runtime.settle().await;
        for node in [&one, &other] {
            ensure(node.accepts(&token).await, "an absence was cached after the login")?;
        }
    }
    Ok(())
}

async fn creating_never_fills(on: &PairBench) -> Outcome {
    let (one, other) = (on.node()?, on.node()?);
    let token = Token::generate(NOW)?;
    let mut held = one.db.hold(Op::Insert, Point::After);
    let creator = one.app.store().insert(fresh(&token), NOW);
    let revoker = async {
        held.reached().await;
        let done = other.app.admin_revoke(token.id(), Reason::Admin).await;
        held.release();
        done
    };
    let (login, ended) = join(creator, revoker).await;
    login?;
    expect(ended?.count, 1)?;
    on.runtime.settle().await;
    ensure(!on.is_cached(token.id()).await?, "a login wrote into the cache")?;
    ensure(!one.accepts(&token).await, "a session revoked at birth was accepted")
}

async fn malformed_tokens_cost_nothing(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    let alphabet = b"ABCxyz0189-_=+/. %\xc3\xa9";
    for round in 0..100_000u32 {
        let mut bytes = Vec::new();
        for _ in 0..(round % 80) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            bytes.push(alphabet[usize::try_from(random % 19).unwrap_or(0)]);
        }
        let text = String::from_utf8_lossy(&bytes);
        // A well-formed token of a plausible session can't come up by chance.
        ensure(node.app.authenticate_text(&text).await.live().is_none(), "accepted")?;
    }
    expect((node.db.total(), node.cache.total()), (0, 0))
}

async fn a_flood_is_cheap(on: &PairBench) -> Outcome {
    let node = on.node_with(
        LayeredConfig { max_reads: 4, ..PairBench::config() },
        crate::policy::Policy::default(),
    )?;
    let token = on.log_in_warm(&node).await?;
    node.db.reset();
    let unknown = Token::generate(NOW)?;
    for _ in 0..100 {
        ensure(!node.accepts(&unknown).await, "nobody was accepted")?;
        on.runtime.settle().await;
    }
    expect(node.db.count(Op::Find), 1)?;
    // What a server evicts, and when, is for its operator, and some emulators take 300 s for 5 000 of
    // these beside other tests; a cache of ours must stand the flood.
    let is_ours = on.secondary.promise().scope == CacheScope::Process;
    let count = if is_ours { 100_000 } else { 500 };
    for _ in 0..count {
        node.accepts(&Token::generate(NOW)?).await;
    }
    on.runtime.settle().await;
    expect(node.db.count(Op::Find), count + 1)?;
    if !on.is_cached(token.id()).await? {
        return Err(Violation::new("a flood of unknown ids evicted a live session"));
    }
    Ok(())
}
