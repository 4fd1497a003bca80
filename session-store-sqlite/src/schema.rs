//! The names of tables and columns, checked once, and the statements made of them.

use session_store_core::{Error, ErrorKind, Result, UserId};

use rusqlite::types::Value;

use crate::config::{ExistingUsers, IdType, InvalidationLog, SqliteConfig, Users};
use crate::error::{NAME, error};
use crate::row::SESSION_COLUMNS;

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
    pub(crate) has_user_triggers: bool,
    pub(crate) log: InvalidationLog,
    pub(crate) existing: Option<ExistingUsers>,
    /// The statement of the hot path, made once.
    pub(crate) find: String,
}

impl Schema {
    pub(crate) fn new(config: &SqliteConfig) -> Result<Self> {
        let prefix = config.table_prefix.clone();
        if !prefix.is_empty() {
            check_prefix(&prefix)?;
        }
        let email = |column: String| {
            if config.project_email { column } else { "NULL".to_owned() }
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
                has_user_triggers: true,
                log: InvalidationLog::default(),
                existing: None,
                find: String::new(),
                prefix,
            },
            Users::Existing(table) => Self::existing(prefix, table, email)?,
        };
        schema.log = config.log;
        schema.find = schema.sql(&format!(
            "SELECT {SESSION_COLUMNS}, {{projection}} FROM {{p}}sessions s \
             LEFT JOIN {{users}} u ON u.{{id}} = s.user_id \
             WHERE s.id = ?1 AND (s.user_id IS NULL OR u.{{id}} IS NOT NULL)"
        ));
        Ok(schema)
    }

    fn existing(
        prefix: String,
        table: &ExistingUsers,
        email: impl Fn(String) -> String,
    ) -> Result<Self> {
        let column = |name: &Option<String>| name.as_deref().map(quote).transpose();
        let role = column(&table.role_column)?;
        let claims = column(&table.claims_column)?;
        let email_column = column(&table.email_column)?;
        let id = quote(&table.id_column)?;
        let mapped = [&email_column, &role, &claims].into_iter().flatten();
        let projected = [&id].into_iter().chain(mapped).cloned().collect();
        let or = |column: Option<String>, usual: &str| {
            column.map_or(usual.to_owned(), |name| {
                format!("COALESCE(CAST(u.{name} AS TEXT), {usual})")
            })
        };
        Ok(Self {
            prefix,
            users: quote(&table.table)?,
            id,
            id_type: table.id_type,
            role: or(role, "'user'"),
            is_verified: "0",
            claims: or(claims, "'{}'"),
            email: email_column.map_or("NULL".to_owned(), |name| email(format!("u.{name}"))),
            projected,
            has_user_triggers: table.triggers,
            log: InvalidationLog::default(),
            existing: Some(table.clone()),
            find: String::new(),
        })
    }

    pub(crate) fn owns_users(&self) -> bool {
        self.existing.is_none()
    }

    /// The table and the column, unquoted, that sessions refer to.
    pub(crate) fn reference(&self) -> (String, String) {
        match &self.existing {
            None => (self.users.clone(), self.id.clone()),
            Some(users) => (users.table.clone(), users.id_column.clone()),
        }
    }

    /// Puts the names into a statement: `{p}` the prefix, `{users}`, `{id}`, `{projection}`.
    pub(crate) fn sql(&self, template: &str) -> String {
        let projection =
            format!("{}, {}, {}, {}", self.role, self.is_verified, self.claims, self.email);
        template
            .replace("{projection}", &projection)
            .replace("{users}", &self.users)
            .replace("{id}", &self.id)
            .replace("{p}", &self.prefix)
    }

    /// The same for the statements of a migration, which know a few more.
    pub(crate) fn migration(&self, template: &str) -> String {
        let changed: Vec<_> =
            self.projected.iter().map(|name| format!("NEW.{name} IS NOT OLD.{name}")).collect();
        let id_type = if self.id_type == IdType::Integer { "INTEGER" } else { "TEXT" };
        let known = template
            .replace("{projected}", &self.projected.join(", "))
            .replace("{projected_changed}", &changed.join(" OR "))
            .replace("{id_type}", id_type);
        self.sql(&known)
    }

    /// The key of `user` as the column holds it; `None` when it can't be one.
    pub(crate) fn key(&self, user: &UserId) -> Option<Value> {
        let text = user.as_str();
        match self.id_type {
            IdType::Text => Some(Value::Text(text.to_owned())),
            IdType::Uuid => is_uuid(text).then(|| Value::Text(text.to_owned())),
            IdType::Integer => {
                let number: i64 = text.parse().ok()?;
                (number.to_string() == text).then_some(Value::Integer(number))
            }
        }
    }

    /// The same, or `UnknownUser`.
    pub(crate) fn known_key(&self, user: &UserId) -> Result<Value> {
        self.key(user).ok_or_else(|| error(ErrorKind::UnknownUser))
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
        let what = "table_prefix: lowercase letters, digits and _, at most 32, no digit in front";
        return Err(Error::configuration(NAME, what));
    }
    Ok(())
}

/// An identifier of the application's schema, quoted.
fn quote(name: &str) -> Result<String> {
    if name.is_empty() || name.len() > 128 || name.contains(['"', '\0', '{', '}']) {
        let what = "name of a table or column: empty, too long, or with quotes, braces or NUL";
        return Err(Error::configuration(NAME, what));
    }
    Ok(format!("\"{name}\""))
}
