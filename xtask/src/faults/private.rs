//! Servers of one case alone, which may be killed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::node::{Outcome, said};
use crate::servers::install::free_port;
use crate::servers::redis::{self, Node};
use crate::servers::state::empty_folder;

/// Processes that end with the case, and the folder they work in.
#[derive(Debug)]
pub(super) struct Private {
    pub(super) folder: PathBuf,
    pids: Mutex<Vec<u32>>,
}

impl Private {
    /// Nothing yet.
    pub(super) fn new() -> Outcome<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = empty_folder(&format!("fault{number}")).map_err(said)?;
        Ok(Self { folder, pids: Mutex::default() })
    }

    /// Takes care that these end.
    pub(super) fn keep(&self, nodes: &[Node]) {
        self.keep_pids(nodes.iter().map(|node| node.pid));
    }

    pub(super) fn keep_pids(&self, pids: impl IntoIterator<Item = u32>) {
        if let Ok(mut kept) = self.pids.lock() {
            kept.extend(pids);
        }
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
        let node = redis::launch(program, &self.folder, port, settings).map_err(said)?;
        self.keep(std::slice::from_ref(&node));
        Ok(node)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Ok(pids) = self.pids.lock() {
            for pid in pids.iter() {
                signal(*pid, "-KILL");
            }
        }
        // What can't be removed is in a folder for such things.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Sends a signal to a process that was started here.
pub(super) fn signal(pid: u32, name: &str) {
    // It may have ended by itself.
    let _ = Command::new("kill").args([name, &pid.to_string()]).output();
}
