//! Calls to DynamoDB: under a deadline, repeated where that is safe, and never beyond its limits.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{Builder, Config};
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{CancellationReason, TransactWriteItem};
use session_store_core::{Error, ErrorKind, Result};
use tokio::time::Instant;

use super::config::CallConfig;
use super::error::{Effect, Fault, classify, error, is_busy, kind_of, uncertain};

/// The first pause, doubled each time and spread at random.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// The client, one table, and how calls are made.
#[derive(Clone)]
pub(super) struct Calls {
    pub(super) client: Client,
    pub(super) table: Arc<str>,
    config: CallConfig,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All of it is done.
    Done,
    /// Nothing is done; which steps had a condition that does not hold.
    Refused(Vec<bool>),
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The client may show what it is configured with, credentials included.
        f.debug_struct("Calls").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Calls {
    pub(super) fn new(client: Client, table: &str, config: &CallConfig) -> Self {
        Self { client, table: table.into(), config: config.clone() }
    }

    pub(super) fn parallel(&self) -> usize {
        self.config.parallel
    }

    /// For reads: the SDK repeats them, each attempt in a part of the time.
    pub(super) fn repeatable(&self) -> Builder {
        let attempts = self.config.attempts;
        let retries = RetryConfig::standard()
            .with_max_attempts(attempts)
            .with_initial_backoff(Duration::from_millis(50));
        Config::builder().retry_config(retries).timeout_config(
            TimeoutConfig::builder()
                .operation_attempt_timeout(self.config.timeout / attempts)
                .build(),
        )
    }

    /// The answer to `call`, or `Timeout`.
    pub(super) async fn timed<T, E>(
        &self,
        effect: Effect,
        call: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, Fault>
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        match self.in_time(call).await? {
            Ok(answer) => Ok(answer),
            Err(failed) => Err(classify(effect, &failed)),
        }
    }

    /// The same, when the caller reads the refusal itself.
    pub(super) async fn in_time<T>(&self, call: impl Future<Output = T>) -> Result<T, Fault> {
        within(self.config.timeout, call).await
    }

    /// One attempt at a write, in its part of the time. The SDK must not repeat it, since it forgets
    /// that an answer was lost when the next is a refusal: `surely` does.
    pub(super) async fn attempt<T>(&self, call: impl Future<Output = T>) -> Result<T, Fault> {
        within(self.config.timeout / self.config.attempts, call).await
    }

    pub(super) fn pauses(&self) -> Pauses {
        Pauses { until: Instant::now() + self.config.patience, next: FIRST_PAUSE }
    }

    /// Makes `call` until it is not refused for being one too many.
    pub(super) async fn patiently<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut pauses = self.pauses();
        loop {
            match call().await {
                Ok(answer) => return Ok(answer),
                Err(Fault::Busy(busy)) => pauses.pause_for(busy).await?,
                Err(Fault::Failed(failed)) => return Err(failed),
            }
        }
    }

    /// The same for a write that may be repeated, also after an answer that was lost: from then on
    /// nobody knows that nothing was done, whatever becomes of the repetitions.
    pub(super) async fn surely<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut pauses = self.pauses();
        let mut lost = 0;
        loop {
            let waited = match call().await {
                Ok(answer) => return Ok(answer),
                Err(Fault::Busy(busy)) => pauses.pause_for(busy).await,
                Err(Fault::Failed(failed)) if *failed.kind() == ErrorKind::Timeout => {
                    lost += 1;
                    if lost < self.config.attempts {
                        pauses.pause_for(failed).await
                    } else {
                        Err(failed)
                    }
                }
                Err(Fault::Failed(failed)) => Err(failed),
            };
            waited.map_err(|failed| if lost > 0 { uncertain(failed) } else { failed })?;
        }
    }

    /// All steps, or none. Every repetition carries the same token, so that none after a lost answer is
    /// a second transaction, whatever came in between.
    pub(super) async fn transact(&self, steps: &[TransactWriteItem]) -> Result<Outcome> {
        let token = token()?;
        self.surely(|| async {
            let call = self.client.transact_write_items().client_request_token(&token);
            let call = call.set_transact_items(Some(steps.to_vec()));
            let call = call.customize().config_override(once()).send();
            let Err(failed) = self.attempt(call).await? else { return Ok(Outcome::Done) };
            let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) =
                failed.as_service_error()
            else {
                return Err(classify(Effect::Writes, &failed));
            };
            judge(&told(cancelled.cancellation_reasons()))
        })
        .await
    }
}

async fn within<T>(time: Duration, call: impl Future<Output = T>) -> Result<T, Fault> {
    let answer = tokio::time::timeout(time, Box::pin(call)).await;
    answer.map_err(|_| Fault::Failed(error(ErrorKind::Timeout)))
}

/// 32 random digits.
fn token() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|cause| error(ErrorKind::Unavailable).caused_by(cause))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// For calls that must reach the server at most once.
pub(super) fn once() -> Builder {
    Config::builder().retry_config(RetryConfig::disabled())
}

fn told(reasons: &[CancellationReason]) -> Vec<(&str, Option<&str>)> {
    let reasons = reasons.iter();
    reasons.map(|reason| (reason.code().unwrap_or_default(), reason.message())).collect()
}

/// Why a transaction that has no conditions was cancelled.
pub(super) fn why_cancelled(reasons: &[CancellationReason]) -> Fault {
    match judge(&told(reasons)) {
        Err(fault) => fault,
        Ok(_) => Fault::Failed(error(ErrorKind::Unavailable)),
    }
}

/// What the reasons of a cancelled transaction come to.
fn judge(reasons: &[(&str, Option<&str>)]) -> Result<Outcome, Fault> {
    let refused: Vec<bool> =
        reasons.iter().map(|(code, _)| *code == "ConditionalCheckFailed").collect();
    if refused.contains(&true) {
        return Ok(Outcome::Refused(refused));
    }
    if reasons.iter().any(|(code, _)| is_busy(code)) {
        return Err(Fault::Busy(error(ErrorKind::Unavailable)));
    }
    let named = reasons.iter().find(|(code, _)| !matches!(*code, "" | "None"));
    let (code, message) = named.copied().unwrap_or_default();
    Err(Fault::Failed(error(kind_of(code, message.unwrap_or_default(), None))))
}

/// A request that lacks a part; a defect of this file.
pub(super) fn unbuilt(cause: aws_sdk_dynamodb::error::BuildError) -> Error {
    error(ErrorKind::InvalidInput { what: "a request can't be built".into() }).caused_by(cause)
}

/// Pauses that grow and are spread, until patience is over.
#[derive(Debug)]
pub(super) struct Pauses {
    until: Instant,
    next: Duration,
}

impl Pauses {
    /// Waits, or is `Unavailable` when patience is over.
    pub(super) async fn pause(&mut self) -> Result<()> {
        self.pause_for(error(ErrorKind::Unavailable)).await
    }

    /// Waits, or fails with `reason` when patience is over.
    async fn pause_for(&mut self, reason: Error) -> Result<()> {
        let spread = getrandom::u32().unwrap_or(u32::MAX / 2);
        let pause = self.next.mul_f64(f64::from(spread) / f64::from(u32::MAX));
        if Instant::now() + pause > self.until {
            return Err(reason);
        }
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_weighs_more_than_a_conflict() {
        let refused = judge(&[("None", None), ("TransactionConflict", None)]);
        assert!(matches!(refused, Err(Fault::Busy(_))));
        let refused = judge(&[("ConditionalCheckFailed", None), ("TransactionConflict", None)]);
        assert_eq!(refused.unwrap(), Outcome::Refused(vec![true, false]));
        let large = judge(&[("ValidationError", Some("Item size has exceeded the maximum"))]);
        let large = large.map_err(Fault::into_error).unwrap_err();
        assert!(matches!(large.kind(), ErrorKind::TooLarge { .. }));
    }
}
