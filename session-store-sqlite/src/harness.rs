//! How the conformance suite gets at SQLite stores.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, params};
use session_store_core::conformance::{Deed, Guard, PrimaryHarness};
use session_store_core::{BoxFuture, ErrorKind, PrimaryStore, Result};
use tempfile::TempDir;

use crate::error::{classify, error};
use crate::{SqliteConfig, SqliteStore};

/// SQLite files in a folder that goes away with the harness, one per namespace.
#[derive(Debug)]
pub struct SqliteHarness {
    folder: TempDir,
}

impl SqliteHarness {
    /// A harness with an empty folder.
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir();
        let folder = folder.map_err(|cause| error(ErrorKind::Unavailable).caused_by(cause))?;
        Ok(Self { folder })
    }

    fn path(&self, namespace: &str) -> PathBuf {
        self.folder.path().join(format!("{namespace}.db"))
    }
}

#[async_trait]
impl PrimaryHarness for SqliteHarness {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    async fn open(&self, namespace: &str) -> Result<(Arc<dyn PrimaryStore>, Guard)> {
        let path = self.path(namespace);
        for ending in ["", "-wal", "-shm"] {
            // Nothing of another run may be left; mostly there is nothing to remove.
            let _ = std::fs::remove_file(format!("{}{ending}", path.display()));
        }
        let store = SqliteStore::open(&SqliteConfig::new(path))?;
        Ok((Arc::new(store), Box::new(())))
    }

    async fn reopen(&self, namespace: &str) -> Result<Arc<dyn PrimaryStore>> {
        Ok(Arc::new(SqliteStore::open(&SqliteConfig::new(self.path(namespace)))?))
    }

    async fn by_hand(&self, namespace: &str, deed: &Deed) -> Result<bool> {
        let shell = Connection::open(self.path(namespace)).map_err(classify)?;
        // As in the sqlite3 shell.
        shell.execute_batch("PRAGMA foreign_keys = OFF").map_err(classify)?;
        match deed {
            Deed::DeleteUser(user) => {
                shell.execute("DELETE FROM users WHERE id = ?1", [user.as_str()])
            }
            Deed::DeleteSession(id) => {
                shell.execute("DELETE FROM sessions WHERE id = ?1", [id.as_bytes().as_slice()])
            }
            Deed::Damage(id) => {
                let sql = "UPDATE sessions SET amr = '[' WHERE id = ?1";
                shell.execute(sql, [id.as_bytes().as_slice()])
            }
            Deed::SetRole(user, role) => {
                let sql = "UPDATE users SET role = ?2 WHERE id = ?1";
                shell.execute(sql, params![user.as_str(), role])
            }
        }
        .map_err(classify)
        .map(|_| true)
    }

    async fn dump(&self, namespace: &str) -> Result<Option<Vec<u8>>> {
        let mut all = Vec::new();
        for ending in ["", "-wal"] {
            let path = format!("{}{ending}", self.path(namespace).display());
            all.extend(std::fs::read(path).unwrap_or_default());
        }
        Ok(Some(all))
    }

    fn patience(&self) -> BoxFuture<'static, ()> {
        // Some cases ask a hundred thousand times, one after the other.
        Box::pin(futures_timer::Delay::new(Duration::from_mins(5)))
    }
}
