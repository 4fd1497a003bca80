//! What stands between SDK and server, notes every call, and does what no emulator does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// What becomes of a call.
#[derive(Clone, Debug)]
pub(crate) enum Mischief {
    /// Refused with this code; nothing is done.
    Refuse(&'static str),
    /// A transaction is cancelled for the reason of this code, which its last step has.
    Cancel(&'static str),
    /// Nothing; the next plan is for the call after it.
    Pass,
    /// Waits for a permit before it is sent.
    Wait(Arc<Semaphore>),
    /// Half of a batch is done and the rest handed back.
    Half,
    /// It is done, and nobody is told.
    LoseReply,
    /// It is done, and the answer never comes.
    Hang,
}

/// One call as the server got it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) action: String,
    pub(crate) body: Value,
    /// How often the SDK has sent it before, as it tells the server.
    pub(crate) repetition: u32,
}

/// Another transaction is at the same item.
pub(crate) const CONFLICT: Mischief = Mischief::Cancel("TransactionConflict");

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    plans: VecDeque<(&'static str, Mischief)>,
}

/// The wire of one client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire(Arc<Mutex<State>>);

impl Wire {
    /// The next `count` calls of `action` come to grief.
    pub(crate) fn plan(&self, action: &'static str, mischief: &Mischief, count: usize) {
        let plans = std::iter::repeat_n((action, mischief.clone()), count);
        self.0.lock().plans.extend(plans);
    }

    /// The calls of `action` so far.
    pub(crate) fn calls(&self, action: &str) -> Vec<Call> {
        let state = self.0.lock();
        state.calls.iter().filter(|call| call.action == action).cloned().collect()
    }

    /// Every call so far.
    pub(crate) fn all(&self) -> Vec<Call> {
        self.0.lock().calls.clone()
    }

    /// Forgets the calls so far.
    pub(crate) fn reset(&self) {
        self.0.lock().calls.clear();
    }

    /// Every planned mischief has been done.
    pub(crate) fn is_at_peace(&self) -> bool {
        self.0.lock().plans.is_empty()
    }

    /// An HTTP client on this wire.
    pub(crate) fn client(&self) -> SharedHttpClient {
        let inner = aws_smithy_http_client::Builder::new().build_http();
        SharedHttpClient::new(Bent { inner, wire: self.clone() })
    }

    fn meet(&self, request: &HttpRequest) -> (Call, Option<Mischief>) {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let action = target.rsplit('.').next().unwrap_or_default().to_owned();
        let body = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        // `attempt=2; max=3`
        let attempt = request.headers().get("amz-sdk-request").unwrap_or_default();
        let attempt = attempt.split(';').find_map(|part| part.trim().strip_prefix("attempt="));
        let repetition = attempt.map_or(0, |attempt| attempt.parse::<u32>().unwrap() - 1);
        let call = Call { action, body, repetition };
        check(&call);
        let mut state = self.0.lock();
        state.calls.push(call.clone());
        let place = state.plans.iter().position(|(action, _)| *action == call.action);
        let mischief = place.and_then(|place| state.plans.remove(place)).map(|(_, plan)| plan);
        (call, mischief)
    }
}

/// What no emulator minds: a call that no role may make, a write that the SDK repeats, a read that is not consistent, an item that is named twice in a batch or a
/// transaction, and names or values that no expression mentions.
fn check(call: &Call) {
    let body = &call.body;
    assert!(crate::rights::is_allowed_to_somebody(call), "no policy allows {}", call.action);
    // The SDK forgets that an answer was lost; who asks must not.
    let may_repeat = matches!(call.action.as_str(), "BatchGetItem" | "TransactGetItems")
        || call.action.starts_with("Describe");
    let is_read = matches!(call.action.as_str(), "GetItem" | "Query" | "Scan");
    assert!(is_read || may_repeat || call.repetition == 0, "the SDK repeats {}", call.action);
    assert!(!is_read || body["ConsistentRead"] == true, "a read that may be behind: {body}");
    for index in ["IndexName", "GlobalSecondaryIndexes", "LocalSecondaryIndexes"] {
        assert!(body[index].is_null(), "an index may be behind: {body}");
    }
    let mut keys = Vec::new();
    let mut note = |table: &Value, item: &Value| {
        keys.push((table.to_string(), item["pk"].to_string(), item["sk"].to_string()));
    };
    for step in body["TransactItems"].as_array().into_iter().flatten() {
        let step = step.as_object().unwrap().values().next().unwrap();
        note(&step["TableName"], step.get("Key").unwrap_or(&step["Item"]));
        check_expressions(step);
    }
    for (table, batch) in body["RequestItems"].as_object().into_iter().flatten() {
        for request in batch.as_array().into_iter().flatten() {
            note(&json!(table), &request["DeleteRequest"]["Key"]);
        }
        for key in batch["Keys"].as_array().into_iter().flatten() {
            assert_eq!(batch["ConsistentRead"], true, "reads that may be behind: {body}");
            note(&json!(table), key);
        }
    }
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), count, "an item is named twice: {body}");
    check_expressions(body);
}

fn check_expressions(call: &Value) {
    let texts: String = [
        "ConditionExpression",
        "UpdateExpression",
        "KeyConditionExpression",
        "ProjectionExpression",
    ]
    .iter()
    .filter_map(|name| call[*name].as_str())
    .flat_map(|text| [text, " "])
    .collect();
    let words: Vec<_> = texts.split(|c: char| !c.is_alphanumeric() && !"#:_".contains(c)).collect();
    for given in ["ExpressionAttributeNames", "ExpressionAttributeValues"] {
        for name in call[given].as_object().into_iter().flat_map(|given| given.keys()) {
            assert!(words.contains(&name.as_str()), "{name} is not mentioned: {call}");
        }
    }
}

#[derive(Debug)]
struct Bent {
    inner: SharedHttpClient,
    wire: Wire,
}

impl HttpClient for Bent {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(Line { inner, wire: self.wire.clone() })
    }
}

#[derive(Debug)]
struct Line {
    inner: SharedHttpConnector,
    wire: Wire,
}

impl HttpConnector for Line {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (call, mischief) = self.wire.meet(&request);
        let inner = self.inner.clone();
        HttpConnectorFuture::new(async move {
            match mischief {
                None | Some(Mischief::Pass) => inner.call(request).await,
                Some(Mischief::Wait(permits)) => {
                    permits.acquire().await.unwrap().forget();
                    inner.call(request).await
                }
                Some(Mischief::Refuse(code)) => Ok(refusal(&json!({
                    "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"),
                    "message": "told to",
                }))),
                Some(Mischief::Cancel(code)) => {
                    let count = call.body["TransactItems"].as_array().unwrap().len();
                    let mut reasons = vec![json!({"Code": "None"}); count];
                    reasons[count - 1] = json!({"Code": code, "Message": "told to"});
                    Ok(refusal(&json!({
                        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
                        "Message": "Transaction cancelled",
                        "CancellationReasons": reasons,
                    })))
                }
                Some(Mischief::Half) => half(&inner, request, &call).await,
                Some(Mischief::LoseReply) => {
                    inner.call(request).await?;
                    Err(ConnectorError::io("connection reset by peer".into()))
                }
                Some(Mischief::Hang) => {
                    inner.call(request).await?;
                    tokio::time::sleep(Duration::from_hours(1)).await;
                    Err(ConnectorError::io("gone".into()))
                }
            }
        })
    }
}

fn refusal(body: &Value) -> HttpResponse {
    let is_servers = body["__type"].as_str().unwrap().ends_with("ServerError");
    let status: u16 = if is_servers { 500 } else { 400 };
    HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body.to_string()))
}

/// Sends the first half of a batch and hands back the rest.
async fn half(
    inner: &SharedHttpConnector,
    mut request: HttpRequest,
    call: &Call,
) -> Result<HttpResponse, ConnectorError> {
    let (table, batch) = call.body["RequestItems"].as_object().unwrap().iter().next().unwrap();
    let reads = call.action == "BatchGetItem";
    let all = if reads { &batch["Keys"] } else { batch }.as_array().unwrap();
    let (now, rest) = all.split_at(all.len() / 2);
    let wrap = |part: &[Value]| {
        let mut batch = batch.clone();
        if reads {
            batch["Keys"] = json!(part);
        } else {
            batch = json!(part);
        }
        json!({ table: batch })
    };
    let mut answer = json!({});
    if !now.is_empty() {
        let mut body = call.body.clone();
        body["RequestItems"] = wrap(now);
        let body = body.to_string();
        request.headers_mut().insert("content-length", body.len().to_string());
        *request.body_mut() = SdkBody::from(body);
        let response = inner.call(request).await?;
        let bytes = ByteStream::new(response.into_body()).collect().await.unwrap().into_bytes();
        answer = serde_json::from_slice(&bytes).unwrap();
    }
    answer[if reads { "UnprocessedKeys" } else { "UnprocessedItems" }] = wrap(rest);
    Ok(HttpResponse::new(200.try_into().unwrap(), SdkBody::from(answer.to_string())))
}
