//! Authentication of records: a keyed MAC over key and record, appended to the record.
//!
//! Leases carry none: the server makes them, and a forged one costs a read of the primary.

use hmac::{Hmac, KeyInit, Mac};
use session_store_core::Record;
use sha2::Sha256;

use crate::config::RecordKeys;

const TAG: usize = 32;
/// The first byte of a record that did not verify, as it is handed on; no record of ours has it.
const FOREIGN: u8 = 0;

/// Signs records, if there are keys.
#[derive(Debug)]
pub(crate) struct Seal(pub(crate) Option<RecordKeys>);

impl Seal {
    /// The record that `bytes` hold. One that does not verify is handed on as one that nobody can
    /// read, so that it is confirmed by the primary and deleted.
    pub(crate) fn open(&self, key: &[u8], bytes: Vec<u8>) -> Record {
        let Some(keys) = &self.0 else { return Record::new(bytes) };
        if bytes.first() == Some(&Record::LEASE) {
            return Record::new(bytes);
        }
        if let Some((body, tag)) = bytes.split_last_chunk::<TAG>()
            && keys.0.iter().any(|secret| mac(secret, key, body).verify_slice(tag).is_ok())
        {
            return Record::new(body);
        }
        let name = String::from_utf8_lossy(key);
        tracing::warn!(store = crate::error::NAME, key = %name, "record is not authentic");
        Record::new([&[FOREIGN], bytes.as_slice()].concat())
    }

    /// What is stored for `record`.
    pub(crate) fn close(&self, key: &[u8], record: &Record) -> Vec<u8> {
        self.forms(key, record).swap_remove(0)
    }

    /// What may be stored where `record` was read: signed with any of the keys.
    pub(crate) fn forms(&self, key: &[u8], record: &Record) -> Vec<Vec<u8>> {
        let bytes = record.as_bytes();
        let Some(keys) = self.0.as_ref().filter(|_| !record.is_lease()) else {
            return vec![bytes.to_vec()];
        };
        if let Some((&FOREIGN, stored)) = bytes.split_first() {
            return vec![stored.to_vec()];
        }
        let signed = |secret| {
            let tag = mac(secret, key, bytes).finalize().into_bytes();
            [bytes, tag.as_slice()].concat()
        };
        keys.0.iter().map(|secret| signed(secret)).collect()
    }
}

fn mac(secret: &[u8], key: &[u8], record: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret)
        .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
    mac.update(b"session-store record 1\0");
    // The length keeps key and record apart.
    mac.update(&(key.len() as u64).to_be_bytes());
    mac.update(key);
    mac.update(record);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(first: u8) -> RecordKeys {
        RecordKeys::new(&[first; 32]).unwrap()
    }

    fn value(text: &str) -> Record {
        Record::new(text.as_bytes())
    }

    #[test]
    fn only_what_was_signed_for_this_key_is_read() {
        let seal = Seal(Some(keys(1)));
        let stored = seal.close(b"a", &value("V1"));
        assert_eq!(seal.open(b"a", stored.clone()), value("V1"));
        assert_ne!(seal.open(b"b", stored.clone()), value("V1"));
        for at in 0..stored.len() {
            let mut forged = stored.clone();
            forged[at] ^= 1;
            let read = seal.open(b"a", forged.clone());
            assert_eq!(read.as_bytes()[0], FOREIGN, "{at}");
            assert_eq!(seal.forms(b"a", &read), [forged], "what was seen can be swapped away");
        }
        assert_eq!(seal.open(b"a", b"V1".to_vec()).as_bytes()[0], FOREIGN);
    }

    #[test]
    fn keys_can_be_changed() {
        let old = Seal(Some(keys(1))).close(b"a", &value("V1"));
        let both = Seal(Some(keys(2).accepting(&[1; 32]).unwrap()));
        assert_eq!(both.open(b"a", old.clone()), value("V1"));
        assert!(both.forms(b"a", &value("V1")).contains(&old));
        assert_ne!(both.close(b"a", &value("V1")), old);
    }

    #[test]
    fn leases_and_records_without_keys_are_as_they_are() {
        let lease = Record::lease(b"1");
        assert_eq!(Seal(Some(keys(1))).close(b"a", &lease), lease.as_bytes());
        assert_eq!(Seal(None).close(b"a", &value("V1")), b"V1");
        assert_eq!(Seal(None).open(b"a", b"V1".to_vec()), value("V1"));
    }
}
