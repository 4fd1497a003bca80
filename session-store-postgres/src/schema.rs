//! The names of tables and columns, checked once, and the statements made of them.

use session_store_core::{Error, ErrorKind, Result, UserId};
use sqlx::AssertSqlSafe;

use crate::config::{ExistingUsers, IdType, InvalidationLog, PostgresConfig, Users};
use crate::error::{NAME, error};

/// Checked names. The only source of text that is put into SQL.
#[derive(Clone, Debug)]
pub(crate) struct Schema {
    prefix: String,
    users: String,
    id: String,
    id_type: IdType,
    role: String,
    is_verified: &'static str,
    claims: String,
    email: String,
    /// The id, and what a session's reader learns of the user.
    projected: Vec<String>,
    pub(crate) has_user_trigger: bool,
    pub(crate) log: InvalidationLog,
    pub(crate) existing: Option<ExistingUsers>,
    /// The expression for the server's time.
    pub(crate) clock: &'static str,
}

impl Schema {
    pub(crate) fn new(config: &PostgresConfig) -> Result<Self> {
        let prefix = config.table_prefix.clone();
        if !prefix.is_empty() {
            check_prefix(&prefix)?;
        }
        let email = |column: String| {
            if config.project_email { column } else { "NULL::text".to_owned() }
        };
        let mut schema = match &config.users {
            Users::Owned => Self {
                users: format!("{prefix}users"),
                id: "id".to_owned(),
                id_type: IdType::Text,
                role: "u.role".to_owned(),
                is_verified: "u.is_verified",
                claims: "u.claims".to_owned(),
                email: email("u.email".to_owned()),
                projected: ["id", "email", "is_verified", "role", "claims"]
                    .map(str::to_owned)
                    .into(),
                has_user_trigger: true,
                log: InvalidationLog::default(),
                existing: None,
                clock: "",
                prefix,
            },
            Users::Existing(table) => Self::existing(prefix, table, email)?,
        };
        schema.log = config.log;
        schema.clock = if config.compare_clocks {
            "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
        } else {
            "NULL::bigint"
        };
        Ok(schema)
    }

    fn existing(
        prefix: String,
        table: &ExistingUsers,
        email: impl Fn(String) -> String,
    ) -> Result<Self> {
        let column = |setting: &str, name: &Option<String>| {
            name.as_deref().map(|name| quote(setting, name)).transpose()
        };
        let role = column("role_column", &table.role_column)?;
        let claims = column("claims_column", &table.claims_column)?;
        let email_column = column("email_column", &table.email_column)?;
        let id = quote("id_column", &table.id_column)?;
        let mapped = [&email_column, &role].into_iter().flatten().cloned();
        // JSON has no equality, its text has.
        let claims_text = claims.clone().map(|name| format!("{name}::text"));
        let projected = [id.clone()].into_iter().chain(mapped).chain(claims_text).collect();
        let or = |column: Option<String>, usual: &str| {
            column.map_or(format!("{usual}::text"), |name| {
                format!("COALESCE(u.{name}::text, {usual})")
            })
        };
        Ok(Self {
            prefix,
            users: quote("users table", &table.table)?,
            id,
            id_type: table.id_type,
            role: or(role, "'user'"),
            is_verified: "false",
            claims: or(claims, "'{}'"),
            email: email_column
                .map_or("NULL::text".to_owned(), |name| email(format!("u.{name}::text"))),
            projected,
            has_user_trigger: table.triggers,
            log: InvalidationLog::default(),
            existing: Some(table.clone()),
            clock: "",
        })
    }

    pub(crate) fn owns_users(&self) -> bool {
        self.existing.is_none()
    }

    /// The prefix of every name.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The table and the column, unquoted, that sessions refer to.
    pub(crate) fn reference(&self) -> (String, String) {
        match &self.existing {
            None => (self.users.clone(), self.id.clone()),
            Some(users) => (users.table.clone(), users.id_column.clone()),
        }
    }

    /// Puts the names into a statement: `{p}` the prefix, `{users}`, `{id}`, `{projection}`, and
    /// `{key}` behind a parameter that holds a user's id as text.
    pub(crate) fn text(&self, template: &str) -> String {
        let projection = format!(
            "u.{}::text, {}, {}, {}, {}",
            self.id, self.role, self.is_verified, self.claims, self.email
        );
        template
            .replace("{projection}", &projection)
            .replace("{users}", &self.users)
            .replace("{id}", &self.id)
            .replace("{key}", &format!("::{}", self.id_type_sql()))
            .replace("{clock}", self.clock)
            .replace("{p}", &self.prefix)
    }

    /// The same, for the driver: nothing in it but what was checked.
    pub(crate) fn sql(&self, template: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(self.text(template))
    }

    fn id_type_sql(&self) -> &'static str {
        match self.id_type {
            IdType::Text => "text",
            IdType::Uuid => "uuid",
            IdType::Integer => "bigint",
        }
    }

    /// The same for the statements of a migration, which know a few more.
    pub(crate) fn migration(&self, template: &str) -> String {
        let changed: Vec<_> = self
            .projected
            .iter()
            .map(|name| format!("NEW.{name} IS DISTINCT FROM OLD.{name}"))
            .collect();
        let known = template
            .replace("{projected_changed}", &changed.join(" OR "))
            .replace("{id_type}", &self.id_type_sql().to_uppercase());
        self.text(&known)
    }

    /// Whether `user` can be a key of the column at all.
    pub(crate) fn is_key(&self, user: &UserId) -> bool {
        let text = user.as_str();
        match self.id_type {
            IdType::Text => true,
            IdType::Uuid => is_uuid(text),
            IdType::Integer => text.parse::<i64>().is_ok_and(|number| number.to_string() == text),
        }
    }

    /// The same, or `UnknownUser`.
    pub(crate) fn check_key(&self, user: &UserId) -> Result<()> {
        if self.is_key(user) { Ok(()) } else { Err(error(ErrorKind::UnknownUser)) }
    }
}

/// Lowercase with hyphens, the one spelling that is compared.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        })
}

fn check_prefix(prefix: &str) -> Result<()> {
    let is_word = prefix
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if prefix.len() > 32 || !is_word || prefix.starts_with(|first: char| first.is_ascii_digit()) {
        let what = format!(
            "table_prefix is {prefix:?}; it must be lowercase letters, digits and _, at most 32, no \
             digit in front"
        );
        return Err(Error::configuration(NAME, what));
    }
    Ok(())
}

/// An identifier of the application's schema, quoted; `setting` is where it was read.
pub(crate) fn quote(setting: &str, name: &str) -> Result<String> {
    if name.is_empty() || name.len() > 63 || name.contains(['"', '\0', '{', '}']) {
        let what = format!(
            "{setting} is {name:?}; the name of a schema, table or column must not be empty, longer \
             than 63 bytes, or have quotes, braces or NUL"
        );
        return Err(Error::configuration(NAME, what));
    }
    Ok(format!("\"{name}\""))
}
