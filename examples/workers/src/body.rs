//! What clients send: a small JSON object.

use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use session_store::Email;
use worker::Request;

use crate::answer::{self, Refused};

/// Enough for an address and a very long password. More is not read, let alone hashed.
const LONGEST: usize = 4096;

/// The shortest password that may be chosen, in characters: NIST SP 800-63B-4 asks for 15 where nothing
/// but the password is asked for. With a second factor it would be 8.
const SHORTEST_PASSWORD: usize = 15;

/// What `/register` and `/login` take.
#[derive(Deserialize)]
pub(crate) struct Credentials {
    email: String,
    pub(crate) password: String,
    device: Option<String>,
}

impl Credentials {
    pub(crate) fn email(&self) -> Result<Email, Refused> {
        Email::parse(&self.email).map_err(|_| answer::NO_ADDRESS.into())
    }

    /// What the client calls itself. A long name is cut when it is stored.
    pub(crate) fn device(&self) -> Result<Option<String>, Refused> {
        if self.device.iter().flat_map(|name| name.chars()).any(char::is_control) {
            return Err(answer::STRANGE_DEVICE.into());
        }
        Ok(self.device.clone())
    }
}

/// What `/password` takes.
#[derive(Deserialize)]
pub(crate) struct NewPassword {
    pub(crate) password: String,
    pub(crate) new_password: String,
}

/// Refuses a password that nobody should choose.
pub(crate) fn check_password(chosen: &str) -> Result<(), Refused> {
    if chosen.chars().count() < SHORTEST_PASSWORD {
        return Err(answer::SHORT_PASSWORD.into());
    }
    Ok(())
}

/// The body as a `T`.
pub(crate) async fn read<T: DeserializeOwned>(request: &mut Request) -> Result<T, Refused> {
    let mut body = Vec::new();
    // Without a body there is no stream.
    if let Ok(mut stream) = request.stream() {
        while let Some(part) = stream.next().await {
            let part = part?;
            if body.len() + part.len() > LONGEST {
                return Err(answer::TOO_LARGE.into());
            }
            body.extend(part);
        }
    }
    serde_json::from_slice(&body).map_err(|_| answer::MALFORMED.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_counted_by_characters() {
        assert!(check_password("fourteen chars").is_err());
        assert!(check_password("fifteen chars !").is_ok());
        // Forty-two bytes.
        assert!(check_password(&"€".repeat(14)).is_err());
        assert!(check_password(&"€".repeat(15)).is_ok());
    }
}
