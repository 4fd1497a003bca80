//! How the conformance suite gets at a D1 database, from inside a Worker.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use session_store_core::conformance::{Deed, Guard, PrimaryHarness};
use session_store_core::{BoxFuture, PrimaryStore, Result};
use worker::send::SendFuture;
use worker::{Delay, Env};

use super::database::any_bytes;
use super::{D1Config, D1Store};

/// How long a case may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// The tables, those that others refer to last.
const TABLES: [&str; 8] = [
    "sessions",
    "session_users",
    "session_caches",
    "session_log",
    "session_log_acks",
    "session_control",
    "session_guard",
    "users",
];

/// A D1 database of a running Worker; a namespace is a prefix of its tables.
#[derive(Clone, Debug)]
pub struct D1Harness {
    env: Env,
}

impl D1Harness {
    /// The database behind the binding `DB`.
    pub fn new(env: &Env) -> Self {
        Self { env: env.clone() }
    }

    fn store(&self, namespace: &str) -> Result<D1Store> {
        let config = D1Config {
            table_prefix: format!("{namespace}_"),
            // The cases move their own clock.
            compare_clocks: false,
            ..D1Config::default()
        };
        D1Store::from_env(&self.env, &config)
    }
}

#[async_trait]
impl PrimaryHarness for D1Harness {
    fn name(&self) -> &'static str {
        "d1"
    }

    async fn open(&self, namespace: &str) -> Result<(Arc<dyn PrimaryStore>, Guard)> {
        let store = self.store(namespace)?;
        let database = store.database();
        let all = TABLES.into_iter().chain(["session_schema"]);
        let drop = |table| database.say(&format!("DROP TABLE IF EXISTS {{p}}{table}"), []);
        database.write(all.map(drop).collect()).await?;
        store.migrate().await?;
        store.check().await?;
        Ok((Arc::new(store), Box::new(())))
    }

    async fn reopen(&self, namespace: &str) -> Result<Arc<dyn PrimaryStore>> {
        Ok(Arc::new(self.store(namespace)?))
    }

    async fn by_hand(&self, namespace: &str, deed: &Deed) -> Result<bool> {
        let store = self.store(namespace)?;
        let database = store.database();
        let typed = match deed {
            Deed::DeleteUser(user) => {
                database.say("DELETE FROM {p}users WHERE id = ?1", [user.into()])
            }
            Deed::DeleteSession(id) => {
                database.say("DELETE FROM {p}sessions WHERE id = ?1", [id.into()])
            }
            Deed::Damage(id) => {
                database.say("UPDATE {p}sessions SET amr = '[' WHERE id = ?1", [id.into()])
            }
            Deed::SetRole(user, role) => {
                let sql = "UPDATE {p}users SET role = ?2 WHERE id = ?1";
                database.say(sql, [user.into(), (*role).into()])
            }
        };
        database.write(vec![typed]).await.map(|_| true)
    }

    async fn dump(&self, namespace: &str) -> Result<Option<Vec<u8>>> {
        let store = self.store(namespace)?;
        let database = store.database();
        let mut all = Vec::new();
        for table in TABLES {
            let asked = database.say(&format!("SELECT * FROM {{p}}{table}"), []);
            let rows = database.read(vec![asked]).await?.next();
            let rows: Vec<serde_json::Value> = rows.all()?;
            for cell in rows.iter().filter_map(|row| row.as_object()).flat_map(|row| row.values()) {
                all.extend(cell.to_string().into_bytes());
                // Ids and hashes, and whatever else were stored like them.
                all.extend(cell.as_str().and_then(any_bytes).unwrap_or_default());
            }
        }
        Ok(Some(all))
    }

    fn patience(&self) -> BoxFuture<'static, ()> {
        Box::pin(SendFuture::new(Delay::from(PATIENCE)))
    }
}
