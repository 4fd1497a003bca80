//! Records as Workers KV stores them: with the time of their writing and their true end in front,
//! because KV itself keeps a value for a minute at least.

use session_store_core::{Record, Timestamp};

/// Ours, in this version.
const MAGIC: [u8; 2] = [b'K', 1];
/// Before the record: magic, and two moments of eight bytes.
const HEADER: usize = 18;
/// The largest value of Workers KV, in bytes.
const MAX_VALUE: usize = 25 * 1024 * 1024;
/// The largest record that fits, in bytes.
pub(crate) const MAX_RECORD: usize = MAX_VALUE - HEADER;

/// A record and its true end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) record: Record,
    pub(crate) deadline: Timestamp,
}

impl Row {
    /// What to store for a record that is written at `now`.
    pub(crate) fn seal(&self, now: Timestamp) -> Vec<u8> {
        let record = self.record.as_bytes();
        let mut bytes = Vec::with_capacity(HEADER + record.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&now.as_millis().to_be_bytes());
        bytes.extend_from_slice(&self.deadline.as_millis().to_be_bytes());
        bytes.extend_from_slice(record);
        bytes
    }

    /// The record in `bytes`, if it is ours, of this version, and its time is not over at `now`.
    ///
    /// A record from the future is none either: the clock was set back, and its end can't be told.
    pub(crate) fn open(bytes: &[u8], now: Timestamp) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (written, rest) = rest.split_first_chunk::<8>()?;
        let (deadline, record) = rest.split_first_chunk::<8>()?;
        let moment = |bytes: &[u8; 8]| Timestamp::from_millis(i64::from_be_bytes(*bytes));
        let (written, deadline) = (moment(written), moment(deadline));
        if now < written || now >= deadline {
            return None;
        }
        Some(Self { record: Record::new(record), deadline })
    }

    /// How many seconds KV is to keep it: never less than asked, never less than KV's minimum. One
    /// more than needed, since KV counts from the last full second.
    pub(crate) fn physical_secs(&self, now: Timestamp) -> u64 {
        let left = self.deadline.since(now).as_millis().div_ceil(1000);
        u64::try_from(left).unwrap_or(MAX_TTL).saturating_add(1).clamp(MIN_TTL, MAX_TTL)
    }
}

/// The shortest and the longest TTL that KV takes, in seconds.
const MIN_TTL: u64 = 60;
const MAX_TTL: u64 = i32::MAX as u64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn row(deadline: i64) -> Row {
        Row { record: Record::new(b"Vx".as_slice()), deadline: at(deadline) }
    }

    #[test]
    fn the_true_end_is_inside() {
        let bytes = row(5_000).seal(at(1_000));
        assert_eq!(Row::open(&bytes, at(1_000)), Some(row(5_000)));
        assert_eq!(Row::open(&bytes, at(4_999)), Some(row(5_000)));
        assert_eq!(Row::open(&bytes, at(5_000)), None);
    }

    #[test]
    fn a_record_from_the_future_is_none() {
        assert_eq!(Row::open(&row(5_000).seal(at(1_000)), at(999)), None);
    }

    #[test]
    fn what_is_not_ours_or_of_another_version_is_a_miss() {
        let good = row(5_000).seal(at(1_000));
        for cut in 0..HEADER {
            assert_eq!(Row::open(&good[..cut], at(1_000)), None, "{cut}");
        }
        let mut newer = good.clone();
        newer[1] = 2;
        for foreign in [newer.as_slice(), b"{\"session\":1}".as_slice(), b""] {
            assert_eq!(Row::open(foreign, at(1_000)), None);
        }
    }

    #[test]
    fn the_physical_ttl_is_never_refused_and_never_too_short() {
        let now = at(10_000);
        let secs = |left: u64| row(0).with_end(now.plus(Duration::from_millis(left)));
        for (left, wanted) in [(1, 60), (58_999, 60), (59_000, 60), (59_001, 61), (60_000, 61)] {
            assert_eq!(secs(left).physical_secs(now), wanted, "{left}");
        }
        assert_eq!(Row { deadline: Timestamp::MAX, ..row(0) }.physical_secs(now), MAX_TTL);
        assert_eq!(row(0).physical_secs(now), 60);
    }

    impl Row {
        fn with_end(self, deadline: Timestamp) -> Self {
            Self { deadline, ..self }
        }
    }

    /// Another Worker of another build must read these bytes. A change needs another version.
    #[test]
    fn the_bytes_of_version_1() {
        let bytes = row(258).seal(at(1));
        assert_eq!(bytes, b"K\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x01\x02Vx");
    }
}
