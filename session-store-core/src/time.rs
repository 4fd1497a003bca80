//! Points in time and lengths of time, both in milliseconds.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

/// Milliseconds since 1970-01-01T00:00:00Z, rounded **down** on the way in.
///
/// The unit of every column, record and comparison of this library.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The first millisecond of 1970.
    pub const EPOCH: Self = Self(0);
    /// The last millisecond of the year 9999, the latest moment that may be stored.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// The moment `millis` milliseconds after the epoch; clamped to 1970..=9999.
    pub const fn from_millis(millis: i64) -> Self {
        if millis < 0 {
            Self::EPOCH
        } else if millis > Self::MAX.0 {
            Self::MAX
        } else {
            Self(millis)
        }
    }

    /// The moment `since_epoch` after the epoch, rounded down; clamped like `from_millis`.
    pub fn from_epoch(since_epoch: Duration) -> Self {
        Self::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    /// Milliseconds since the epoch, 0..=253 402 300 799 999.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This moment plus `length`, at most [`Timestamp::MAX`].
    #[must_use]
    pub fn plus(self, length: Duration) -> Self {
        let millis = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// This moment minus `length`, at least [`Timestamp::EPOCH`].
    #[must_use]
    pub fn minus(self, length: Duration) -> Self {
        let millis = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
        Self::from_millis(self.0.saturating_sub(millis))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// How far apart the two moments are, whichever comes first.
    pub fn distance(self, other: Self) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

/// How long a cache may keep something: never zero, never "for ever".
///
/// Four independent session stores turned a zero into an immortal entry; this type makes that
/// impossible to write.
///
/// # Contract
/// - "No time left" is the absence of a `Ttl` \[S-12\].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(NonZeroU64);

impl Ttl {
    /// The shortest length: one millisecond.
    pub const MIN: Self = Self(NonZeroU64::MIN);
    /// The longest length accepted: ten years.
    pub const MAX: Duration = Duration::from_hours(10 * 365 * 24);

    /// `length` in milliseconds, rounded down, capped at [`Ttl::MAX`]; `None` when nothing is left.
    pub fn new(length: Duration) -> Option<Self> {
        let millis = u64::try_from(length.min(Self::MAX).as_millis()).ok()?;
        NonZeroU64::new(millis).map(Self)
    }

    /// A length of `secs` seconds, for defaults; zero is taken as one.
    pub(crate) const fn from_secs_const(secs: u32) -> Self {
        match NonZeroU64::new(secs as u64 * 1000) {
            Some(millis) => Self(millis),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// What is left from `now` to `deadline`; `None` when the deadline has come.
    pub fn until(deadline: Timestamp, now: Timestamp) -> Option<Self> {
        Self::new(deadline.since(now))
    }

    /// Milliseconds, at least 1.
    pub const fn as_millis(self) -> u64 {
        self.0.get()
    }

    /// Whole seconds, rounded **up**, for drivers that know no milliseconds.
    pub const fn as_secs_ceil(self) -> u64 {
        self.0.get().div_ceil(1000)
    }

    /// The same length as a `Duration`.
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0.get())
    }
}

impl fmt::Debug for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_round_down_and_stay_in_range() {
        assert_eq!(Timestamp::from_epoch(Duration::from_micros(1_999)).as_millis(), 1);
        assert_eq!(Timestamp::from_millis(-1), Timestamp::EPOCH);
        assert_eq!(Timestamp::from_millis(i64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::MAX.plus(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::EPOCH.minus(Duration::MAX), Timestamp::EPOCH);
    }

    #[test]
    fn no_time_left_is_no_ttl() {
        let now = Timestamp::from_millis(1_000);
        assert_eq!(Ttl::until(now, now), None);
        assert_eq!(Ttl::until(Timestamp::EPOCH, now), None);
        assert_eq!(Ttl::new(Duration::from_micros(999)), None);
        assert_eq!(Ttl::new(Duration::MAX).map(Ttl::as_duration), Some(Ttl::MAX));
    }

    #[test]
    fn seconds_round_up() {
        let ttl = Ttl::new(Duration::from_millis(1_001)).unwrap();
        assert_eq!((ttl.as_millis(), ttl.as_secs_ceil()), (1_001, 2));
    }
}
