//! Nothing secret leaves: not into the file, not into the cache, not into logs, errors or `Debug`.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use session_store::memory::{MemoryCache, MemoryCacheConfig};
use session_store::sqlite::{SqliteConfig, SqliteStore};
use session_store::{
    CacheKey, Json, Layered, LayeredConfig, Login, Policy, Record, RotationOutcome, SecondaryStore,
    Sessions, SwapTtl, Token, Topology, User, UserId, tokio_host,
};

/// Everything that was written to the log.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test]
async fn nothing_secret_leaves() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing_subscriber::util::SubscriberInitExt::set_default(subscriber);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.db");
    let host = tokio_host();
    let cache = MemoryCache::new(&MemoryCacheConfig::default(), host.clock.clone());
    let mut config = LayeredConfig::default();
    config.topology = Topology::SingleProcess;
    let truth = SqliteStore::open(&SqliteConfig::new(&path)).unwrap();
    let store = Layered::new(truth, cache.clone(), config, host);
    let app = Sessions::new(store.unwrap(), Policy::default()).unwrap();
    let ada = UserId::new("ada").unwrap();
    app.register_user(&User::new(ada.clone(), app.now())).await.unwrap();
    let account = app.find_user(&ada).await.unwrap().unwrap();
    let first = app.create(Login::of(&account)).await.unwrap();
    let live = app.authenticate(&first.token).await;
    let RotationOutcome::Rotated { token: second, snapshot, .. } =
        app.rotate(&first.token).await.unwrap()
    else {
        panic!("not rotated")
    };
    let again = app.authenticate(&second).await;
    let thief = Token::for_session(second.id()).unwrap();
    let refused = app.authenticate(&thief).await;
    let key = CacheKey::new(format!("ss:1:{}", second.id())).unwrap();
    let record = cache.get(&key).await.unwrap().expect("the session is cached");
    // Garbage makes the log speak.
    let garbage = Record::new(second.expose().as_bytes());
    assert!(cache.swap(&key, &record, Some(&garbage), SwapTtl::Keep).await.unwrap());
    let degraded = app.authenticate(&second).await;
    let printed = format!(
        "{first:?} {live:?} {again:?} {refused:?} {degraded:?} {snapshot:?} {app:?} {}",
        errors(&second, folder.path())
    );

    let mut places = vec![printed.into_bytes(), record.as_bytes().to_vec()];
    places.push(log.0.lock().unwrap_or_else(PoisonError::into_inner).clone());
    for ending in ["", "-wal"] {
        places.push(std::fs::read(format!("{}{ending}", path.display())).unwrap());
    }
    assert!(holds(&places[2], b"cache record"), "the log said nothing");
    assert!(
        places.iter().any(|place| holds(place, second.id().as_bytes())),
        "nothing was searched"
    );
    for text in [first.token.expose(), second.expose()] {
        for place in &places {
            assert!(!holds(place, text.as_bytes()), "a token leaked");
            assert!(!holds(place, &text.as_bytes()[22..]), "a secret leaked as text");
            assert!(!holds(place, &raw_secret(&text)), "a secret leaked as bytes");
        }
    }
}

/// Errors that bad input with a token in it causes, as they print.
fn errors(token: &Token, folder: &std::path::Path) -> String {
    let text = token.expose().to_string();
    let data = Json::parse(format!("{text:?}")).unwrap();
    let errors = [
        data.read::<u8>().unwrap_err(),
        UserId::new(format!("{text}\0")).unwrap_err(),
        SqliteStore::open(&SqliteConfig::new(folder)).unwrap_err(),
    ];
    errors.map(|error| format!("{error} {error:?}")).concat()
}

/// The last 32 bytes behind 64 characters of base64url.
fn raw_secret(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let value = |c: u8| alphabet.iter().position(|known| *known == c).unwrap();
    let mut bytes = Vec::new();
    for four in text.as_bytes().chunks(4) {
        let bits = four.iter().fold(0, |bits, c| bits << 6 | value(*c));
        bytes.extend_from_slice(&u32::try_from(bits).unwrap().to_be_bytes()[1..]);
    }
    bytes.split_off(16)
}
