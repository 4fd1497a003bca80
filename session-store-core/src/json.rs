//! A JSON document of the application, checked once at the edge.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, Serialize};

use crate::error::{Error, ErrorKind, Result};

const MAX_DEPTH: usize = 64;

/// A valid JSON document, kept as the text that was given.
///
/// Accepted is what every back end stores faithfully: no NUL and no lone surrogate in a string, no
/// key twice in one object, at most 64 levels deep. `Debug` shows the length and not the content,
/// since applications put personal data here.
///
/// # Contract
/// - NUL characters and lone surrogates are `InvalidInput` \[P-91\].
#[derive(Clone, PartialEq, Eq)]
pub struct Json(Box<str>);

impl Json {
    /// Checks `text`; `InvalidInput` when it is not JSON or can't be stored everywhere.
    pub fn parse(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        let mut reader = serde_json::Deserializer::from_str(&text);
        Check { depth: 0 }
            .deserialize(&mut reader)
            .and_then(|()| reader.end())
            .map_err(|error| Error::invalid("core", "JSON document").caused_by(error))?;
        Ok(Self(text.into_boxed_str()))
    }

    /// The document that `value` serializes to.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        let text = serde_json::to_string(value)
            .map_err(|error| Error::invalid("core", "value for JSON").caused_by(error))?;
        Self::parse(text)
    }

    /// Reads the document as a `T`; `Corrupt` when it has another shape.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.0)
            .map_err(|error| Error::new(ErrorKind::Corrupt, "core").caused_by(error))
    }

    /// A document that was checked before it was stored, by this process or another one.
    ///
    /// For adapters and records: reading back costs no second check.
    pub fn trusted(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The document as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Json {
    /// The empty object `{}`.
    fn default() -> Self {
        Self("{}".into())
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({} bytes)", self.0.len())
    }
}

/// Walks a document without building it.
#[derive(Clone, Copy)]
struct Check {
    depth: usize,
}

impl Check {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom("nested too deeply"));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Check {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        if text.contains('\0') { Err(E::custom("NUL character in a string")) } else { Ok(()) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut keys = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            self.visit_str(&key)?;
            if !keys.insert(key) {
                return Err(A::Error::custom("a key stands twice in one object"));
            }
            entries.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_kept() {
        let text = r#" {"b": [1, 2.50, null], "a": "é\u2028"} "#;
        assert_eq!(Json::parse(text).unwrap().as_str(), text);
    }

    #[test]
    fn what_a_back_end_could_not_keep_is_refused() {
        let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
        for wrong in [
            "",
            "{",
            "{} {}",
            "\"\\u0000\"",
            "{\"\\u0000\":1}",
            "\"\\ud800\"",
            "{\"a\":1,\"a\":2}",
            &deep,
        ] {
            let error = Json::parse(wrong).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{wrong:?}");
        }
    }

    #[test]
    fn values_go_in_and_come_out() {
        let json = Json::of(&vec![1, 2]).unwrap();
        assert_eq!(json.read::<Vec<u8>>().unwrap(), [1, 2]);
        assert_eq!(json.read::<String>().unwrap_err().kind(), &ErrorKind::Corrupt);
    }
}
