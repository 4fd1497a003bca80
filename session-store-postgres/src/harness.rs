//! How the conformance suite gets at Postgres stores.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use session_store_core::conformance::{Deed, Guard, PrimaryHarness};
use session_store_core::{BoxFuture, Error, PrimaryStore, Result};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::error::{NAME, classify};
use crate::{PostgresConfig, PostgresStore};

/// The variable that names the server.
const URL: &str = "SESSION_STORE_POSTGRES_URL";

/// Stores on a real server, a schema of their own for each namespace.
#[derive(Debug)]
pub struct PostgresHarness {
    url: String,
    /// Tells the schemas of this harness from those of others.
    run: String,
}

impl PostgresHarness {
    /// A harness on the server of `SESSION_STORE_POSTGRES_URL`; without it, an error that says how to
    /// get one.
    pub fn from_env() -> Result<Self> {
        let url = std::env::var(URL).map_err(|_| {
            let what = "SESSION_STORE_POSTGRES_URL is not set: run `cargo xtask test`, which starts a \
                        server, or set it to one with `cargo xtask servers env`";
            Error::configuration(NAME, what)
        })?;
        Ok(Self::new(url))
    }

    /// A harness on the server at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let run = format!("t{}_{number}_{}", std::process::id(), since.subsec_nanos());
        Self { url: url.into(), run }
    }

    /// A configuration for the schema of `namespace`, which is made anew.
    pub async fn fresh(&self, namespace: &str) -> Result<PostgresConfig> {
        let config = self.config(namespace);
        let name = config.schema.as_deref().unwrap_or_default();
        let sql = format!("DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}");
        self.run(sql).await?;
        Ok(config)
    }

    /// The same for a schema that is there.
    pub fn config(&self, namespace: &str) -> PostgresConfig {
        let mut config = PostgresConfig::new(&self.url);
        config.schema = Some(format!("{}_{namespace}", self.run));
        config.max_connections = 6;
        config.connect_timeout = Duration::from_secs(20);
        // The cases move their own clock.
        config.compare_clocks = false;
        config
    }

    /// Runs SQL as somebody with a shell does.
    pub async fn run(&self, sql: String) -> Result<()> {
        let mut shell = PgConnection::connect(&self.url).await.map_err(classify)?;
        let done = shell.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.map_err(classify);
        let _ = shell.close().await;
        done.map(drop)
    }

    /// The name of the schema of `namespace`.
    pub fn schema(&self, namespace: &str) -> String {
        format!("{}_{namespace}", self.run)
    }
}

#[async_trait]
impl PrimaryHarness for PostgresHarness {
    fn name(&self) -> &'static str {
        "postgres"
    }

    async fn open(&self, namespace: &str) -> Result<(Arc<dyn PrimaryStore>, Guard)> {
        let config = self.fresh(namespace).await?;
        Ok((Arc::new(PostgresStore::connect(&config).await?), Box::new(())))
    }

    async fn reopen(&self, namespace: &str) -> Result<Arc<dyn PrimaryStore>> {
        Ok(Arc::new(PostgresStore::connect(&self.config(namespace)).await?))
    }

    async fn by_hand(&self, namespace: &str, deed: &Deed) -> Result<bool> {
        // Names are qualified: a shell has another search path.
        let schema = self.schema(namespace);
        let hex = |id: &session_store_core::SessionId| id.to_string();
        let sql = match deed {
            Deed::DeleteUser(user) => {
                format!("DELETE FROM {schema}.users WHERE id = '{}'", user.as_str())
            }
            Deed::DeleteSession(id) => {
                format!("DELETE FROM {schema}.sessions WHERE encode(id, 'hex') = '{}'", hex(id))
            }
            Deed::Damage(id) => format!(
                "UPDATE {schema}.sessions SET amr = '[' WHERE encode(id, 'hex') = '{}'",
                hex(id)
            ),
            Deed::SetRole(user, role) => {
                let user = user.as_str();
                format!("UPDATE {schema}.users SET role = '{role}' WHERE id = '{user}'")
            }
        };
        self.run(sql).await.map(|()| true)
    }

    async fn dump(&self, namespace: &str) -> Result<Option<Vec<u8>>> {
        let schema = self.schema(namespace);
        let mut shell = PgConnection::connect(&self.url).await.map_err(classify)?;
        let mut all = Vec::new();
        for table in ["users", "sessions", "session_users", "session_log"] {
            // Binary columns as they are stored, not as hexadecimal text.
            let sql = format!("COPY {schema}.{table} TO STDOUT (FORMAT binary)");
            let mut copy = shell.copy_out_raw(&sql).await.map_err(classify)?;
            while let Some(chunk) =
                futures_util::TryStreamExt::try_next(&mut copy).await.map_err(classify)?
            {
                all.extend_from_slice(&chunk);
            }
        }
        Ok(Some(all))
    }

    fn patience(&self) -> BoxFuture<'static, ()> {
        // Some cases ask a hundred thousand times, one after the other.
        Box::pin(tokio::time::sleep(Duration::from_mins(5)))
    }
}
