//! Where the database is and how it is used.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use session_store_core::{Error, Result};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Executor, PgConnection, PgPool};

use crate::error::{NAME, classify, classify_open, standby};
use crate::schema::quote;
use crate::{pooler, transaction};

/// Where the database is and how it is used. `Debug` shows no password.
#[derive(Clone)]
#[non_exhaustive]
pub struct PostgresConfig {
    /// `postgres://user:password@host:port/database`; ignored by `PostgresStore::over`.
    pub url: String,
    /// The schema in which the tables are; `None`: the first of the search path. Ignored by
    /// `PostgresStore::over`, whose pool has its own search path, unless [`PostgresConfig::guard`] set
    /// it. Default: `None`.
    pub schema: Option<String>,
    /// Prepended to the name of every table, index and trigger: lowercase letters, digits and `_`,
    /// at most 32 of them. Default: empty.
    pub table_prefix: String,
    /// Whose table of users it is. Default: `Owned`.
    pub users: Users,
    /// Whether triggers keep the log of what shared caches must forget. It is a property of the
    /// schema: `Access::Migrate` makes it so, other handles find out. Default: `Kept`.
    pub log: InvalidationLog,
    /// What this handle may do. Default: `Migrate`.
    pub access: Access,
    /// Whether a session's reader learns the user's e-mail address. Default: `false`.
    pub project_email: bool,
    /// Whether a lookup brings the server's time along, so that a wrong clock of this host is
    /// noticed. Default: `true`.
    pub compare_clocks: bool,
    /// The most connections of an own pool, at least 1. Default: 10.
    pub max_connections: u32,
    /// How long to wait for a connection before `Unavailable`, and for whoever else is migrating.
    /// Default: 30 s.
    pub connect_timeout: Duration,
    /// How long one statement may take, waiting for locks included, before `Timeout`. Default: 30 s.
    pub statement_timeout: Duration,
    /// How long one operation may take, waiting for a connection and repetitions after deadlocks
    /// included, before `Timeout`. Longer than both of the above, which else say nothing. Default: 60 s.
    pub deadline: Duration,
    /// Whether a pooled connection is tested before each use, which costs a round trip; without it, a
    /// connection that the server has closed fails one call. Default: `false`.
    pub test_before_acquire: bool,
}

impl PostgresConfig {
    /// The database at `url`, with the defaults.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            schema: None,
            table_prefix: String::new(),
            users: Users::default(),
            log: InvalidationLog::default(),
            access: Access::default(),
            project_email: false,
            compare_clocks: true,
            max_connections: 10,
            connect_timeout: Duration::from_secs(30),
            statement_timeout: Duration::from_secs(30),
            deadline: Duration::from_mins(1),
            test_before_acquire: false,
        }
    }
}

/// The longest time that the server takes, in ms: 24 days.
const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

impl PostgresConfig {
    /// Times that fit each other, and a pool that is one.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::configuration(NAME, what));
        if self.max_connections == 0 {
            return refuse("max_connections is 0; it must be at least 1".to_owned());
        }
        let times = [
            ("connect_timeout", self.connect_timeout),
            ("statement_timeout", self.statement_timeout),
        ];
        for (name, time) in times {
            // The server takes whole milliseconds, and 0 for no limit at all.
            if time.as_millis() == 0 || time > LONGEST {
                return refuse(format!("{name} is {time:?}; it must be from 1 ms to 24 days"));
            }
            if self.deadline <= time {
                let deadline = self.deadline;
                return refuse(format!(
                    "deadline is {deadline:?}; it must be longer than {name}, which is {time:?}"
                ));
            }
        }
        Ok(())
    }

    /// The pool that is described. Nothing is asked of a server before it is used.
    pub(crate) fn pool(&self) -> Result<PgPool> {
        // Nothing that a pooler may refuse, or swallow: what a connection must be told, it is told in
        // SQL. Floating-point numbers are not used.
        let options = PgConnectOptions::from_str(&self.url).map_err(classify)?;
        let pool = PgPoolOptions::new()
            .max_connections(self.max_connections)
            .acquire_timeout(self.connect_timeout)
            .test_before_acquire(self.test_before_acquire);
        Ok(self.guard(pool)?.connect_lazy_with(options.extra_float_digits(None)))
    }

    /// `options` with what the own pool does with its connections, for a pool of the application's that
    /// is handed to [`PostgresStore::over`](crate::PostgresStore::over): a new one is told `schema` and
    /// `statement_timeout`, to look each second whether anybody still waits for a statement
    /// (`client_connection_check_interval`), and to give up the connection when nothing has come from
    /// the other end for 20 s, not even from its kernel (`tcp_keepalives_idle`, `_interval` and `_count`,
    /// `tcp_user_timeout`; where they are shorter already, they are left as they are). It is not used if
    /// it leads to a standby. One that comes back inside an abandoned call is given up if that does not
    /// end soon. All of it holds for the application's own statements too: one whose result is larger
    /// than what is on its way, and of which nothing is taken for 20 s, loses its connection.
    ///
    /// A schema that can't be a name is `Configuration`, and so are times that don't fit each other.
    /// Hooks that `options` had for new connections and for returned ones are replaced.
    pub fn guard(&self, options: PgPoolOptions) -> Result<PgPoolOptions> {
        self.check()?;
        let path = self.schema.as_deref().map(|name| quote("schema", name)).transpose()?;
        let timeout = self.statement_timeout.as_millis().to_string();
        Ok(options
            .after_connect(move |on, _| {
                let (timeout, path) = (timeout.clone(), path.clone());
                Box::pin(
                    async move { set_up(on, timeout, path).await.or_else(transaction::refuse) },
                )
            })
            .after_release(|on, _| Box::pin(transaction::settle(on))))
    }
}

/// Has the server look every second whether anybody still waits for a statement, say for one that waits
/// for a lock. Servers before 14 have no such setting, and some systems no way to look, and refuse it:
/// there an abandoned statement is noticed when it has something to say.
const LOOK: &str = "SELECT set_config(name, '1000', false) FROM pg_settings \
     WHERE name = 'client_connection_check_interval'";

/// Has the server give up a connection that is silent. A node that vanished says no word of it, and by
/// default would keep its connections for more than two hours, with the locks of what it was at: those
/// of a statement whose end, or whose answer, is on its way end by no timeout of the server's own.
///
/// An idle connection is asked after 10 s and each 2 s from then on. It is given up after 20 s, like one
/// that takes none of an answer: soon enough for whoever waits for its locks, by default for 30 s. Up to
/// 8 s of silence cost nobody anything. On Linux, `tcp_user_timeout` is what counts in both cases, so it
/// must be longer than the time until the first question by several others.
///
/// Through a socket that is not TCP's they do nothing; servers before 12 have no `tcp_user_timeout`, and
/// only those on Linux can do it.
const SILENCE: &str = "SELECT set_config(s.name, CASE WHEN s.setting::bigint BETWEEN 1 AND t.most \
         THEN s.setting ELSE t.most::text END, false) FROM pg_settings s \
     JOIN (VALUES ('tcp_keepalives_idle', 10), ('tcp_keepalives_interval', 2), \
         ('tcp_keepalives_count', 5), ('tcp_user_timeout', 20000)) t (name, most) ON t.name = s.name";

/// Tells a new connection of the own pool what it is for. One to a standby is not used: after a
/// failover, the address may be another server's, for as long as that is not promoted.
async fn set_up(on: &mut PgConnection, timeout: String, path: Option<String>) -> Result<()> {
    let sql = "SELECT set_config('statement_timeout', $1, false), \
         CASE WHEN $2::text IS NOT NULL THEN set_config('search_path', $2, false) END";
    let query = sqlx::query(sql).persistent(false).bind(timeout).bind(path);
    query.execute(&mut *on).await.map_err(classify_open)?;
    // Apart from each other, since one that is refused undoes what it is sent with.
    for told in [SILENCE, LOOK] {
        let _ = on.execute(sqlx::raw_sql(told)).await;
    }
    if pooler::is_standby(on).await.map_err(classify_open)? {
        return Err(standby());
    }
    Ok(())
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("schema", &self.schema)
            .field("table_prefix", &self.table_prefix)
            .field("users", &self.users)
            .field("log", &self.log)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

/// What a handle may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Bring the schema up to date, then read and write.
    #[default]
    Migrate,
    /// Use a schema that is up to date. What the role may not do is refused by the server.
    Ready,
}

/// Whether the log of what shared caches must forget is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InvalidationLog {
    /// Triggers write it. It costs a row per change while a shared cache is registered.
    #[default]
    Kept,
    /// There are no such triggers; caches are bounded by their TTL alone.
    Off,
}

/// Whose table of users it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Users {
    /// This library's, with every column of `User`.
    #[default]
    Owned,
    /// The application's.
    Existing(ExistingUsers),
}

/// A table of users that the application owns. Sessions refer to it with `ON DELETE CASCADE`. Users
/// are registered and changed by the application alone: `insert_user`, `update_user` and `list_users`
/// are `Unsupported`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExistingUsers {
    /// The table.
    pub table: String,
    /// Its key column: PRIMARY KEY or UNIQUE.
    pub id_column: String,
    /// The type of the key.
    pub id_type: IdType,
    /// The column with the e-mail address, if any, compared by `lower(column)`. Several users whose
    /// addresses differ in case only are `SchemaMismatch` when they are looked for. Default: `None`.
    pub email_column: Option<String>,
    /// The column with the role, if any. Default: `None`.
    pub role_column: Option<String>,
    /// The column with the claims as JSON, if any. Default: `None`.
    pub claims_column: Option<String>,
    /// Whether a trigger is put on the table, so that changes of mapped columns reach the caches;
    /// `PostgresStore::user_trigger_sql` prints it. Default: `false`.
    pub triggers: bool,
}

impl ExistingUsers {
    /// The table `table` with the key `id_column` of type `id_type`.
    pub fn new(table: impl Into<String>, id_column: impl Into<String>, id_type: IdType) -> Self {
        Self {
            table: table.into(),
            id_column: id_column.into(),
            id_type,
            email_column: None,
            role_column: None,
            claims_column: None,
            triggers: false,
        }
    }
}

/// The type of a user's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdType {
    /// `text` or `varchar`.
    Text,
    /// `uuid`, spelled in lowercase with hyphens.
    Uuid,
    /// `bigint`.
    Integer,
}

#[cfg(test)]
mod tests {
    use session_store_core::ErrorKind;

    use super::*;

    #[test]
    fn times_that_do_not_fit_are_refused_by_name_and_value() {
        let of = |change: fn(&mut PostgresConfig)| {
            let mut config = PostgresConfig::new("");
            change(&mut config);
            config
        };
        let wrong = [
            (of(|config| config.deadline = Duration::ZERO), "deadline is 0ns"),
            (
                of(|config| config.deadline = Duration::from_secs(30)),
                "connect_timeout, which is 30s",
            ),
            (of(|config| config.statement_timeout = Duration::from_secs(90)), "which is 90s"),
            (of(|config| config.connect_timeout = Duration::ZERO), "connect_timeout is 0ns"),
            // Below a millisecond the server would see 0, which is no limit.
            (
                of(|config| config.statement_timeout = Duration::from_micros(900)),
                "statement_timeout is 900µs",
            ),
            (of(|config| config.max_connections = 0), "max_connections is 0"),
        ];
        assert!(PostgresConfig::new("").check().is_ok());
        for (config, words) in wrong {
            let refused = config.check().unwrap_err();
            let is_typed = matches!(refused.kind(), ErrorKind::Configuration { .. });
            let said = refused.to_string();
            assert!(is_typed && said.contains(words), "{said}");
        }
    }
}
