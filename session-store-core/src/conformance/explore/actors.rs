//! Who acts in a scenario, and what each of them checks.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::scenario::Scenario;
use super::schedule::{Gate, run_now};
use super::stepped::{SteppedPrimary, SteppedSecondary};
use super::world::{ID, NOW, Node, OTHER, Stepper, Still, World, key, new_session};
use crate::host::{BoxFuture, Host};
use crate::json::Json;
use crate::layered::{Layered, LayeredConfig, Topology, Visibility};
use crate::primary::{Selection, SessionChange, Update};
use crate::session::{Reason, Snapshot, State};
use crate::time::Ttl;
use crate::token::SessionId;

fn is_active(found: Option<&Snapshot>) -> bool {
    found.is_some_and(|found| found.session.state(NOW) == State::Active)
}

/// The actors of a run.
impl World {
    /// One future per letter of the scenario, and whether its caller may go away.
    pub(super) fn actors(
        self: Arc<Self>,
        scenario: &Scenario,
    ) -> Vec<(BoxFuture<'static, ()>, bool)> {
        let node = self.node(scenario);
        scenario
            .actors
            .chars()
            .map(|letter| (self.actor(letter, node.clone()), letter.is_ascii_uppercase()))
            .collect()
    }

    fn node(self: &Arc<Self>, scenario: &Scenario) -> Option<Node> {
        let near_ttl = scenario.has_near.then(|| Ttl::from_secs_const(1));
        let topology = Topology::SingleProcess;
        let config = LayeredConfig { topology, near_ttl, ..LayeredConfig::default() };
        let host = Host::new(Arc::new(Still), Arc::new(Stepper(Arc::clone(self))));
        let primary = SteppedPrimary {
            inner: Arc::clone(&self.pair.primary),
            world: Arc::clone(self),
            hidden: Mutex::default(),
        };
        let secondary =
            SteppedSecondary { inner: Arc::clone(&self.pair.secondary), world: Arc::clone(self) };
        let node = Layered::new(Arc::new(primary), Arc::new(secondary), config, host);
        match node {
            Ok(node) => {
                if !matches!(run_now(node.register()), Some(Ok(()))) {
                    self.breaks("the cache could not be registered");
                }
                Some(node)
            }
            Err(error) => {
                self.breaks(&error.to_string());
                None
            }
        }
    }

    fn actor(self: &Arc<Self>, letter: char, node: Option<Node>) -> BoxFuture<'static, ()> {
        let world = Arc::clone(self);
        Box::pin(async move {
            let Some(node) = node else { return };
            match letter {
                'v' | 'V' => world.validate(&node).await,
                'r' | 'R' => world.revoke(&node, ID).await,
                'f' => world.revoke(&node, OTHER).await,
                'u' | 'U' => world.update(&node).await,
                'n' => world.insert(&node).await,
                'd' => world.drain(&node).await,
                'e' => world.evict(false).await,
                'l' => world.evict(true).await,
                'z' => world.repeat_swap().await,
                _ => world.breaks("a scenario with an unknown actor"),
            }
        })
    }

    async fn validate(&self, node: &Node) {
        let was_revoked = self.revoked.load(Ordering::Relaxed);
        let was_created = self.created.load(Ordering::Relaxed);
        let at_least = self.acknowledged.load(Ordering::Relaxed);
        let Ok(answer) = node.lookup(&ID, NOW, &is_active).await else {
            return self.breaks("a lookup failed although the primary is up");
        };
        let found = answer.snapshot.filter(|found| is_active(Some(found)));
        let Some(found) = found else {
            if was_created && !self.revoking.load(Ordering::Relaxed) {
                self.breaks("a session that nobody revoked was denied");
            }
            return;
        };
        self.log(&format!("accepted, version {}", found.session.version));
        if was_revoked {
            self.breaks("accepted after a revocation had returned Immediate");
        }
        if found.session.version < at_least {
            self.breaks("an older version after an update had returned");
        }
    }

    async fn revoke(&self, node: &Node, id: SessionId) {
        if id == ID {
            self.revoking.store(true, Ordering::Relaxed);
        }
        let selection = Selection::One { id, owner: None };
        let Ok(done) = node.revoke(selection, Reason::Logout, NOW).await else { return };
        self.log(&format!("revoke returned {:?}", done.visibility));
        if id == ID && done.visibility == Visibility::Immediate {
            self.revoked.store(true, Ordering::Relaxed);
        }
    }

    async fn update(&self, node: &Node) {
        let Ok(answer) = node.lookup(&ID, NOW, &is_active).await else { return };
        let Some(found) = answer.snapshot else { return };
        let change = SessionChange { data: Some(Json::default()), ..SessionChange::default() };
        let version = (ID, found.session.version);
        let Ok(done) = node.update(version, change, answer.seen, NOW).await else { return };
        if let (Update::Updated(updated), Visibility::Immediate) = (done.update, done.visibility) {
            let version = updated.snapshot.session.version;
            self.log(&format!("update returned version {version}"));
            self.acknowledged.fetch_max(version, Ordering::Relaxed);
        }
    }

    async fn insert(&self, node: &Node) {
        if node.insert(new_session(ID), NOW).await.is_ok() {
            self.log("create returned");
            self.created.store(true, Ordering::Relaxed);
        }
    }

    /// Waits until the removals that are to fail have failed, then drains twice, as a sweeper that
    /// runs every second does: the second time everything is visible.
    async fn drain(&self, node: &Node) {
        while self.failing_removals.load(Ordering::Relaxed) > 0 {
            Gate.await;
        }
        for _ in 0..2 {
            if node.drain().await.is_err() {
                return;
            }
        }
        self.drained.store(true, Ordering::Relaxed);
    }

    /// Loses the entry; or only a lease, whose time is over.
    async fn evict(&self, only_lease: bool) {
        Gate.await;
        let found = self.pair.secondary.get(&key(ID)).await.ok().flatten();
        if found.is_some_and(|record| !only_lease || record.is_lease()) {
            self.log("the cache loses the entry");
            let _ = self.pair.secondary.remove(&[key(ID)]).await;
        }
    }

    /// A copy of the last swap arrives late.
    async fn repeat_swap(&self) {
        Gate.await;
        let last = self.last_swap.lock().clone();
        if let Some((key, expected, new, ttl)) = last {
            let done = self.pair.secondary.swap(&key, &expected, new.as_ref(), ttl).await;
            self.log(&format!("a copy of a swap arrives: {done:?}"));
        }
    }
}
