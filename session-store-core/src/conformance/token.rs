//! Identity, input and errors: cases that need no server but hold for every adapter's user.

use std::collections::HashSet;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};

use super::checks;
use super::primary::PrimaryBench;
use super::report::{INVALID_INPUT, ensure, expect, refused};
use super::runner::Outcome;
use super::sample::{NOW, guest, id, new, session};
use crate::error::{Error, ErrorKind};
use crate::json::Json;
use crate::session::Session;
use crate::token::{SessionId, Token};

checks! { ($) primary_token: PrimaryBench;
    "P-08" impossible_ids_are_refused "Ids from the future or from long ago can't exist.",
    "P-91" nul_and_lone_surrogates_are_refused "NUL and lone surrogates are refused up front.",
    "P-108" kinds_say_what_to_do "Errors are told apart by kind, and only outages are retryable.",
    "T-01" tokens_are_unpredictable "Ten thousand tokens share no secret and no shape of one.",
    "T-02 X8-P-15" nothing_raw_is_stored "The store holds neither token nor secret, in any form.",
    "T-03" a_stored_hash_is_no_secret "A stored hash presented as a secret is another secret.",
    "T-06" only_the_canonical_form_parses "Every other spelling of a token is refused.",
    "T-08 P-69" nothing_secret_is_printed "Debug output shows neither token, secret nor hash.",
}

async fn impossible_ids_are_refused(_: &PrimaryBench) -> Outcome {
    let skew = Duration::from_mins(1);
    let made = |at| SessionId::generate(at);
    ensure(made(NOW)?.is_plausible(NOW, skew), "a fresh id is refused")?;
    let future = NOW.plus(Duration::from_mins(2));
    ensure(!made(future)?.is_plausible(NOW, skew), "an id from the future is accepted")?;
    let old = NOW.minus(SessionId::MAX_AGE + Duration::from_secs(1));
    ensure(!made(old)?.is_plausible(NOW, skew), "an id from long ago is accepted")
}

async fn nul_and_lone_surrogates_are_refused(_: &PrimaryBench) -> Outcome {
    let invalid = &INVALID_INPUT;
    for text in ["\"\\u0000\"", "\"\\ud800\"", "{\"\\u0000\":1}", "{\"a\":1,\"a\":2}"] {
        refused(Json::parse(text), invalid)?;
    }
    refused(crate::user::UserId::new("a\0b"), invalid)
}

async fn kinds_say_what_to_do(_: &PrimaryBench) -> Outcome {
    let is_retryable = |kind| Error::new(kind, "case").is_retryable();
    ensure(is_retryable(ErrorKind::Unavailable), "an outage is not retryable")?;
    ensure(is_retryable(ErrorKind::Timeout), "a timeout is not retryable")?;
    for kind in [ErrorKind::Conflict, ErrorKind::UnknownUser, ErrorKind::Corrupt] {
        ensure(!is_retryable(kind), "a retry would not help")?;
    }
    Ok(())
}

async fn tokens_are_unpredictable(_: &PrimaryBench) -> Outcome {
    let mut seen = HashSet::new();
    let mut counts = [0u32; 256];
    for _ in 0..10_000 {
        let token = Token::generate(NOW)?;
        let text = token.expose();
        for byte in text.as_bytes().iter().skip(22) {
            counts[usize::from(*byte)] += 1;
        }
        ensure(seen.insert(text.to_string()), "two tokens are equal")?;
    }
    // 42 characters of each, 64 symbols: 6562 of each symbol, give or take eight sigma.
    let used = counts.iter().filter(|count| **count > 0);
    ensure(used.clone().count() == 64, "some symbols never occur")?;
    ensure(used.clone().all(|count| (5_900..7_220).contains(count)), "symbols are not even")
}

async fn nothing_raw_is_stored(on: &PrimaryBench) -> Outcome {
    let token = Token::generate(NOW)?;
    let session = Session { id: token.id(), secret_hash: token.secret_hash(), ..guest(1) };
    on.store.insert(&new(session), NOW).await?;
    let Some(dump) = on.harness.dump(&on.namespace).await? else {
        on.weakness.note("no dump", Duration::ZERO);
        return Ok(());
    };
    let text = token.expose();
    let holds = |needle: &[u8]| dump.windows(needle.len()).any(|window| window == needle);
    ensure(holds(token.id().as_bytes()), "the dump does not even hold the id")?;
    ensure(!holds(text.as_bytes()), "the token is stored")?;
    ensure(!holds(&text.as_bytes()[22..]), "the secret's text is stored")?;
    let raw = Base64UrlUnpadded::decode_vec(&text).unwrap_or_default();
    ensure(raw.len() == 48 && !holds(&raw[16..]), "the secret's bytes are stored")
}

async fn a_stored_hash_is_no_secret(_: &PrimaryBench) -> Outcome {
    let token = Token::generate(NOW)?;
    let mut forged = token.id().as_bytes().to_vec();
    forged.extend_from_slice(token.secret_hash().as_bytes());
    let text = Base64UrlUnpadded::encode_string(&forged);
    let thief = Token::parse(&text);
    expect(thief.map(|thief| thief.secret_hash() == token.secret_hash()), Some(false))
}

async fn only_the_canonical_form_parses(_: &PrimaryBench) -> Outcome {
    let text = Token::generate(NOW)?.expose().to_string();
    ensure(Token::parse(&text).is_some(), "a token does not parse")?;
    let wrong = [
        format!("{text}="),
        format!(" {text}"),
        format!("{text}\n"),
        text[..63].to_owned(),
        format!("{}.x", &text[..62]),
        format!("{}%2d", &text[..61]),
        text.replacen(&text[..1], "+", 1),
        "\u{ff21}".repeat(64),
        String::new(),
    ];
    for text in wrong {
        ensure(Token::parse(&text).is_none(), "another spelling is accepted")?;
    }
    Ok(())
}

async fn nothing_secret_is_printed(on: &PrimaryBench) -> Outcome {
    on.register(1).await?;
    let token = Token::generate(NOW)?;
    let stored = Session { id: token.id(), secret_hash: token.secret_hash(), ..session(1, 1)? };
    on.store.insert(&new(stored), NOW).await?;
    let found = on.store.find(&token.id()).await?;
    let printed = format!("{token:?} {found:?} {:?}", on.store);
    ensure(!printed.contains(token.expose().as_str()), "a token is printed")?;
    let hash = format!("{:?}", token.secret_hash().as_bytes());
    ensure(!printed.contains(&hash[1..40]), "a hash is printed")?;
    ensure(printed.contains(&token.id().to_string()), "the id is not printed")?;
    expect(on.stored(id(9)).await?, None)
}
