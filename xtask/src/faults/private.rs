//! Servers of one case alone, which may be killed.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::node::{Outcome, said};
use crate::servers;
use crate::servers::book::Home;
use crate::servers::install::free_port;
use crate::servers::redis::{self, Node};

/// Servers that end with the case, and the folder they work in.
#[derive(Debug)]
pub(super) struct Private {
    pub(super) home: Home,
}

impl Private {
    /// Nothing yet.
    pub(super) fn new() -> Outcome<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let home = servers::home(&format!("fault{number}")).map_err(said)?;
        Ok(Self { home })
    }

    /// A Redis with these settings.
    pub(super) fn redis(&self, settings: &[&str]) -> Outcome<Node> {
        self.redis_on(free_port().map_err(said)?, settings)
    }

    /// The same on a port that it had before.
    pub(super) fn redis_on(&self, port: u16, settings: &[&str]) -> Outcome<Node> {
        self.launch(&redis::program().map_err(said)?, port, settings)
    }

    /// One node of a Cluster, with slots yet to come.
    pub(super) fn cluster_node(&self, settings: &[&str]) -> Outcome<Node> {
        self.redis_on(redis::cluster_port().map_err(said)?, settings)
    }

    /// Any server of the family.
    pub(super) fn launch(&self, program: &Path, port: u16, settings: &[&str]) -> Outcome<Node> {
        redis::launch(program, &self.home, port, settings).map_err(said)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // A Postgres that is killed leaves its shared memory behind. What can't be removed is in a folder
        // for such things.
        let _ = self.home.give_up();
    }
}
