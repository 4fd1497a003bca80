//! From the words on the command line to a pair of stores.

use std::path::PathBuf;
use std::sync::Arc;

use session_store::memory::{MemoryCache, MemoryCacheConfig, MemoryStore};
use session_store::{Host, PrimaryStore, SecondaryStore, Topology};

use crate::Outcome;

const USAGE: &str = "usage: quickstart [--primary URL] [--secondary URL]\n  \
    --primary    sqlite:FILE, with the feature sqlite and then the default | memory: | \
    postgres://USER@HOST/DATABASE, with the feature postgres\n  \
    --secondary  memory: (the default) | redis://HOST, with the feature redis; several with commas \
    between them are a Cluster, and sentinels when #MASTER follows";

/// What was asked for.
pub(crate) struct Asked {
    pub(crate) primary: String,
    pub(crate) secondary: String,
}

impl Asked {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Outcome<Self> {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/quickstart.db");
        let primary = if cfg!(feature = "sqlite") {
            format!("sqlite:{}", file.display())
        } else {
            "memory:".to_owned()
        };
        let mut asked = Self { primary, secondary: "memory:".to_owned() };
        while let Some(flag) = words.next() {
            let slot = match flag.as_str() {
                "--primary" => &mut asked.primary,
                "--secondary" => &mut asked.secondary,
                _ => return Err(format!("unknown option {flag:?}\n{USAGE}").into()),
            };
            *slot = words.next().ok_or_else(|| format!("{flag} needs a URL\n{USAGE}"))?;
        }
        Ok(asked)
    }

    /// What the next run will find.
    pub(crate) fn farewell(&self) -> &'static str {
        if self.primary.starts_with("memory:") {
            "Nothing of this is kept: the feature `sqlite` gives it a file, --primary a server."
        } else {
            "Ada's laptop stays logged in. Run this again: the database remembers her."
        }
    }

    /// A cache inside this process sees every revocation only if no other process uses the database.
    pub(crate) fn topology(&self) -> Topology {
        if self.secondary == "memory:" { Topology::SingleProcess } else { Topology::ManyProcesses }
    }
}

/// The store of the truth.
#[cfg_attr(
    not(feature = "postgres"),
    expect(clippy::unused_async, reason = "servers answer later")
)]
pub(crate) async fn primary(url: &str) -> Outcome<Arc<dyn PrimaryStore>> {
    match scheme(url)? {
        ("memory", _) => Ok(Arc::new(MemoryStore::new())),
        #[cfg(feature = "sqlite")]
        ("sqlite", file) => {
            use session_store::sqlite::{SqliteConfig, SqliteStore};
            let path = PathBuf::from(file);
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            Ok(Arc::new(SqliteStore::open(&SqliteConfig::new(path))?))
        }
        #[cfg(feature = "postgres")]
        ("postgres" | "postgresql", _) => {
            use session_store::postgres::{PostgresConfig, PostgresStore};
            Ok(Arc::new(PostgresStore::connect(&PostgresConfig::new(url)).await?))
        }
        (other, _) => Err(refused("primary", other, &["sqlite", "postgres"]).into()),
    }
}

/// The cache.
#[cfg_attr(not(feature = "redis"), expect(clippy::unused_async, reason = "servers answer later"))]
pub(crate) async fn secondary(url: &str, host: &Host) -> Outcome<Arc<dyn SecondaryStore>> {
    match scheme(url)? {
        ("memory", _) => {
            let config = MemoryCacheConfig::default();
            Ok(Arc::new(MemoryCache::new(&config, host.clock.clone())))
        }
        #[cfg(feature = "redis")]
        ("redis" | "rediss", _) => {
            use session_store::redis::{RedisCache, RedisConfig};
            Ok(Arc::new(RedisCache::connect(&RedisConfig::parse(url)?).await?))
        }
        (other, _) => Err(refused("secondary", other, &["redis"]).into()),
    }
}

/// Why there is no store for a scheme: one of `features` was left out, or there is no such thing.
fn refused(role: &str, scheme: &str, features: &[&str]) -> String {
    match features.iter().find(|feature| scheme.starts_with(**feature)) {
        Some(feature) => format!(
            "built without {feature}; say cargo run --example quickstart --features {feature}, and \
             whatever else is wanted, with commas between them"
        ),
        None => format!("no {role} store for {scheme:?}\n{USAGE}"),
    }
}

fn scheme(url: &str) -> Outcome<(&str, &str)> {
    url.split_once(':').ok_or_else(|| format!("{url:?} is not a URL\n{USAGE}").into())
}

/// The addresses without their passwords, for people.
pub(crate) fn shown(line: &str) -> String {
    let shown = |url: &str| {
        let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
        let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        format!("{scheme}://{rest}")
    };
    line.split(',').map(shown).collect::<Vec<_>>().join(",")
}
