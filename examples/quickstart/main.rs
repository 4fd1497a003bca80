//! Two users, three devices, one database: log in, rotate, log out, and see that it holds.
//!
//! Takes `--primary URL` and `--secondary URL`; the default is an SQLite file, or memory without the
//! feature `sqlite`, and a cache in this process.
#![expect(clippy::print_stdout, reason = "an example talks to a person")]

mod stores;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use session_store::{
    Authentication, Email, Layered, LayeredConfig, Live, Login, Metadata, Page, Policy,
    PrimaryStore, Revoked, RotationOutcome, SecondaryStore, Sessions, Token, User, UserId,
    tokio_host,
};

use stores::Asked;

type App = Sessions<Arc<dyn PrimaryStore>, Arc<dyn SecondaryStore>>;
type Outcome<T = ()> = Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Outcome {
    let asked = Asked::parse(std::env::args().skip(1))?;
    let app = open(&asked).await?;
    println!("database  {}", stores::shown(&asked.primary));
    println!("cache     {}", stores::shown(&asked.secondary));
    println!("promise   after a logout: {:?}\n", app.store().guarantee().healthy);

    let ada = register(&app, "ada").await?;
    let bob = register(&app, "bob").await?;
    greet(&app, &ada).await?;

    println!("\nAda logs in from three devices.");
    let phone = log_in(&app, &ada, "phone").await?;
    let laptop = log_in(&app, &ada, "laptop").await?;
    let tablet = log_in(&app, &ada, "tablet").await?;
    for _ in 0..2 {
        for (name, token) in [("phone", &phone), ("laptop", &laptop), ("tablet", &tablet)] {
            show(&app, name, token).await;
        }
    }

    println!("\nThe laptop gets a new token; the old one works until the new one was used.");
    let RotationOutcome::Rotated { token: new_laptop, .. } = app.rotate(&laptop).await? else {
        return Err("the laptop's session has ended".into());
    };
    show(&app, "old token", &laptop).await;
    show(&app, "new token", &new_laptop).await;

    println!("\nThe tablet logs out.");
    let done = app.logout(&tablet).await?;
    tell(&done);
    show(&app, "tablet", &tablet).await;

    println!("\nFrom the laptop, Ada logs out everywhere else.");
    let live = accepted(&app, &new_laptop).await?;
    let done = app.revoke_others(&live).await?;
    tell(&done);
    show(&app, "phone", &phone).await;
    show(&app, "laptop", &new_laptop).await;

    println!("\nBob logs in, and his account is deleted.");
    let browser = log_in(&app, &bob, "browser").await?;
    show(&app, "browser", &browser).await;
    if let Some(done) = app.delete_user(&bob).await? {
        tell(&done);
    }
    show(&app, "browser", &browser).await;

    let census = app.census(None).await?;
    println!(
        "\nCensus    {} active of {} users, {} revoked, {} created today",
        census.active, census.users, census.revoked, census.created_last_day
    );
    println!("{}", asked.farewell());
    Ok(())
}

fn tell(done: &Revoked) {
    let sessions = if done.count == 1 { "session" } else { "sessions" };
    println!("  ended {} {sessions}, visible everywhere: {:?}", done.count, done.visibility);
}

async fn open(asked: &Asked) -> Outcome<App> {
    let host = tokio_host();
    let truth = stores::primary(&asked.primary).await?;
    let cache = stores::secondary(&asked.secondary, &host).await?;
    let mut config = LayeredConfig::default();
    config.topology = asked.topology();
    let store = Layered::new(truth, cache, config, host)?;
    store.register().await?;
    Ok(Sessions::new(store, Policy::default())?)
}

/// Bob's account was deleted by the run before, and an id can't be used again at once: so every run
/// registers a Bob of its own.
async fn register(app: &App, name: &str) -> Outcome<UserId> {
    let now = app.now();
    let id = if name == "ada" { name.to_owned() } else { format!("{name}-{}", now.as_millis()) };
    let id = UserId::new(id)?;
    if app.find_user(&id).await?.is_none() {
        let mut user = User::new(id.clone(), now);
        user.email = Some(Email::parse(format!("{id}@example.org"))?);
        app.register_user(&user).await?;
        println!("registered {id}");
    }
    Ok(id)
}

async fn greet(app: &App, user: &UserId) -> Outcome {
    let devices = app.list(user, None, &Page::first(100)).await?.items;
    if devices.is_empty() {
        println!("{user} has no session yet: this is the first run on this database.");
        return Ok(());
    }
    println!("{user} still has {} session(s) from earlier runs:", devices.len());
    for device in devices {
        let name = device.metadata.device.unwrap_or_default();
        let age = app.now().since(device.created_at);
        println!("  {name:<10} {}  logged in {} s ago", device.id, age.as_secs());
    }
    Ok(())
}

async fn log_in(app: &App, user: &UserId, device: &str) -> Outcome<Token> {
    let account = app.find_user(user).await?.ok_or("no such user")?;
    let mut login = Login::of(&account);
    login.metadata = Metadata { device: Some(device.to_owned()), ..Metadata::default() };
    Ok(app.create(login).await?.token)
}

async fn show(app: &App, name: &str, token: &Token) {
    match app.authenticate(token).await {
        Authentication::Live(live) => {
            let who = live.user().map_or("a guest", |user| user.id.as_str());
            let micros = live.elapsed.as_micros();
            println!("  {name:<10} is {who:<4} says the {:?} in {micros} us", live.source);
        }
        Authentication::Absent(refusal) => println!("  {name:<10} is nobody: {refusal:?}"),
        Authentication::Unavailable(error) => println!("  {name:<10} is unknown: {error}"),
    }
}

async fn accepted(app: &App, token: &Token) -> Outcome<Live> {
    app.authenticate(token).await.live().ok_or_else(|| "the token was refused".into())
}
