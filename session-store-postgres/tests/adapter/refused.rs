//! What is wrong, in words that say what to mend, and without the password.

use std::time::Duration;

use session_store_core::PrimaryStore;
use session_store_core::{Error, ErrorKind, User};
use session_store_postgres::{Access, ExistingUsers, IdType, PostgresConfig, PostgresStore, Users};

use crate::fixture::{NOW, address, server, store, user};

async fn refusal(config: &PostgresConfig) -> Error {
    PostgresStore::connect(config).await.unwrap_err()
}

/// Every text of an error and of what caused it.
fn all_texts(error: &Error) -> String {
    let mut texts = format!("{error}\n{error:?}");
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        texts = format!("{texts}\n{source}\n{source:?}");
        next = source.source();
    }
    texts
}

/// What an address is refused with: nothing of it in the clear.
async fn said_of(url: &str) -> (Error, String) {
    let mut config = PostgresConfig::new(url);
    config.connect_timeout = Duration::from_secs(20);
    let error = refusal(&config).await;
    let texts = all_texts(&error);
    let shown = format!("{texts} {config:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    (error, texts)
}

#[tokio::test]
async fn what_is_wrong_with_an_address_is_named_without_the_password() {
    let host = address().split_once('@').unwrap().1.split('/').next().unwrap().to_owned();
    for (url, words) in [
        (format!("{host}/no_such_database"), &["no such database", "no_such_database"][..]),
        (format!("{host}/postgres?sslmode=require"), &["TLS", "sslmode", "tls features"]),
        (format!("{host}/postgres?sslmode=perhaps"), &["URL can't be read"]),
        ("127.0.0.1:port/postgres".to_owned(), &["URL can't be read"]),
    ] {
        let (error, texts) = said_of(&format!("postgres://postgres:hunter2@{url}")).await;
        let ErrorKind::Configuration { what } = error.kind() else { panic!("{url}: {texts}") };
        assert!(words.iter().all(|word| what.contains(word)), "{url}: {what}");
    }
    let (error, texts) = said_of(&format!("postgres://nobody_here:hunter2@{host}/postgres")).await;
    let is_named = matches!(error.kind(), ErrorKind::Configuration { what }
        if what.contains("user or the password"));
    assert!(is_named && texts.contains("nobody_here"), "{texts}");
    let (error, texts) = said_of("no address at all, hunter2").await;
    assert!(matches!(error.kind(), ErrorKind::Configuration { .. }), "{texts}");
    // Nobody listens there: it may pass, and the source says what it was.
    let (error, texts) = said_of("postgres://postgres:hunter2@127.0.0.1:1/postgres").await;
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(error.kind(), &ErrorKind::Unavailable, "{texts}");
    assert!(cause.contains("refused"), "{texts}");
}

#[tokio::test]
async fn a_schema_that_is_missing_or_newer_is_refused_with_what_to_do() {
    let on = server();
    let mut missing = on.config("never_made");
    missing.access = Access::Ready;
    let error = refusal(&missing).await;
    let is_named = matches!(error.kind(), ErrorKind::SchemaMismatch { what }
        if what.contains("Access::Migrate"));
    assert!(is_named, "{error}");
    store(&on, "newer").await;
    let schema = on.schema("newer");
    on.run(format!("UPDATE {schema}.session_schema SET version = 99")).await.unwrap();
    for access in [Access::Migrate, Access::Ready] {
        let mut config = on.config("newer");
        config.access = access;
        let error = refusal(&config).await;
        let is_named = matches!(error.kind(), ErrorKind::SchemaMismatch { what }
            if what.contains("version 99") && what.contains("update this program"));
        assert!(is_named, "{error}");
    }
}

/// Puts a name into a setting.
type Set = Box<dyn Fn(&mut PostgresConfig, &str)>;

#[tokio::test]
async fn a_name_that_is_none_is_refused_by_setting_and_value() {
    let evil = "people\"; DROP TABLE users; --";
    let own = |change: fn(&mut ExistingUsers, &str)| {
        move |config: &mut PostgresConfig, name: &str| {
            let mut people = ExistingUsers::new("people", "id", IdType::Text);
            change(&mut people, name);
            config.users = Users::Existing(people);
        }
    };
    let settings: [(&str, Set); 7] = [
        ("schema", Box::new(|config, name| config.schema = Some(name.to_owned()))),
        ("table_prefix", Box::new(|config, name| config.table_prefix = name.to_owned())),
        ("users table", Box::new(own(|people, name| people.table = name.to_owned()))),
        ("id_column", Box::new(own(|people, name| people.id_column = name.to_owned()))),
        ("email_column", Box::new(own(|people, name| people.email_column = Some(name.to_owned())))),
        ("role_column", Box::new(own(|people, name| people.role_column = Some(name.to_owned())))),
        (
            "claims_column",
            Box::new(own(|people, name| people.claims_column = Some(name.to_owned()))),
        ),
    ];
    for (setting, set) in settings {
        let mut config = PostgresConfig::new(address());
        set(&mut config, evil);
        let error = refusal(&config).await;
        let ErrorKind::Configuration { what } = error.kind() else { panic!("{setting}: {error}") };
        let wanted = format!("{setting} is {evil:?}");
        assert!(what.contains(&wanted), "{setting}: {what}");
    }
}

#[tokio::test]
async fn somebody_elses_table_is_left_alone() {
    let on = server();
    for table in ["sessions", "users", "session_log"] {
        let mut config = on.fresh("taken").await.unwrap();
        let schema = on.schema("taken");
        on.run(format!("CREATE TABLE {schema}.{table} (mine text)")).await.unwrap();
        let error = refusal(&config).await;
        let is_named = matches!(error.kind(), ErrorKind::SchemaMismatch { what }
            if what.contains(&format!("{table:?}")) && what.contains("table_prefix"));
        assert!(is_named, "{table}: {error}");
        // Nothing was made beside it.
        let nothing = format!(
            "DO $$ BEGIN ASSERT (SELECT count(*) = 1 FROM pg_class c \
             WHERE relnamespace = '{schema}'::regnamespace AND relkind = 'r'); END $$"
        );
        on.run(nothing).await.unwrap();
        config.table_prefix = "shop_".to_owned();
        let store = PostgresStore::connect(&config).await.unwrap();
        store.insert_user(&User::new(user("ada"), NOW), NOW).await.unwrap();
    }
}
