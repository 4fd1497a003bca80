//! The item of a user: the user, and the barriers that decide which of the sessions still count.
//!
//! A session carries the barrier it was created behind as its stamp. A revoke-all raises the user's
//! barrier, and with that one write every session of a lower stamp is ended, found by a list or not.

use aws_sdk_dynamodb::types::AttributeValue;
use session_store_core::{
    Account, CredentialEpoch, Email, Error, ErrorKind, Json, PasswordHash, Projection, Reason,
    Result, Revocation, Role, Session, SessionId, Timestamp, User, UserId,
};

use super::error::{MAX_ITEM_BYTES, corrupt};
use super::key::Key;
use super::mark::{Mark, Recent};
use super::row::{Item, Row, item, number, size, text};
use super::step::Terms;
use super::stored::Stored;

/// How many barriers are remembered with the moment and reason. Only sessions that no clean-up has
/// reached need them.
const MARKS: usize = 32;
/// More than they take, and what else grows: the latest logins, and moments.
const ROOM_TO_GROW: usize = 8192;
/// What a reader of sessions reads of their users: all that decides, and not the hash of the password,
/// which a role that only checks sessions may not see.
pub(super) const SEEN: &[&str] = match SEEN_WITH_EMAIL.split_last() {
    Some((_, others)) => others,
    None => &[],
};
/// The same, where readers learn the address.
pub(super) const SEEN_WITH_EMAIL: &[&str] = &[
    "v",
    "id",
    "life",
    "epoch",
    "barrier",
    "spared",
    "deleted_below",
    "deleted_until",
    "marks",
    "rev",
    "is_verified",
    "role",
    "created_at",
    "claims",
    "version",
    "email",
];

/// What is stored about a user who is there, or was.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) id: UserId,
    /// `None`: deleted. The rest stays, so that no epoch ever restarts.
    pub(super) user: Option<User>,
    /// Random; another one if the item was taken away by hand and somebody registered anew.
    pub(super) life: u64,
    /// What `create` checks.
    pub(super) epoch: u64,
    /// What readers check.
    pub(super) barrier: u64,
    /// The session that got the latest barrier as its stamp, in the same transaction.
    pub(super) spared: Option<SessionId>,
    /// Sessions of a lower stamp belong to a user who was deleted.
    pub(super) deleted_below: u64,
    pub(super) deleted_until: Option<Timestamp>,
    /// The latest barriers, oldest first.
    pub(super) marks: Vec<Mark>,
    /// Logins whose entries may not be visible yet.
    pub(super) recent: Vec<Recent>,
    pub(super) rev: u64,
}

/// A session seen together with its user.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    /// With the revocation that a barrier means, whether a clean-up has written it or not.
    pub(super) stored: Stored,
    /// Whether the revocation is not written yet.
    pub(super) is_unwritten: bool,
    /// Whether the session may have been spared by the transaction that ended the others, and was
    /// seen without that.
    pub(super) is_doubtful: bool,
}

impl Judged {
    /// A session of nobody.
    pub(super) fn guest(stored: Stored) -> Self {
        Self { stored, is_unwritten: false, is_doubtful: false }
    }

    /// The session as it was before a barrier ended it.
    pub(super) fn before(&self) -> Session {
        Session { revoked: None, ..self.stored.session.clone() }
    }
}

impl Owner {
    /// A user of whom nothing is stored. If somebody has taken an earlier item of this id away by hand,
    /// none of its sessions may count for the newcomer: they are of another `life`, and behind a
    /// barrier that begins with the time.
    pub(super) fn new(user: &User, now: Timestamp, life: u64) -> Self {
        let barrier = u64::try_from(now.as_millis()).unwrap_or(0);
        Self {
            id: user.id.clone(),
            user: Some(user.clone()),
            life,
            epoch: 0,
            barrier,
            spared: None,
            deleted_below: barrier,
            deleted_until: None,
            marks: Vec::new(),
            recent: Vec::new(),
            rev: 1,
        }
    }

    /// The same, when something of an earlier user is left: an epoch that none of theirs was, so that
    /// no login counts that verified their credentials.
    pub(super) fn again(user: &User, now: Timestamp, life: u64) -> Self {
        Self { epoch: life >> 12, ..Self::new(user, now, life) }
    }

    pub(super) fn read(item: &Item) -> Result<Self> {
        let row = Row::of(item)?;
        let id = UserId::new(row.text("id")?).map_err(|_| corrupt())?;
        let user = if row.has("role") { Some(user(row, id.clone())?) } else { None };
        let session = |text: &str| SessionId::parse(text).ok_or_else(corrupt);
        Ok(Self {
            id,
            user,
            life: row.number("life")?,
            epoch: row.number("epoch")?,
            barrier: row.number("barrier")?,
            spared: row.maybe_text("spared")?.map(session).transpose()?,
            deleted_below: row.number("deleted_below")?,
            deleted_until: row.maybe_time("deleted_until")?,
            // One that somebody has damaged must not keep all sessions from being ended. Without its
            // mark a barrier stands as well, and no login has a name that is none.
            marks: row.texts("marks")?.into_iter().filter_map(Mark::parse).collect(),
            recent: row.set("recent")?.iter().filter_map(|text| Recent::parse(text)).collect(),
            rev: row.number("rev")?,
        })
    }

    /// The item that [`Owner::read`] reads.
    pub(super) fn item(&self) -> Item {
        let mut item = item(Key::user(&self.id), "user");
        let mut put = |name: &str, value| _ = item.insert(name.to_owned(), value);
        put("id", text(self.id.as_str()));
        put("life", number(self.life));
        put("epoch", number(self.epoch));
        put("barrier", number(self.barrier));
        put("deleted_below", number(self.deleted_below));
        put("rev", number(self.rev));
        put("marks", self.marks());
        if let Some(until) = self.deleted_until {
            put("deleted_until", number(until.as_millis()));
        }
        if let Some(spared) = &self.spared {
            put("spared", text(spared.to_string()));
        }
        if !self.recent.is_empty() {
            put("recent", Recent::set(&self.recent));
        }
        let Some(user) = &self.user else { return item };
        put("is_verified", AttributeValue::Bool(user.is_verified));
        put("role", text(user.role.as_str()));
        put("created_at", number(user.created_at.as_millis()));
        put("claims", text(user.claims.as_str()));
        put("version", number(user.version));
        if let Some(email) = &user.email {
            put("email", text(email.as_str()));
        }
        if let Some(hash) = &user.password_hash {
            put("password_hash", text(hash.expose()));
        }
        if let Some(at) = user.last_login_at {
            put("last_login_at", number(at.as_millis()));
        }
        item
    }

    /// The item, for a user who is new or has changed; `TooLarge` when DynamoDB would not take it with
    /// all the barriers that may follow, or nobody could end the user's sessions any more.
    pub(super) fn checked_item(&self) -> Result<Item> {
        let limit = MAX_ITEM_BYTES - ROOM_TO_GROW;
        let bare = Self { marks: Vec::new(), recent: Vec::new(), ..self.clone() };
        if size(&bare.item()) > limit {
            return Err(super::error::error(ErrorKind::TooLarge { what: "user", limit }));
        }
        Ok(self.item())
    }

    /// The marks as the item has them.
    pub(super) fn marks(&self) -> AttributeValue {
        AttributeValue::L(self.marks.iter().map(|mark| text(mark.to_string())).collect())
    }

    pub(super) fn account(&self) -> Option<Account> {
        let user = self.user.clone()?;
        Some(Account { user, credential_epoch: CredentialEpoch(self.epoch) })
    }

    /// What a reader of one of the user's sessions learns; `None` for a deleted user.
    pub(super) fn projection(&self, with_email: bool) -> Option<Projection> {
        let user = self.user.as_ref()?;
        Some(Projection {
            id: user.id.clone(),
            role: user.role.clone(),
            is_verified: user.is_verified,
            claims: user.claims.clone(),
            email: user.email.clone().filter(|_| with_email),
        })
    }

    /// Nobody has written the item since it was read.
    pub(super) fn unchanged(&self) -> Terms {
        Terms::unchanged(self.rev).and("#life = :life").with(":life", number(self.life))
    }

    /// Checks a login that verified the user's credentials in `verified`.
    pub(super) fn check_login(&self, verified: CredentialEpoch) -> Result<()> {
        if self.user.is_none() {
            return Err(super::error::error(ErrorKind::UnknownUser));
        }
        // A later one was that of a user whose item somebody has taken away by hand.
        if verified.0 != self.epoch {
            return Err(super::error::error(ErrorKind::StaleCredentials));
        }
        Ok(())
    }

    /// Raises the barrier and makes every login fail that was verified before.
    pub(super) fn raise(&mut self, end: Option<Revocation>) {
        self.epoch += 1;
        self.barrier += 1;
        self.spared = None;
        if let Some(end) = end {
            self.marks.push(Mark { barrier: self.barrier, end });
            let surplus = self.marks.len().saturating_sub(MARKS);
            self.marks.drain(..surplus);
        }
    }

    /// `stored` with the revocation that a barrier means for it; `None` when its user is gone.
    pub(super) fn judge(&self, mut stored: Stored) -> Option<Judged> {
        let is_own = stored.life == self.life && stored.stamp >= self.deleted_below;
        if self.user.is_none() || !is_own {
            return None;
        }
        let is_behind = stored.stamp < self.barrier && stored.session.revoked.is_none();
        if is_behind {
            let mark = self.marks.iter().find(|mark| mark.barrier > stored.stamp);
            let end = mark.map(|mark| mark.end);
            // Somebody has taken the marks away by hand; the barrier still stands.
            let end = end.unwrap_or(Revocation {
                at: stored.session.last_seen_at,
                reason: Reason::LogoutEverywhere,
            });
            stored.session.revoked = Some(end);
            stored.session.version += 1;
            stored.ended_by = Some(mark.map_or(self.barrier, |mark| mark.barrier));
        }
        let is_doubtful = is_behind && self.spared.as_ref() == Some(stored.id());
        Some(Judged { stored, is_unwritten: is_behind, is_doubtful })
    }
}

fn user(row: Row<'_>, id: UserId) -> Result<User> {
    let checked = |_: Error| corrupt();
    Ok(User {
        id,
        email: row.maybe_text("email")?.map(Email::parse).transpose().map_err(checked)?,
        password_hash: row
            .maybe_text("password_hash")?
            .map(PasswordHash::new)
            .transpose()
            .map_err(checked)?,
        is_verified: row.flag("is_verified")?,
        role: Role::new(row.text("role")?).map_err(checked)?,
        created_at: row.time("created_at")?,
        last_login_at: row.maybe_time("last_login_at")?,
        claims: Json::trusted(row.text("claims")?),
        version: row.number("version")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        let mut user = User::new(UserId::new("ada").unwrap(), Timestamp::from_millis(5));
        user.email = Some(Email::parse("Ada@example.org").unwrap());
        user.password_hash = Some(PasswordHash::new("$argon2id$").unwrap());
        user.last_login_at = Some(Timestamp::from_millis(9));
        Owner::new(&user, Timestamp::EPOCH, 77)
    }

    fn end(at: i64) -> Revocation {
        Revocation { at: Timestamp::from_millis(at), reason: Reason::LogoutEverywhere }
    }

    #[test]
    fn a_user_survives_the_item() {
        let mut owner = owner();
        owner.raise(Some(end(7)));
        owner.deleted_until = Some(Timestamp::from_millis(1));
        let id = SessionId::from_bytes([3; 16]);
        (owner.spared, owner.recent) = (Some(id), vec![Recent { at: Timestamp::EPOCH, id }]);
        let again = Owner::read(&owner.item()).unwrap();
        assert_eq!(again.account(), owner.account());
        assert_eq!((again.marks, again.barrier, again.epoch), (owner.marks, 1, 1));
        assert_eq!((again.deleted_until, again.life), (owner.deleted_until, 77));
        assert_eq!((again.spared, again.recent), (owner.spared, owner.recent));
    }

    #[test]
    fn what_a_reader_reads_is_enough_to_judge_and_names_no_secret() {
        let mut owner = owner();
        owner.spared = Some(SessionId::from_bytes([3; 16]));
        for (fields, has_email) in [(SEEN, false), (SEEN_WITH_EMAIL, true)] {
            let mut item = owner.item();
            item.retain(|name, _| fields.contains(&name.as_str()));
            let seen = Owner::read(&item).unwrap();
            assert_eq!(seen.projection(true).unwrap().email.is_some(), has_email);
            assert_eq!(seen.user.unwrap().password_hash, None);
            assert_eq!((seen.barrier, seen.spared), (owner.barrier, owner.spared));
        }
    }

    #[test]
    fn an_item_of_another_format_is_refused_and_named() {
        let mut item = owner().item();
        item.insert("v".to_owned(), number(2));
        let error = Owner::read(&item).unwrap_err();
        assert!(error.to_string().contains("format 2"), "{error}");
        assert!(matches!(error.kind(), ErrorKind::SchemaMismatch { .. }));
    }

    #[test]
    fn only_the_latest_barriers_are_remembered() {
        let mut owner = owner();
        for turn in 0..100 {
            owner.raise(Some(end(turn)));
        }
        assert_eq!((owner.marks.len(), owner.barrier), (MARKS, 100));
        assert_eq!(owner.marks[0].barrier, 69);
    }
}
