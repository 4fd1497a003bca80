//! Hosts whose clocks differ, or are set back.

use std::sync::Arc;
use std::time::Duration;

use super::super::checks;
use super::super::host::TestClock;
use super::super::report::{ensure, expect};
use super::super::runner::Outcome;
use super::super::sample::NOW;
use super::super::wire::Wire;
use super::{Node, PairBench};
use crate::error::ErrorKind;
use crate::host::Host;
use crate::layered::LayeredConfig;
use crate::policy::Policy;
use crate::session::Metadata;
use crate::sessions::{Authentication, Extended, Refusal, Sessions};
use crate::time::{Timestamp, Ttl};
use crate::token::Token;

checks! { ($) layered_clocks: PairBench;
    "P-96" a_wrong_clock_refuses_for_itself_only
        "A host whose clock is wrong by minutes takes no session from the others, and prolongs none.",
    "P-97" a_clock_set_back_makes_nothing_immortal
        "After an hour back a session still ends by its own deadline, and nothing panics.",
    "P-101" long_names_are_cut_at_a_character
        "A user agent that is too long is cut where a character ends.",
}

/// A node on the pair of the case, with a clock of its own.
fn node_at(on: &PairBench, now: Timestamp) -> Result<Node, super::Violation> {
    let (db, cache) = (Wire::default(), Wire::default());
    let host = Host::new(TestClock::at(now), on.runtime.clone());
    let secondary = Arc::clone(&on.secondary);
    // With a near cache, which must not keep what only this clock says.
    let near_ttl = Ttl::new(Duration::from_mins(1));
    let config = LayeredConfig { near_ttl, ..PairBench::config() };
    let store = on.layered_over(secondary, config, (&db, &cache), host)?;
    Ok(Node { app: Sessions::new(store, Policy::default())?, db, cache })
}

/// Nobody knows, asked twice and past the caches.
async fn is_unknown(node: &Node, token: &Token) -> bool {
    let answers = [
        node.app.authenticate(token).await,
        node.app.authenticate(token).await,
        node.app.authenticate_fresh(token).await,
    ];
    let unavailable = &ErrorKind::Unavailable;
    answers
        .iter()
        .all(|one| matches!(one, Authentication::Unavailable(error) if error.kind() == unavailable))
}

async fn a_wrong_clock_refuses_for_itself_only(on: &PairBench) -> Outcome {
    let right = on.node()?;
    let (ahead, behind) = (Duration::from_mins(9), Duration::from_mins(5));
    let (ahead, behind) = (node_at(on, NOW.plus(ahead))?, node_at(on, NOW.minus(behind))?);
    let token = on.log_in_warm(&right).await?;
    let soon = NOW.plus(Duration::from_mins(3));
    let extended = right.app.extend(&token, soon).await?;
    ensure(matches!(extended, Extended::Until { .. }), "not extended")?;
    ahead.db.set_server_time(NOW);
    ensure(is_unknown(&ahead, &token).await, "a clock that is ahead logged somebody out")?;
    // An id from the future is nobody's, but the cookie is not taken from the client.
    expect(behind.refusal(&token).await.map(Refusal::clears_cookie), Some(false))?;
    on.runtime.settle().await;
    ensure(right.accepts(&token).await, "a wrong clock ended a session for the others")?;
    let late = node_at(on, NOW.plus(Duration::from_mins(2)))?;
    on.runtime.advance(Duration::from_mins(4));
    on.evict(token.id()).await?;
    late.db.set_server_time(right.app.now());
    ensure(is_unknown(&late, &token).await, "a clock that is late prolonged a session")?;
    expect(right.refusal(&token).await, Some(Refusal::Expired))?;
    // Where both say the same, it is said.
    ahead.db.set_server_time(right.app.now());
    expect(ahead.refusal(&token).await.map(Refusal::clears_cookie), Some(true))
}

async fn a_clock_set_back_makes_nothing_immortal(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in_warm(&node).await?;
    on.runtime.advance(Duration::from_hours(24));
    let hour = Duration::from_hours(1);
    ensure(node.accepts(&token).await, "not accepted")?;
    on.clock.jump(-3_600_000);
    ensure(node.accepts(&token).await, "an hour back logged somebody out")?;
    expect(node.app.flush_touches().await?, 1)?;
    let Some(found) = on.primary.find(&token.id()).await?.snapshot else {
        return expect("absent", "there");
    };
    let left = found.session.expires_at.since(node.app.now());
    let idle = found.session.idle_timeout.as_duration();
    ensure(left <= idle + 2 * hour, "a clock that was set back made a session longer")?;
    on.runtime.advance(left);
    expect(node.refusal(&token).await, Some(Refusal::Expired))
}

async fn long_names_are_cut_at_a_character(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let limit = node.app.policy().max_text_bytes;
    let long = "€".repeat(8 * 1024);
    let metadata = Metadata { user_agent: Some(long), ..Metadata::default() };
    let token = node.app.create_guest(metadata, crate::json::Json::default()).await?.token;
    let Authentication::Live(live) = node.app.authenticate(&token).await else {
        return expect("absent", "live");
    };
    let kept = live.session().metadata.user_agent.clone().unwrap_or_default();
    expect(kept, "€".repeat(limit / "€".len()))
}
