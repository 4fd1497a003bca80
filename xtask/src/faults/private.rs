//! Servers of one case alone, which may be killed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use session_store::postgres::PostgresHarness;

use super::node::{Outcome, said};
use super::{World, ensure};
use crate::servers;
use crate::servers::book::Home;
use crate::servers::install::free_port;
use crate::servers::postgres;
use crate::servers::process::Running;
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

    /// A Postgres that `prepare` has put into order in its folder before it starts.
    pub(super) fn postgres(
        &self,
        prepare: impl FnOnce(&Path) -> Outcome,
    ) -> Outcome<(Running, u16)> {
        postgres::make(&self.home.folder).map_err(said)?;
        prepare(&self.home.folder)?;
        let port = free_port().map_err(said)?;
        Ok((postgres::launch(&self.home, port).map_err(said)?, port))
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

/// The files of memory that a Postgres in `folder` shares with its children.
fn shared_by(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let file = std::fs::read_to_string(folder.join("data/postmaster.pid")).map_err(said)?;
    let number = file.lines().next().unwrap_or_default();
    let maps = std::fs::read_to_string(format!("/proc/{number}/maps")).map_err(said)?;
    let path =
        |line: &str| line.split_once("/dev/shm/PostgreSQL.").map(|(_, name)| name.to_owned());
    let names = maps.lines().filter_map(path);
    Ok(names.map(|name| PathBuf::from(format!("/dev/shm/PostgreSQL.{name}"))).collect())
}

pub(super) async fn a_postgres_leaves_no_memory_behind(_: &World) -> Outcome<String> {
    let mut left = Vec::new();
    for is_stopped in [false, true] {
        let server = Private::new()?;
        let (running, port) = server.postgres(|_| Ok(()))?;
        let shell = PostgresHarness::new(postgres::url(port));
        shell.run("SELECT 1".to_owned()).await.map_err(said)?;
        let shared = shared_by(&server.home.folder)?;
        ensure(shared.iter().any(|file| file.exists()), "it shares no memory that can be seen")?;
        if is_stopped {
            running.signal("-STOP");
        }
        drop(server);
        ensure(!running.is_alive(), "it still runs")?;
        left.extend(shared.into_iter().filter(|file| file.exists()));
    }
    ensure(left.is_empty(), &format!("left behind: {left:?}"))?;
    Ok("nor one that was stopped by a signal".to_owned())
}
