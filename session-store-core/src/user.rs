//! Users: whom sessions belong to.

use std::fmt;

use crate::error::{Error, Result};
use crate::json::Json;
use crate::session::SessionIds;
use crate::text;
use crate::time::Timestamp;

/// The name of a user, as the application chose it: 1 to 255 bytes of text without NUL.
///
/// Compared byte by byte: `a`, `A` and `a ` are three users.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Box<str>);

impl UserId {
    /// The longest id, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Checks `text`; `InvalidInput` or `TooLarge` when it can't name a user.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        if text.is_empty() {
            return Err(Error::invalid("core", "user id is empty"));
        }
        text::check("user id", text, Self::MAX_BYTES)?;
        Ok(Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// An e-mail address: as given, and normalized for comparison. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Email {
    given: Box<str>,
    normalized: Box<str>,
}

impl Email {
    /// The longest address, in bytes.
    pub const MAX_BYTES: usize = 320;

    /// Checks the bare form `local@domain`; normalizing is trimming and lower-casing.
    pub fn parse(text: impl AsRef<str>) -> Result<Self> {
        let given = text.as_ref().trim();
        text::check("e-mail address", given, Self::MAX_BYTES)?;
        let whole = given.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty() && !domain.is_empty() && !domain.contains('@')
        });
        if !whole || given.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(Error::invalid("core", "e-mail address"));
        }
        Ok(Self { given: given.into(), normalized: given.to_lowercase().into() })
    }

    /// As the user wrote it.
    pub fn as_str(&self) -> &str {
        &self.given
    }

    /// As two addresses are compared.
    pub fn normalized(&self) -> &str {
        &self.normalized
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(..)")
    }
}

/// What a user may do, in the application's own words: at most 64 bytes without NUL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role(Box<str>);

impl Role {
    /// The longest role, in bytes.
    pub const MAX_BYTES: usize = 64;

    /// Checks `text`; `InvalidInput` or `TooLarge` when it can't be stored.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        text::check("role", text.as_ref(), Self::MAX_BYTES)?;
        Ok(Self(text.as_ref().into()))
    }

    /// The role as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Role {
    /// `user`.
    fn default() -> Self {
        Self("user".into())
    }
}

/// A password hash made by the application. It never leaves the primary store; `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(Box<str>);

impl PasswordHash {
    /// The longest hash, in bytes.
    pub const MAX_BYTES: usize = 1024;

    /// Checks `text`; `InvalidInput` or `TooLarge` when it can't be stored.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        text::check("password hash", text.as_ref(), Self::MAX_BYTES)?;
        Ok(Self(text.as_ref().into()))
    }

    /// The hash, for the application's own verification.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

/// A user of the table this library owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Primary key.
    pub id: UserId,
    /// Unique by its normalized form.
    pub email: Option<Email>,
    /// Never cached, never part of a [`Projection`].
    pub password_hash: Option<PasswordHash>,
    /// Whether the application has verified the user, usually by e-mail.
    pub is_verified: bool,
    /// What the user may do.
    pub role: Role,
    /// When the user was registered.
    pub created_at: Timestamp,
    /// Set by the inserting transaction of a login.
    pub last_login_at: Option<Timestamp>,
    /// What the application wants to know about the user on every request.
    pub claims: Json,
    /// Grows by one with every change.
    pub version: u64,
}

impl User {
    /// A user without e-mail and password, unverified, of role `user`, with no claims.
    pub fn new(id: UserId, created_at: Timestamp) -> Self {
        Self {
            id,
            email: None,
            password_hash: None,
            is_verified: false,
            role: Role::default(),
            created_at,
            last_login_at: None,
            claims: Json::default(),
            version: 1,
        }
    }
}

/// Counts the events that make credentials verified before them worthless: password changes,
/// revoke-alls, deletion. Never restarts, not even when a deleted id is created again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialEpoch(pub u64);

/// A user as found, with the epoch to hand back when a login follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user.
    pub user: User,
    /// The epoch at the moment of this read; `create` refuses a session of an older one.
    pub credential_epoch: CredentialEpoch,
}

/// What a session's reader learns about its user: exactly this, and the e-mail only when asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projection {
    /// Who it is.
    pub id: UserId,
    /// What the user may do.
    pub role: Role,
    /// Whether the application has verified the user.
    pub is_verified: bool,
    /// What the application wants to know on every request.
    pub claims: Json,
    /// Present when the store was configured to project it.
    pub email: Option<Email>,
}

/// What to do with one field that may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Edit<T> {
    /// Leave it as it is.
    #[default]
    Keep,
    /// Empty it.
    Clear,
    /// Set it.
    Set(T),
}

impl<T: Clone> Edit<T> {
    /// The value of the field after this edit of `old`.
    pub fn apply(&self, old: Option<T>) -> Option<T> {
        match self {
            Self::Keep => old,
            Self::Clear => None,
            Self::Set(new) => Some(new.clone()),
        }
    }

    /// Whether the field is touched at all.
    pub fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }
}

/// What to change about a user; the default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserChange {
    /// The e-mail address.
    pub email: Edit<Email>,
    /// The password hash. Any edit bumps the credential epoch.
    pub password_hash: Edit<PasswordHash>,
    /// Whether the user is verified.
    pub is_verified: Option<bool>,
    /// The role.
    pub role: Option<Role>,
    /// The claims.
    pub claims: Option<Json>,
}

impl UserChange {
    /// Whether logins that verified the old credentials must fail from now on.
    pub fn changes_credentials(&self) -> bool {
        !self.password_hash.is_keep()
    }

    /// `user` after this change, one version later.
    pub fn apply(&self, user: &User) -> User {
        let mut user = user.clone();
        user.email = self.email.apply(user.email);
        user.password_hash = self.password_hash.apply(user.password_hash);
        user.is_verified = self.is_verified.unwrap_or(user.is_verified);
        if let Some(role) = &self.role {
            user.role = role.clone();
        }
        if let Some(claims) = &self.claims {
            user.claims = claims.clone();
        }
        user.version += 1;
        user
    }
}

/// What became of a change to a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserUpdate {
    /// Done.
    Updated {
        /// The user as stored now.
        user: Box<User>,
        /// Every session of the user that a cache may hold.
        sessions: SessionIds,
    },
    /// Somebody else was faster; the version that is stored now.
    Conflict {
        /// The version to read and try again with.
        current: u64,
    },
    /// There is no such user.
    Missing,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn user_ids_are_compared_byte_by_byte() {
        let id = |text| UserId::new(text).unwrap();
        assert_ne!(id("a"), id("A"));
        assert_ne!(id("a"), id("a "));
        assert!(UserId::new("").is_err());
        assert!(UserId::new("a\0").is_err());
        assert!(UserId::new("x".repeat(255)).is_ok());
        let error = UserId::new("x".repeat(256)).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::TooLarge { what: "user id", limit: 255 });
    }

    #[test]
    fn addresses_keep_their_spelling_and_compare_without_case() {
        let email = Email::parse(" Ada@Example.org ").unwrap();
        assert_eq!((email.as_str(), email.normalized()), ("Ada@Example.org", "ada@example.org"));
        for wrong in ["", "ada", "@example.org", "ada@", "a@b@c", "a b@c", "a@b\n"] {
            assert!(Email::parse(wrong).is_err() || wrong.ends_with('\n'), "{wrong:?}");
        }
    }

    #[test]
    fn personal_data_is_not_printed() {
        let mut user = User::new(UserId::new("ada").unwrap(), Timestamp::EPOCH);
        user.email = Some(Email::parse("ada@example.org").unwrap());
        user.password_hash = Some(PasswordHash::new("$argon2id$x").unwrap());
        let printed = format!("{user:?}");
        assert!(!printed.contains("example") && !printed.contains("argon2"), "{printed}");
    }
}
