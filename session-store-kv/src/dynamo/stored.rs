//! A session as an item, and what is stored beside it.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use session_store_core::{
    CredentialEpoch, Json, Metadata, Previous, Reason, Result, Revocation, SecretHash, Session,
    SessionId, Timestamp, Ttl, UserId,
};

use super::error::corrupt;
use super::key::{Key, Queue};
use super::row::{Item, Row, bytes, garbage, item, number, size, text};

/// A session as stored, and what is stored beside it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) session: Session,
    /// The barrier of the user at the moment of the login: behind a higher one it is ended.
    pub(super) stamp: u64,
    /// The user's, so that nobody inherits the sessions of another user of the same id.
    pub(super) life: u64,
    /// Grows with every write, touches included; every write is conditional on it.
    pub(super) rev: u64,
    /// Its sort key in the queue.
    pub(super) filed: String,
    /// The barrier that ended it, if one did.
    pub(super) ended_by: Option<u64>,
    /// About what the item takes.
    pub(super) size: usize,
}

/// How much of a session is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// What decides about its end. The rest is left empty: an item that nobody can read any more
    /// must not keep its user from logging out.
    Head,
    /// All of it.
    Whole,
}

impl Stored {
    pub(super) fn read(item: &Item, depth: Depth) -> Result<Self> {
        let row = Row::of(item)?;
        let id = row.text("id")?;
        let id = SessionId::parse(id).ok_or_else(corrupt)?;
        let head = head(row, id)?;
        let session = match depth {
            Depth::Head => head,
            Depth::Whole => whole(row, head)?,
        };
        Ok(Self {
            session,
            stamp: row.number("stamp")?,
            life: row.number("life")?,
            rev: row.number("rev")?,
            filed: row.text("filed")?.to_owned(),
            ended_by: row.maybe_number("ended_by")?,
            size: size(item),
        })
    }

    /// A session of nobody that was never stored before.
    pub(super) fn new(session: Session) -> Self {
        let filed = Queue::Expiring.sk(session.expires_at, &session.id);
        Self { session, stamp: 0, life: 0, rev: 1, filed, ended_by: None, size: 0 }
    }

    pub(super) fn id(&self) -> &SessionId {
        &self.session.id
    }

    pub(super) fn key(&self) -> Key {
        Key::session(self.id())
    }

    /// Its place in the queue of deadlines.
    pub(super) fn place(&self) -> Key {
        Key::filed(self.id(), &self.filed)
    }

    /// All its places.
    pub(super) fn places(&self) -> Vec<Key> {
        let revoked = self.session.revoked.map(|end| Queue::Revoked.sk(end.at, self.id()));
        let revoked = revoked.map(|sk| Key::filed(self.id(), &sk));
        [self.place()].into_iter().chain(revoked).collect()
    }

    /// Its entry in the partition of its user.
    pub(super) fn entry(&self) -> Option<Key> {
        let user = self.session.user_id.as_ref()?;
        Some(Key::entry(user, self.session.created_at, self.id()))
    }

    /// The same session, filed by `deadline`.
    pub(super) fn filed_by(&self, deadline: Timestamp) -> Self {
        let queue = match self.session.revoked {
            None => Queue::Expiring,
            Some(_) => Queue::Ended,
        };
        Self { filed: queue.sk(deadline, self.id()), ..self.clone() }
    }

    /// The item that [`Stored::read`] reads.
    pub(super) fn item(&self, garbage_after: Duration) -> Item {
        let session = &self.session;
        let mut item = item(self.key(), "session");
        let mut put = |name: &str, value| _ = item.insert(name.to_owned(), value);
        put("id", text(session.id.to_string()));
        put("stamp", number(self.stamp));
        put("life", number(self.life));
        put("rev", number(self.rev));
        put("filed", text(&self.filed));
        put("ttl", garbage(session.expires_at, garbage_after));
        put("secret_hash", bytes(session.secret_hash.as_bytes()));
        put("created_at", number(session.created_at.as_millis()));
        put("last_seen_at", number(session.last_seen_at.as_millis()));
        put("expires_at", number(session.expires_at.as_millis()));
        put("idle_timeout", number(session.idle_timeout.as_millis()));
        put("rotated_at", number(session.rotated_at.as_millis()));
        put("remember", AttributeValue::Bool(session.remember));
        put("amr", AttributeValue::L(session.amr.iter().map(text).collect()));
        put("data", text(session.data.as_str()));
        put("version", number(session.version));
        put("credential_epoch", number(session.credential_epoch.0));
        let mut maybe = |name: &str, value: Option<AttributeValue>| {
            if let Some(value) = value {
                item.insert(name.to_owned(), value);
            }
        };
        let time = |at: Option<Timestamp>| at.map(|at| number(at.as_millis()));
        maybe("user", session.user_id.as_ref().map(|user| text(user.as_str())));
        maybe("previous_hash", session.previous.map(|old| bytes(old.hash.as_bytes())));
        maybe("previous_until", time(session.previous.and_then(|old| old.until)));
        maybe("authenticated_at", time(session.authenticated_at));
        maybe("absolute_expires_at", time(session.absolute_expires_at));
        maybe("ip", session.metadata.ip.map(|ip| text(ip.to_string())));
        maybe("user_agent", session.metadata.user_agent.as_ref().map(text));
        maybe("device", session.metadata.device.as_ref().map(text));
        maybe("aal", session.aal.map(number));
        maybe("external_sid", session.external_sid.as_ref().map(text));
        maybe("revoked_at", time(session.revoked.map(|end| end.at)));
        maybe("revoked_reason", session.revoked.map(|end| text(end.reason.as_str())));
        maybe("ended_by", self.ended_by.map(number));
        item
    }

    /// The items that put it where sweeps look for it.
    pub(super) fn place_items(&self) -> Vec<Item> {
        self.places().into_iter().map(|key| self.place_item(key)).collect()
    }

    /// One of them; it knows where the session's entry is, should the session be gone.
    pub(super) fn place_item(&self, key: Key) -> Item {
        let mut item = item(key, "deadline");
        item.insert("id".to_owned(), text(self.id().to_string()));
        if let Some(user) = &self.session.user_id {
            item.insert("user".to_owned(), text(user.as_str()));
            let created = number(self.session.created_at.as_millis());
            item.insert("created_at".to_owned(), created);
        }
        item
    }

    /// Its item in the partition of `user`.
    pub(super) fn entry_item(&self, user: &UserId) -> Item {
        let key = Key::entry(user, self.session.created_at, self.id());
        let mut item = item(key, "entry");
        item.insert("id".to_owned(), text(self.id().to_string()));
        item.insert("stamp".to_owned(), number(self.stamp));
        item
    }
}

/// The fields that decide about the end of a session; the others are empty.
fn head(row: Row<'_>, id: SessionId) -> Result<Session> {
    let revoked = row.maybe_time("revoked_at")?.map(|at| {
        let name = row.maybe_text("revoked_reason").ok().flatten();
        // An item revoked by hand may have no reason, or one of its own.
        let reason = name.and_then(Reason::parse).unwrap_or(Reason::Admin);
        Revocation { at, reason }
    });
    Ok(Session {
        id,
        user_id: row.user("user")?,
        secret_hash: SecretHash::from_bytes([0; 32]),
        previous: None,
        created_at: row.time("created_at")?,
        authenticated_at: None,
        last_seen_at: row.time("last_seen_at")?,
        expires_at: row.time("expires_at")?,
        absolute_expires_at: row.maybe_time("absolute_expires_at")?,
        idle_timeout: Ttl::MIN,
        rotated_at: Timestamp::EPOCH,
        metadata: Metadata::default(),
        remember: false,
        aal: None,
        amr: Vec::new(),
        external_sid: None,
        data: Json::default(),
        version: row.number("version")?,
        credential_epoch: CredentialEpoch(row.number("credential_epoch")?),
        revoked,
    })
}

fn whole(row: Row<'_>, head: Session) -> Result<Session> {
    let idle = Duration::from_millis(row.number("idle_timeout")?);
    let ip = row.maybe_text("ip")?.map(|ip| ip.parse().map_err(|_| corrupt())).transpose()?;
    let previous = if row.has("previous_hash") {
        let until = row.maybe_time("previous_until")?;
        Some(Previous { hash: row.hash("previous_hash")?, until })
    } else {
        None
    };
    Ok(Session {
        secret_hash: row.hash("secret_hash")?,
        previous,
        authenticated_at: row.maybe_time("authenticated_at")?,
        idle_timeout: Ttl::new(idle).ok_or_else(corrupt)?,
        rotated_at: row.time("rotated_at")?,
        metadata: Metadata {
            ip,
            user_agent: row.maybe_text("user_agent")?.map(str::to_owned),
            device: row.maybe_text("device")?.map(str::to_owned),
        },
        remember: row.flag("remember")?,
        aal: row.maybe_number("aal")?,
        amr: row.texts("amr")?.into_iter().map(str::to_owned).collect(),
        external_sid: row.maybe_text("external_sid")?.map(str::to_owned),
        data: Json::trusted(row.text("data")?),
        ..head
    })
}
