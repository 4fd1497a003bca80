//! Statements, and how a batch of them is run. What crosses the border to JavaScript and back is plain
//! data, so that nothing of it is held across threads.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use session_store_core::{Error, Result, SecretHash, SessionId, Timestamp, UserId};
use worker::d1::D1Database;
use worker::js_sys::{Array, JSON};
use worker::send::SendFuture;
use worker::wasm_bindgen::{JsCast, JsValue};
use worker::wasm_bindgen_futures::JsFuture;
use worker::worker_sys;

use super::error::{Asked, classify, corrupt, unanswered};

/// What is bound to a parameter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Integer(i64),
    Text(String),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Integer(number.cast_signed())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<bool> for Value {
    fn from(is_so: bool) -> Self {
        Self::Integer(is_so.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&UserId> for Value {
    fn from(id: &UserId) -> Self {
        id.as_str().into()
    }
}

impl From<&SessionId> for Value {
    fn from(id: &SessionId) -> Self {
        Self::Text(hex(id.as_bytes()))
    }
}

impl From<SecretHash> for Value {
    fn from(hash: SecretHash) -> Self {
        Self::Text(hex(hash.as_bytes()))
    }
}

impl From<Timestamp> for Value {
    fn from(time: Timestamp) -> Self {
        Self::Integer(time.as_millis())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl Value {
    fn to_js(&self) -> JsValue {
        match self {
            Self::Null => JsValue::NULL,
            #[expect(clippy::cast_precision_loss, reason = "times and counters are below 2^53")]
            Self::Integer(number) => JsValue::from_f64(*number as f64),
            Self::Text(text) => JsValue::from_str(text),
        }
    }
}

/// Bytes as the database holds them.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// A statement with its values.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    sql: String,
    values: Vec<Value>,
}

/// The rows that one statement has returned.
#[derive(Debug, Default)]
pub(crate) struct Rows(Vec<Json>);

impl Rows {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every row as a `T`.
    pub(crate) fn all<T: DeserializeOwned>(self) -> Result<Vec<T>> {
        let read = |row| serde_json::from_value(row).map_err(|cause| corrupt().caused_by(cause));
        self.0.into_iter().map(read).collect()
    }

    /// The first row, if there is one.
    pub(crate) fn first<T: DeserializeOwned>(mut self) -> Result<Option<T>> {
        self.0.truncate(1);
        Ok(self.all()?.pop())
    }

    /// The column `name` of every row.
    pub(crate) fn column<T: DeserializeOwned>(self, name: &str) -> Result<Vec<T>> {
        let cell = |mut row: Json| row.get_mut(name).map_or(Json::Null, Json::take);
        Self(self.0.into_iter().map(cell).collect()).all()
    }
}

/// The rows of a batch, statement by statement.
#[derive(Debug)]
pub(crate) struct Answers(std::vec::IntoIter<Rows>);

impl Answers {
    /// The rows of the next statement.
    pub(crate) fn next(&mut self) -> Rows {
        self.0.next().unwrap_or_default()
    }

    /// Passes over the rows of `count` statements.
    pub(crate) fn skip(&mut self, count: usize) {
        for _ in 0..count {
            self.next();
        }
    }
}

/// What D1 says of one statement: whether it was run, why not, and its rows.
type Answer = (bool, Option<String>, Option<Rows>);

/// The rows of every statement. A statement with an empty list of rows has found nothing, so one that
/// was not answered, or has no list, must not pass for it.
fn whole(asked: Asked, wanted: usize, answers: Vec<Answer>) -> Result<Answers> {
    let found = answers.len();
    if found != wanted {
        return Err(unanswered(asked, &format!("{found} answers to {wanted} statements")));
    }
    let rows = |(is_done, error, rows): Answer| match error {
        None if is_done => rows.ok_or_else(|| unanswered(asked, "success and no list of rows")),
        error => Err(unanswered(asked, error.as_deref().unwrap_or("no success and no error"))),
    };
    let rows: Vec<_> = answers.into_iter().map(rows).collect::<Result<_>>()?;
    Ok(Answers(rows.into_iter()))
}

/// A D1 database whose tables carry a prefix.
#[derive(Clone)]
pub(crate) struct Database {
    d1: Arc<D1Database>,
    prefix: Arc<str>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Database {
    pub(crate) fn new(d1: D1Database, prefix: &str) -> Self {
        Self { d1: Arc::new(d1), prefix: prefix.into() }
    }

    /// A statement of this database: `{p}` stands for the prefix.
    pub(crate) fn say(&self, template: &str, values: impl IntoIterator<Item = Value>) -> Statement {
        let sql = template.replace("{p}", &self.prefix);
        Statement { sql, values: values.into_iter().collect() }
    }

    pub(crate) async fn read(&self, batch: Vec<Statement>) -> Result<Answers> {
        self.run(Asked::Read, batch).await
    }

    pub(crate) async fn write(&self, batch: Vec<Statement>) -> Result<Answers> {
        self.run(Asked::Write, batch).await
    }

    /// Runs the batch: all of it, or nothing. An answer that is not whole is none.
    async fn run(&self, asked: Asked, batch: Vec<Statement>) -> Result<Answers> {
        let wanted = batch.len();
        let work = async { self.ask(batch).await.map_err(|e| classify(asked, &e)) };
        whole(asked, wanted, SendFuture::new(work).await?)
    }

    /// By the binding itself: [`D1Database::batch`] hands out an answer without rows as one that found
    /// none, and panics over one that says neither success nor error.
    async fn ask(&self, batch: Vec<Statement>) -> worker::Result<Vec<Answer>> {
        let bound = |statement: Statement| {
            let values: Vec<_> = statement.values.iter().map(Value::to_js).collect();
            let statement = self.d1.prepare(statement.sql).bind(&values)?;
            Ok(JsValue::from(statement.inner()))
        };
        let batch = batch.into_iter().map(bound).collect::<worker::Result<Array>>()?;
        let binding: &JsValue = (*self.d1).as_ref();
        let binding: &worker_sys::D1Database = binding.unchecked_ref();
        let answers = JsFuture::from(binding.batch(batch)?).await?;
        Array::from(&answers).iter().map(|answer| read(answer.unchecked_ref())).collect()
    }
}

fn read(answer: &worker_sys::D1Result) -> worker::Result<Answer> {
    let rows = match answer.results()? {
        None => None,
        Some(rows) => {
            let rows = String::from(JSON::stringify(&rows)?);
            Some(Rows(serde_json::from_str(&rows)?))
        }
    };
    Ok((answer.success()?, answer.error()?, rows))
}

/// A list of ids as one parameter, for `json_each`: D1 binds a hundred values at most.
pub(crate) fn list<'a>(ids: impl IntoIterator<Item = &'a SessionId>) -> Value {
    let ids: Vec<_> = ids.into_iter().map(|id| hex(id.as_bytes())).collect();
    Value::Text(Json::from(ids).to_string())
}

/// The ids in these texts.
pub(crate) fn ids(texts: &[String]) -> Result<Vec<SessionId>> {
    texts.iter().map(|text| id(text)).collect()
}

/// The id in this text.
pub(crate) fn id(text: &str) -> Result<SessionId, Error> {
    bytes(text).map(SessionId::from_bytes)
}

/// The bytes in this text.
pub(crate) fn bytes<const N: usize>(text: &str) -> Result<[u8; N], Error> {
    any_bytes(text).and_then(|found| found.try_into().ok()).ok_or_else(corrupt)
}

/// The bytes in this text, however many.
pub(crate) fn any_bytes(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?);
    text.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use session_store_core::ErrorKind;

    #[test]
    fn bytes_come_back_and_nothing_else_is_read() {
        let all: [u8; 16] = std::array::from_fn(|place| u8::try_from(place * 16 + place).unwrap());
        assert_eq!(hex(&all), "00112233445566778899aabbccddeeff");
        assert_eq!(bytes(&hex(&all)).unwrap(), all);
        for wrong in ["", "0", "0x112233445566778899aabbccddeeff", &"0".repeat(34), "+1"] {
            assert!(id(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_list_is_one_value() {
        let id = SessionId::from_bytes([10; 16]);
        let text = format!("[\"{0}\",\"{0}\"]", "0a".repeat(16));
        assert_eq!(list([&id, &id]), Value::Text(text));
    }

    #[test]
    fn an_answer_that_is_not_whole_is_an_error_and_no_absence() {
        let answer = |is_done, error: Option<&str>| {
            (is_done, error.map(str::to_owned), Some(Rows(vec![serde_json::json!({ "n": 1 })])))
        };
        let kind =
            |asked, wanted, answers| whole(asked, wanted, answers).unwrap_err().kind().clone();
        let (yes, no) = (|| answer(true, None), || answer(false, None));
        assert!(whole(Asked::Read, 2, vec![yes(), yes()]).unwrap().next().first::<Json>().is_ok());
        let empty = || (true, None, None);
        let three = vec![yes(), yes(), yes()];
        for few in [vec![], vec![yes()], three, vec![yes(), no()], vec![yes(), empty()]] {
            assert_eq!(kind(Asked::Read, 2, few), ErrorKind::Unavailable);
        }
        // Nobody knows what was written.
        assert_eq!(kind(Asked::Write, 1, vec![]), ErrorKind::Timeout);
        assert_eq!(kind(Asked::Write, 1, vec![no()]), ErrorKind::Timeout);
        let told = || vec![answer(true, Some("D1_ERROR: no such table: sessions"))];
        assert!(matches!(kind(Asked::Read, 1, told()), ErrorKind::SchemaMismatch { .. }));
        let guarded = || vec![answer(false, Some("CHECK constraint failed: guard_taken"))];
        assert_eq!(kind(Asked::Write, 1, guarded()), ErrorKind::Conflict);
    }

    #[test]
    fn a_row_of_another_shape_is_corrupt() {
        let rows = |json: Json| Rows(vec![json]);
        assert_eq!(rows(serde_json::json!({ "n": 1 })).column::<i64>("n").unwrap(), [1]);
        assert!(rows(serde_json::json!({ "n": "x" })).column::<i64>("n").is_err());
        assert!(rows(serde_json::json!({})).column::<i64>("n").is_err());
    }
}
