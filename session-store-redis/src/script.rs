//! The two scripts that make a key linearizable. Each touches one key.

/// A script, and the SHA-1 of its text by which a server knows it.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) text: &'static str,
    pub(crate) sha1: &'static str,
}

/// Puts a lease at an absent key.
///
/// `ARGV`: `L` and a nonce; the TTL in ms. The time of the server is added to the token **where the
/// lease is applied**, so that a delayed copy of the request makes another lease. Answers with the
/// token in a list, or with what is there as a string.
pub(crate) const RESERVE: Script = Script {
    text: "local v = redis.call('GET', KEYS[1]) \
           if v then return v end \
           local t = redis.call('TIME') \
           local n = ARGV[1] .. t[1] .. string.format('%06d', t[2]) \
           redis.call('SET', KEYS[1], n, 'PX', ARGV[2]) \
           return {n}",
    sha1: "f6f25d8a93bbcd51c04305fade2ad168f1386c40",
};

/// Replaces exactly one record.
///
/// `ARGV`: what is expected; what replaces it, empty to delete; the TTL in ms, 0 to keep it. Answers
/// with 1, or 0 when something else was there.
pub(crate) const SWAP: Script = Script {
    text: "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
           if ARGV[2] == '' then redis.call('DEL', KEYS[1]) \
           elseif ARGV[3] == '0' then redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL') \
           else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end \
           return 1",
    sha1: "42730660a6d0f5d263a67e5fd76da2ce4fd61b99",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_texts() {
        for script in [RESERVE, SWAP] {
            assert_eq!(sha1_smol::Sha1::from(script.text).digest().to_string(), script.sha1);
        }
    }
}
