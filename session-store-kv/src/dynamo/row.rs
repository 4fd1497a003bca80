//! Items to records and back. Every item names its kind and the version of its format.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use session_store_core::{Error, Result, SecretHash, Timestamp, UserId};

use super::error::{NAME, corrupt};
use super::key::Key;

/// One item, as the SDK has it.
pub(super) type Item = HashMap<String, AttributeValue>;

/// The format of the items that this version writes and reads.
pub(super) const FORMAT: u32 = 1;

pub(super) fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(super) fn number<T: Copy + ToString>(number: T) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(super) fn bytes(bytes: &[u8]) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

/// The attribute that DynamoDB's own removal looks at, in seconds.
pub(super) fn garbage(at: Timestamp, after: Duration) -> AttributeValue {
    number(at.plus(after).as_millis() / 1000)
}

/// The beginning of an item: its key, its kind, its format.
pub(super) fn item(key: Key, kind: &str) -> Item {
    let mut item = key.into_item();
    item.insert("k".to_owned(), text(kind));
    item.insert("v".to_owned(), number(FORMAT));
    item
}

/// What an item takes, names included, as DynamoDB reckons; a little more rather than less.
pub(super) fn size(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + value_size(value)).sum()
}

fn value_size(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(digits) => digits.len() / 2 + 2,
        AttributeValue::B(blob) => blob.as_ref().len(),
        AttributeValue::Ss(texts) => 3 + texts.iter().map(|text| 1 + text.len()).sum::<usize>(),
        AttributeValue::L(values) => {
            3 + values.iter().map(|one| 1 + value_size(one)).sum::<usize>()
        }
        _ => 1,
    }
}

/// A reader of one item. What can't be read is `Corrupt`; another format is `SchemaMismatch`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a>(&'a Item);

impl<'a> Row<'a> {
    pub(super) fn of(item: &'a Item) -> Result<Self> {
        let row = Self(item);
        match row.number::<u32>("v")? {
            FORMAT => Ok(row),
            other => {
                let what = format!(
                    "an item of format {other} was found, this version reads {FORMAT}; let every \
                     node run the same version"
                );
                Err(Error::schema(NAME, what))
            }
        }
    }

    pub(super) fn text(self, name: &str) -> Result<&'a str> {
        self.maybe_text(name)?.ok_or_else(corrupt)
    }

    pub(super) fn maybe_text(self, name: &str) -> Result<Option<&'a str>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(AttributeValue::S(text)) => Ok(Some(text)),
            Some(_) => Err(corrupt()),
        }
    }

    pub(super) fn number<T: std::str::FromStr>(self, name: &str) -> Result<T> {
        self.maybe_number(name)?.ok_or_else(corrupt)
    }

    pub(super) fn maybe_number<T: std::str::FromStr>(self, name: &str) -> Result<Option<T>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(AttributeValue::N(digits)) => digits.parse().map(Some).map_err(|_| corrupt()),
            Some(_) => Err(corrupt()),
        }
    }

    pub(super) fn time(self, name: &str) -> Result<Timestamp> {
        self.number(name).map(Timestamp::from_millis)
    }

    pub(super) fn maybe_time(self, name: &str) -> Result<Option<Timestamp>> {
        Ok(self.maybe_number(name)?.map(Timestamp::from_millis))
    }

    pub(super) fn flag(self, name: &str) -> Result<bool> {
        match self.0.get(name) {
            Some(AttributeValue::Bool(flag)) => Ok(*flag),
            _ => Err(corrupt()),
        }
    }

    pub(super) fn blob(self, name: &str) -> Result<&'a [u8]> {
        match self.0.get(name) {
            Some(AttributeValue::B(blob)) => Ok(blob.as_ref()),
            _ => Err(corrupt()),
        }
    }

    pub(super) fn texts(self, name: &str) -> Result<Vec<&'a str>> {
        match self.0.get(name) {
            Some(AttributeValue::L(values)) => values
                .iter()
                .map(|value| value.as_s().map(String::as_str).map_err(|_| corrupt()))
                .collect(),
            _ => Err(corrupt()),
        }
    }

    /// The texts of a set, in no order; none where there is no set.
    pub(super) fn set(self, name: &str) -> Result<&'a [String]> {
        match self.0.get(name) {
            None => Ok(&[]),
            Some(AttributeValue::Ss(texts)) => Ok(texts),
            Some(_) => Err(corrupt()),
        }
    }

    pub(super) fn has(self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn hash(self, name: &str) -> Result<SecretHash> {
        let bytes = self.blob(name)?.try_into().map_err(|_| corrupt())?;
        Ok(SecretHash::from_bytes(bytes))
    }

    pub(super) fn user(self, name: &str) -> Result<Option<UserId>> {
        self.maybe_text(name)?.map(UserId::new).transpose().map_err(|_| corrupt())
    }
}
