//! Passwords, by Argon2id with the parameters that OWASP asks for.

use argon2::{Algorithm, Argon2, Params, Version};
use session_store::{Error, ErrorKind, PasswordHash, Result};
use subtle::ConstantTimeEq;

const SALT: usize = 16;
const HASH: usize = 32;

/// Salt and hash, as they are stored.
pub(crate) fn hash(password: &str) -> Result<PasswordHash> {
    let mut salt = [0; SALT];
    getrandom::fill(&mut salt).map_err(|_| Error::new(ErrorKind::Unavailable, "random"))?;
    PasswordHash::new(format!("{}{}", hex(&salt), hex(&derived(password, &salt)?)))
}

/// Compares in constant time, and takes as long when there is nothing to compare with: nobody learns
/// which addresses are registered. A stored hash that can't be read is an error, and no wrong password.
pub(crate) fn is_right(password: &str, stored: Option<&PasswordHash>) -> Result<bool> {
    let Some(stored) = stored else {
        derived(password, &[0; SALT])?;
        return Ok(false);
    };
    let corrupt = || Error::new(ErrorKind::Corrupt, "password");
    let bytes = unhex(stored.expose()).ok_or_else(corrupt)?;
    let (salt, wanted) = bytes.split_at_checked(SALT).ok_or_else(corrupt)?;
    if wanted.len() != HASH {
        return Err(corrupt());
    }
    Ok(derived(password, salt)?.ct_eq(wanted).into())
}

fn derived(password: &str, salt: &[u8]) -> Result<[u8; HASH]> {
    let failed = |_| Error::invalid("argon2", "password");
    let params = Params::new(19_456, 2, 1, None).map_err(failed)?;
    let mut out = [0; HASH];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), salt, &mut out)
        .map_err(failed)?;
    Ok(out)
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let byte = |place| u8::from_str_radix(text.get(place..place + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_password_is_right_and_no_other() {
        let stored = hash("correct horse").unwrap();
        assert!(is_right("correct horse", Some(&stored)).unwrap());
        assert!(!is_right("battery staple", Some(&stored)).unwrap());
        assert!(!is_right("", None).unwrap());
        assert_ne!(hash("correct horse").unwrap().expose(), stored.expose());
    }

    #[test]
    fn a_hash_that_can_not_be_read_is_no_wrong_password() {
        let whole = hash("correct horse").unwrap();
        let whole = whole.expose();
        for damaged in ["x", "zz", &whole[..94], &format!("{whole}00"), "$argon2id$v=19"] {
            let stored = PasswordHash::new(damaged).unwrap();
            let error = is_right("correct horse", Some(&stored)).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Corrupt, "{damaged:?}");
        }
    }

    #[test]
    fn the_migration_is_that_of_the_library() {
        use session_store::kv::d1::{D1Config, D1Store};
        let file = include_str!("../migrations/0001_session_store.sql");
        assert_eq!(file, D1Store::migration_sql(&D1Config::default()).unwrap());
    }
}
