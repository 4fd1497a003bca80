//! Listing a page at a time, by position and never by offset.

use std::fmt;
use std::num::NonZeroU32;

use base64ct::{Base64UrlUnpadded, Encoding};

use crate::error::{Error, Result};
use crate::time::Timestamp;

/// Which part of a list to return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Start behind this position; `None` starts at the beginning.
    pub after: Option<Cursor>,
    /// At most this many items.
    pub limit: NonZeroU32,
}

impl Page {
    /// The first `limit` items; a limit of zero is taken as one.
    pub fn first(limit: u32) -> Self {
        Self { after: None, limit: NonZeroU32::new(limit).unwrap_or(NonZeroU32::MIN) }
    }

    /// The items behind `cursor`, as many as before.
    #[must_use]
    pub fn behind(&self, cursor: Cursor) -> Self {
        Self { after: Some(cursor), limit: self.limit }
    }
}

/// A part of a list, and where the next one starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    /// The items, in order.
    pub items: Vec<T>,
    /// The position behind the last item; `None` at the end of the list.
    pub next: Option<Cursor>,
}

/// A position in a list ordered by time and key. Printable, so that a web page can carry it; it
/// gives no access to anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The time of the item before the position.
    pub at: Timestamp,
    /// The key of the item before the position: the 16 bytes of a session's id, or the text of a
    /// user's.
    pub key: Vec<u8>,
}

impl Cursor {
    /// Reads what `Display` prints.
    ///
    /// # Contract
    /// - Anything else is `InvalidInput` \[P-68\].
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::invalid("core", "cursor");
        let bytes = Base64UrlUnpadded::decode_vec(text).map_err(|_| wrong())?;
        let (at, key) = bytes.split_first_chunk::<8>().ok_or_else(wrong)?;
        let millis = i64::from_be_bytes(*at);
        let at = Timestamp::from_millis(millis);
        if at.as_millis() != millis || key.is_empty() || key.len() > 255 {
            return Err(wrong());
        }
        Ok(Self { at, key: key.to_vec() })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.at.as_millis().to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.key);
        f.write_str(&Base64UrlUnpadded::encode_string(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_printing_and_nothing_else_parses() {
        let cursor = Cursor { at: Timestamp::from_millis(5), key: b"ada".to_vec() };
        assert_eq!(Cursor::parse(&cursor.to_string()).unwrap(), cursor);
        for wrong in ["", "A", "AAAAAAAAAAA", "../../etc", "________________"] {
            assert!(Cursor::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
