//! Snapshots as cache records: one fixed schema, versioned, with no type names inside.
//!
//! Byte 0 is the kind (`V` value, `L` lease, `N` negative), byte 1 the format version. A record of
//! another version, or one that doesn't decode, is a miss.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::json::Json;
use crate::secondary::Record;
use crate::session::{Metadata, Previous, Reason, Revocation, Session, Snapshot};
use crate::time::{Timestamp, Ttl};
use crate::token::{SecretHash, SessionId};
use crate::user::{CredentialEpoch, Email, Projection, Role, UserId};

const VALUE: u8 = b'V';
const NEGATIVE: u8 = b'N';
/// Part of every cache key too, so that two versions never meet at one key.
pub(crate) const VERSION: u8 = 1;

/// What a record says.
#[derive(Debug)]
pub(crate) enum Entry {
    /// A session and, in a cache of class Eventual, the end of its freshness.
    Value(Box<Snapshot>, Option<Timestamp>),
    /// There is no such session.
    Negative,
    /// Somebody is reading the primary.
    Lease,
    /// Not ours, or of another version.
    Foreign,
}

/// The record that says "there is no such session".
pub(crate) fn negative() -> Record {
    Record::new([NEGATIVE, VERSION].as_slice())
}

/// The record that holds `snapshot`.
pub(crate) fn encode(snapshot: &Snapshot, fresh_until: Option<Timestamp>) -> Result<Record> {
    let wire = Wire { fresh_until: fresh_until.map(Timestamp::as_millis), ..Wire::of(snapshot) };
    postcard::to_extend(&wire, vec![VALUE, VERSION])
        .map(Record::new)
        .map_err(|error| Error::new(ErrorKind::Corrupt, "core").caused_by(error))
}

/// Whether two values hold the same session, whenever each of them was read.
pub(crate) fn is_same(one: &Record, other: &Record) -> bool {
    let session = |record: &Record| match record.as_bytes() {
        [VALUE, VERSION, rest @ ..] => {
            let (_, session) = postcard::take_from_bytes::<Option<i64>>(rest).ok()?;
            Some(session.to_vec())
        }
        _ => None,
    };
    session(one).is_some_and(|one| session(other) == Some(one))
}

/// What `record` says.
pub(crate) fn decode(record: &Record) -> Entry {
    match record.as_bytes() {
        [Record::LEASE, ..] => Entry::Lease,
        [NEGATIVE, VERSION] => Entry::Negative,
        [VALUE, VERSION, rest @ ..] => match postcard::take_from_bytes::<Wire<'_>>(rest) {
            Ok((wire, [])) => wire.into_entry().unwrap_or(Entry::Foreign),
            _ => Entry::Foreign,
        },
        _ => Entry::Foreign,
    }
}

/// The schema of a value. Any change to it needs another [`VERSION`].
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    /// In front: [`is_same`] passes over it.
    fresh_until: Option<i64>,
    id: [u8; 16],
    user_id: Option<&'a str>,
    secret_hash: [u8; 32],
    previous: Option<([u8; 32], Option<i64>)>,
    created_at: i64,
    authenticated_at: Option<i64>,
    last_seen_at: i64,
    expires_at: i64,
    absolute_expires_at: Option<i64>,
    idle_timeout: u64,
    rotated_at: i64,
    ip: Option<IpAddr>,
    user_agent: Option<&'a str>,
    device: Option<&'a str>,
    remember: bool,
    aal: Option<u8>,
    #[serde(borrow)]
    amr: Vec<&'a str>,
    external_sid: Option<&'a str>,
    data: &'a str,
    version: u64,
    credential_epoch: u64,
    revoked: Option<(i64, &'a str)>,
    user: Option<WireUser<'a>>,
}

#[derive(Serialize, Deserialize)]
struct WireUser<'a> {
    id: &'a str,
    role: &'a str,
    is_verified: bool,
    claims: &'a str,
    email: Option<&'a str>,
}

impl<'a> Wire<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let session = &snapshot.session;
        Self {
            fresh_until: None,
            id: *session.id.as_bytes(),
            user_id: session.user_id.as_ref().map(UserId::as_str),
            secret_hash: *session.secret_hash.as_bytes(),
            previous: session
                .previous
                .map(|old| (*old.hash.as_bytes(), old.until.map(Timestamp::as_millis))),
            created_at: session.created_at.as_millis(),
            authenticated_at: session.authenticated_at.map(Timestamp::as_millis),
            last_seen_at: session.last_seen_at.as_millis(),
            expires_at: session.expires_at.as_millis(),
            absolute_expires_at: session.absolute_expires_at.map(Timestamp::as_millis),
            idle_timeout: session.idle_timeout.as_millis(),
            rotated_at: session.rotated_at.as_millis(),
            ip: session.metadata.ip,
            user_agent: session.metadata.user_agent.as_deref(),
            device: session.metadata.device.as_deref(),
            remember: session.remember,
            aal: session.aal,
            amr: session.amr.iter().map(String::as_str).collect(),
            external_sid: session.external_sid.as_deref(),
            data: session.data.as_str(),
            version: session.version,
            credential_epoch: session.credential_epoch.0,
            revoked: session.revoked.map(|end| (end.at.as_millis(), end.reason.as_str())),
            user: snapshot.user.as_ref().map(WireUser::of),
        }
    }

    /// `None` when a field holds what no writer of this version writes.
    fn into_entry(self) -> Option<Entry> {
        let user = self.user.map(WireUser::into_projection).transpose().ok()?;
        let revoked = match self.revoked {
            None => None,
            Some((at, reason)) => Some(Revocation { at: time(at), reason: Reason::parse(reason)? }),
        };
        let session = Session {
            id: SessionId::from_bytes(self.id),
            user_id: self.user_id.map(UserId::new).transpose().ok()?,
            secret_hash: SecretHash::from_bytes(self.secret_hash),
            previous: self.previous.map(|(hash, until)| Previous {
                hash: SecretHash::from_bytes(hash),
                until: until.map(time),
            }),
            created_at: time(self.created_at),
            authenticated_at: self.authenticated_at.map(time),
            last_seen_at: time(self.last_seen_at),
            expires_at: time(self.expires_at),
            absolute_expires_at: self.absolute_expires_at.map(time),
            idle_timeout: Ttl::new(std::time::Duration::from_millis(self.idle_timeout))?,
            rotated_at: time(self.rotated_at),
            metadata: Metadata {
                ip: self.ip,
                user_agent: self.user_agent.map(str::to_owned),
                device: self.device.map(str::to_owned),
            },
            remember: self.remember,
            aal: self.aal,
            amr: self.amr.into_iter().map(str::to_owned).collect(),
            external_sid: self.external_sid.map(str::to_owned),
            data: Json::trusted(self.data),
            version: self.version,
            credential_epoch: CredentialEpoch(self.credential_epoch),
            revoked,
        };
        let snapshot = Box::new(Snapshot { session, user });
        Some(Entry::Value(snapshot, self.fresh_until.map(time)))
    }
}

impl<'a> WireUser<'a> {
    fn of(user: &'a Projection) -> Self {
        Self {
            id: user.id.as_str(),
            role: user.role.as_str(),
            is_verified: user.is_verified,
            claims: user.claims.as_str(),
            email: user.email.as_ref().map(Email::as_str),
        }
    }

    fn into_projection(self) -> Result<Projection> {
        Ok(Projection {
            id: UserId::new(self.id)?,
            role: Role::new(self.role)?,
            is_verified: self.is_verified,
            claims: Json::trusted(self.claims),
            email: self.email.map(Email::parse).transpose()?,
        })
    }
}

fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = "560101140707070707070707070707070707070701036164610101010101010101010101010101010101\
        010101010101010101010101010101010202020202020202020202020202020202020202020202020202\
        02020202020201120201040608010af02e0e01007f00000101056167656e74010570686f6e6501010202\
        03707764036f747001037369640c7b2263617274223a5b315d7d080301120561646d696e010361646105\
        61646d696e01035b315d010f416461406578616d706c652e6f7267";

    fn full() -> Snapshot {
        let id = UserId::new("ada").unwrap();
        let session = Session {
            id: SessionId::from_bytes([7; 16]),
            user_id: Some(id.clone()),
            secret_hash: SecretHash::from_bytes([1; 32]),
            previous: Some(Previous {
                hash: SecretHash::from_bytes([2; 32]),
                until: Some(time(9)),
            }),
            created_at: time(1),
            authenticated_at: Some(time(2)),
            last_seen_at: time(3),
            expires_at: time(4),
            absolute_expires_at: Some(time(5)),
            idle_timeout: Ttl::new(std::time::Duration::from_secs(6)).unwrap(),
            rotated_at: time(7),
            metadata: Metadata {
                ip: Some(IpAddr::from([127, 0, 0, 1])),
                user_agent: Some("agent".to_owned()),
                device: Some("phone".to_owned()),
            },
            remember: true,
            aal: Some(2),
            amr: vec!["pwd".to_owned(), "otp".to_owned()],
            external_sid: Some("sid".to_owned()),
            data: Json::parse(r#"{"cart":[1]}"#).unwrap(),
            version: 8,
            credential_epoch: CredentialEpoch(3),
            revoked: Some(Revocation { at: time(9), reason: Reason::Admin }),
        };
        let user = Projection {
            id,
            role: Role::new("admin").unwrap(),
            is_verified: true,
            claims: Json::parse("[1]").unwrap(),
            email: Some(Email::parse("Ada@example.org").unwrap()),
        };
        Snapshot { session, user: Some(user) }
    }

    #[test]
    fn every_field_survives() {
        let record = encode(&full(), Some(time(10))).unwrap();
        let Entry::Value(snapshot, fresh_until) = decode(&record) else { panic!("not a value") };
        assert_eq!((*snapshot, fresh_until), (full(), Some(time(10))));
    }

    #[test]
    fn a_stamp_makes_no_other_value() {
        let stamped = |end: Option<i64>| encode(&full(), end.map(time)).unwrap();
        assert!(is_same(&stamped(Some(10)), &stamped(Some(1 << 60))));
        assert!(is_same(&stamped(None), &stamped(Some(10))));
        let mut changed = full();
        changed.session.version += 1;
        assert!(!is_same(&stamped(Some(10)), &encode(&changed, Some(time(10))).unwrap()));
        for other in [negative(), Record::lease(b"1"), Record::new(b"V".as_slice())] {
            assert!(!is_same(&stamped(None), &other));
            assert!(!is_same(&other, &other));
        }
    }

    /// Another process of another build must read these bytes. A change needs another `VERSION`.
    #[test]
    fn the_bytes_of_version_1() {
        let record = encode(&full(), Some(time(10))).unwrap();
        let hex =
            record.as_bytes().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        assert_eq!(hex, GOLDEN);
        assert_eq!(negative().as_bytes(), b"N\x01");
    }

    #[test]
    fn what_is_not_ours_is_foreign_and_never_a_panic() {
        let good = encode(&full(), None).unwrap().as_bytes().to_vec();
        for cut in 0..good.len() {
            assert!(matches!(decode(&Record::new(&good[..cut])), Entry::Foreign), "{cut}");
        }
        for position in 0..good.len() {
            let mut bytes = good.clone();
            bytes[position] = bytes[position].wrapping_add(0x80);
            let _ = decode(&Record::new(bytes));
        }
        let longer = [good.as_slice(), b"x"].concat();
        assert!(matches!(decode(&Record::new(longer)), Entry::Foreign));
        assert!(matches!(decode(&Record::new(b"{}".as_slice())), Entry::Foreign));
        assert!(matches!(decode(&negative()), Entry::Negative));
        assert!(matches!(decode(&Record::lease(b"1")), Entry::Lease));
    }
}
