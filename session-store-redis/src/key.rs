//! Keys as Redis sees them, and where a Cluster keeps them.

use session_store_core::CacheKey;

/// How many slots a Cluster has.
pub(crate) const SLOTS: u16 = 16_384;

/// Makes a key of a prefix and a name. Different names with one prefix make different keys.
pub(crate) fn physical(prefix: &str, key: &CacheKey) -> Vec<u8> {
    beginning(prefix, key.as_str()).into_bytes()
}

/// The same for the beginning of a name.
///
/// A Cluster hashes only what stands between the first `{` and the next `}`, unless that is nothing.
/// Braces in a prefix would put all sessions on one node, so such keys begin with `{}`.
pub(crate) fn beginning(prefix: &str, name: &str) -> String {
    let tag = if prefix.contains('{') || name.contains('{') { "{}" } else { "" };
    format!("{tag}{prefix}{name}")
}

/// The slot of a key whose braces mean nothing, as those of [`physical`] do.
pub(crate) fn slot(key: &[u8]) -> u16 {
    let mut crc = 0_u16;
    for byte in key {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
    }
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot(b"123456789"), 0x31C3 % SLOTS);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b""), 0);
    }

    #[test]
    fn braces_never_make_a_hash_tag() {
        let key = |prefix: &str, name: &str| physical(prefix, &CacheKey::new(name).unwrap());
        assert_eq!(key("", "ss:1:a"), b"ss:1:a");
        assert_eq!(key("{app}", "a"), b"{}{app}a");
        assert_eq!(key("", "{}a"), b"{}{}a");
        assert_ne!(key("", "{}{a}"), key("", "{a}"));
    }
}
