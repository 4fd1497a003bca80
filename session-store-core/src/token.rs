//! Identity: the public id of a session, the secret beside it, and the token that carries both.

use std::fmt;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};
use crate::time::Timestamp;

const ID_BYTES: usize = 16;
const SECRET_BYTES: usize = 32;
const TOKEN_BYTES: usize = ID_BYTES + SECRET_BYTES;
/// How many characters a token has.
const TOKEN_CHARS: usize = TOKEN_BYTES / 3 * 4;

/// The public name of a session: 48 bits of milliseconds, then 80 random bits.
///
/// It is primary key, cache key and the handle for "log out that device". It is no secret: it may
/// be listed, logged and put into a URL. It survives rotation. Printed as 32 lowercase hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId([u8; ID_BYTES]);

impl SessionId {
    /// How old an id may be before it is refused without asking a store: ten years.
    pub const MAX_AGE: Duration = Duration::from_hours(10 * 365 * 24);

    /// A new id, ordered by `now`; `Unavailable` when the operating system has no randomness.
    pub fn generate(now: Timestamp) -> Result<Self> {
        let mut bytes = [0; ID_BYTES];
        fill(&mut bytes[6..])?;
        bytes[..6].copy_from_slice(&now.as_millis().to_be_bytes()[2..]);
        Ok(Self(bytes))
    }

    /// The id whose bytes are these.
    pub const fn from_bytes(bytes: [u8; ID_BYTES]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes, as adapters store them.
    pub const fn as_bytes(&self) -> &[u8; ID_BYTES] {
        &self.0
    }

    /// Reads the 32 lowercase hex digits that `Display` prints; anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 2 * ID_BYTES {
            return None;
        }
        let mut bytes = [0; ID_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = hex(pair[0])? << 4 | hex(pair[1])?;
        }
        Some(Self(bytes))
    }

    /// When the id was generated, by the clock of the node that did it.
    pub fn generated_at(&self) -> Timestamp {
        let mut millis = [0; 8];
        millis[2..].copy_from_slice(&self.0[..6]);
        Timestamp::from_millis(i64::from_be_bytes(millis))
    }

    /// Whether an id of this time can exist at all: not younger than `now + max_skew`, not older
    /// than [`SessionId::MAX_AGE`].
    ///
    /// # Contract
    /// - Ids outside that range are refused before any store is asked \[P-08\].
    pub fn is_plausible(&self, now: Timestamp, max_skew: Duration) -> bool {
        let at = self.generated_at();
        at <= now.plus(max_skew) && at >= now.minus(Self::MAX_AGE)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn fill(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes)
        .map_err(|error| Error::new(ErrorKind::Unavailable, "core").caused_by(error))
}

/// What a client presents: the session id and a 256-bit secret, 64 characters of base64url.
///
/// There is one canonical form and nothing else is accepted. It has no `Display` and no
/// `Serialize`, `Debug` prints `Token(..)`, and its memory is overwritten on drop.
///
/// # Contract
/// - The secret has 256 bits from the operating system, or there is no token \[T-01\].
/// - No store holds a token or its secret \[T-02\].
/// - Only the canonical form parses \[T-06\].
/// - Formatting a token for debugging shows nothing of it \[T-08\].
pub struct Token {
    id: SessionId,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

impl Token {
    /// A token for a new session; `Unavailable` when the operating system has no randomness.
    pub fn generate(now: Timestamp) -> Result<Self> {
        Self::for_session(SessionId::generate(now)?)
    }

    /// A token with a new secret for the session `id`, as a rotation needs it.
    pub fn for_session(id: SessionId) -> Result<Self> {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        fill(secret.as_mut())?;
        Ok(Self { id, secret })
    }

    /// Reads the 64 characters that [`Token::expose`] returns; anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != TOKEN_CHARS {
            return None;
        }
        let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
        let decoded = Base64UrlUnpadded::decode(text, bytes.as_mut()).ok()?;
        let (id, secret) = decoded.split_first_chunk::<ID_BYTES>()?;
        let secret = Zeroizing::new(<[u8; SECRET_BYTES]>::try_from(secret).ok()?);
        Some(Self { id: SessionId(*id), secret })
    }

    /// The public id inside.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The 64 characters for the client. Whoever holds them is logged in.
    pub fn expose(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
        bytes[..ID_BYTES].copy_from_slice(&self.id.0);
        bytes[ID_BYTES..].copy_from_slice(self.secret.as_ref());
        Zeroizing::new(Base64UrlUnpadded::encode_string(bytes.as_ref()))
    }

    /// What stores keep of the secret.
    pub fn secret_hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.secret.as_ref()).into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// SHA-256 of a token's secret: the only thing at rest, compared in constant time.
///
/// A 256-bit random secret needs no slow hash.
///
/// # Contract
/// - A stored hash presented as a secret is refused \[T-03\].
#[derive(Clone, Copy)]
pub struct SecretHash([u8; SECRET_BYTES]);

impl SecretHash {
    /// The hash whose bytes are these.
    pub const fn from_bytes(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes, as adapters store them.
    pub const fn as_bytes(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }
}

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretHash {}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    #[test]
    fn an_id_may_be_ten_years_old() {
        assert_eq!(SessionId::MAX_AGE, Duration::from_hours(87_600));
    }

    #[test]
    fn a_token_survives_its_only_spelling() {
        let token = Token::generate(NOW).unwrap();
        let text = token.expose();
        assert_eq!(text.len(), TOKEN_CHARS);
        let again = Token::parse(&text).unwrap();
        assert_eq!((again.id(), again.secret_hash()), (token.id(), token.secret_hash()));
    }

    #[test]
    fn every_other_spelling_is_refused() {
        let text = Token::generate(NOW).unwrap().expose().to_string();
        for wrong in [
            String::new(),
            format!("{text}="),
            format!(" {}", &text[1..]),
            format!("{}.", &text[..63]),
            text.replace(|c: char| c.is_ascii_alphanumeric(), "+"),
            text[..63].to_owned(),
            format!("{text}{text}"),
            "\u{ff11}".repeat(64),
        ] {
            assert!(Token::parse(&wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn the_hash_is_sha_256_of_the_decoded_secret() {
        let zeros = Token::parse(&"A".repeat(TOKEN_CHARS)).unwrap();
        assert_eq!(zeros.secret_hash().as_bytes()[..4], [0x66, 0x68, 0x7a, 0xad]);
    }

    #[test]
    fn ids_print_as_hex_and_parse_back() {
        let id = SessionId::generate(NOW).unwrap();
        assert_eq!(SessionId::parse(&id.to_string()), Some(id));
        assert_eq!(SessionId::parse(&id.to_string().to_uppercase()), None);
        assert_eq!(SessionId::parse("00"), None);
        assert_eq!(id.generated_at(), NOW);
    }

    #[test]
    fn ids_from_the_future_and_from_long_ago_are_implausible() {
        let skew = Duration::from_mins(1);
        let id = |at| SessionId::generate(at).unwrap();
        assert!(id(NOW.plus(skew)).is_plausible(NOW, skew));
        assert!(!id(NOW.plus(skew).plus(Duration::from_millis(1))).is_plausible(NOW, skew));
        assert!(!id(Timestamp::EPOCH).is_plausible(NOW, skew));
    }

    #[test]
    fn nothing_of_a_token_is_printed() {
        let token = Token::generate(NOW).unwrap();
        assert_eq!(format!("{token:?}"), "Token(..)");
        assert_eq!(format!("{:?}", token.secret_hash()), "SecretHash(..)");
    }
}
