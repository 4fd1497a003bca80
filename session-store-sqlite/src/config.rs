//! Where the database is and how it is used.

use std::path::PathBuf;
use std::time::Duration;

/// Where the database is and how it is used.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SqliteConfig {
    /// The file. A database in memory is refused: each connection would have its own.
    pub path: PathBuf,
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
    /// How many threads read. Default: 2.
    pub readers: usize,
    /// Whether a session's reader learns the user's e-mail address. Default: `false`.
    pub project_email: bool,
    /// How long to wait for another process that writes, before `Unavailable`. Default: 5 s.
    pub busy_timeout: Duration,
}

impl SqliteConfig {
    /// The database at `path`, with the defaults.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            table_prefix: String::new(),
            users: Users::default(),
            log: InvalidationLog::default(),
            access: Access::default(),
            readers: 2,
            project_email: false,
            busy_timeout: Duration::from_secs(5),
        }
    }
}

/// What a handle may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Create the file and bring the schema up to date, then read and write.
    #[default]
    Migrate,
    /// Read and write a schema that is up to date.
    ReadWrite,
    /// Read a schema that is up to date; writing operations are `Unsupported`.
    ReadOnly,
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

/// A table of users that the application owns. Sessions refer to it with `ON DELETE CASCADE`, so
/// that users deleted by a connection with `foreign_keys = ON` take their sessions along, and with
/// [`ExistingUsers::triggers`] by any other, too. Users are registered and changed by the
/// application alone: `insert_user`, `update_user` and `list_users` are `Unsupported`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExistingUsers {
    /// The table.
    pub table: String,
    /// Its key column: PRIMARY KEY or UNIQUE.
    pub id_column: String,
    /// The type of the key.
    pub id_type: IdType,
    /// The column with the e-mail address, if any. It is compared by `lower(column)`; an index on
    /// that expression makes finding a user by address fast, unless the address has letters beyond
    /// ASCII. Several users whose addresses differ in case only are `SchemaMismatch` when they are
    /// looked for. Default: `None`.
    pub email_column: Option<String>,
    /// The column with the role, if any. Default: `None`.
    pub role_column: Option<String>,
    /// The column with the claims as JSON text, if any. Default: `None`.
    pub claims_column: Option<String>,
    /// Whether triggers are put on the table, so that changes typed by hand reach the caches;
    /// `SqliteStore::user_triggers_sql` prints them. Default: `false`.
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
    /// Any text.
    Text,
    /// A UUID as lowercase text with hyphens.
    Uuid,
    /// A 64-bit integer.
    Integer,
}
