//! A Worker with logins: D1 for the truth, Workers KV for speed.
//!
//! Everything is made per request: a Worker may do no I/O on behalf of another one.

mod app;
mod cookie;
mod password;

use serde::{Deserialize, Serialize};
use serde_json::json;
use session_store::{
    Authentication, Email, ErrorKind, Live, Login, MaintenanceConfig, Metadata, Page, Reason,
    Revoked, SessionId, Source, User, UserId,
};
use worker::{Context, Env, Method, Request, Response, ScheduleContext, ScheduledEvent, event};

use app::App;

/// Where the answer to a request came from.
const SOURCE: &str = "x-session-source";

#[event(fetch)]
async fn fetch(mut request: Request, env: Env, context: Context) -> worker::Result<Response> {
    if is_from_another_site(&request)? {
        return Response::error("asked by a page of another site", 403);
    }
    let app = match app::open(&env, session_store::kv::workers::worker_host(&context)).await {
        Ok(app) => app,
        Err(error) => return failed(&error),
    };
    let answer = match (request.method(), request.path().as_str()) {
        (Method::Post, "/register") => register(&app, &mut request).await,
        (Method::Post, "/login") => log_in(&app, &mut request).await,
        (Method::Get, "/me") => who_am_i(&app, &request).await,
        (Method::Get, "/devices") => devices(&app, &request).await,
        (Method::Post, "/logout") => log_out(&app, &request).await,
        (Method::Post, "/logout-everywhere") => log_out_everywhere(&app, &request).await,
        _ => return Response::error("nothing is here", 404),
    };
    answer.or_else(|refused| match refused {
        Refused::Store(error) => failed(&error),
        Refused::Answer(answer) => answer,
    })
}

/// A page elsewhere may make a browser post here, and a login whose cookie it keeps would be the page's.
fn is_from_another_site(request: &Request) -> worker::Result<bool> {
    if request.method() != Method::Post {
        return Ok(false);
    }
    let own = request.url()?.origin().ascii_serialization();
    // What is no browser sends no origin.
    Ok(request.headers().get("origin")?.is_some_and(|origin| origin != own))
}

#[event(scheduled)]
async fn scheduled(_event: ScheduledEvent, env: Env, context: ScheduleContext) {
    let host = session_store::kv::workers::scheduled_host(&context);
    let round = async {
        let app = app::open(&env, host).await?;
        app.maintenance(MaintenanceConfig::default())?.run_once().await
    };
    if let Err(error) = round.await {
        worker::console_error!("maintenance failed: {error}");
    }
}

/// Why there is no ordinary answer.
enum Refused {
    Store(session_store::Error),
    Answer(worker::Result<Response>),
}

impl From<session_store::Error> for Refused {
    fn from(error: session_store::Error) -> Self {
        Self::Store(error)
    }
}

impl From<worker::Error> for Refused {
    fn from(error: worker::Error) -> Self {
        Self::Answer(Err(error))
    }
}

type Answer = Result<Response, Refused>;

fn refuse<T>(status: u16, why: &str) -> Result<T, Refused> {
    Err(Refused::Answer(Response::error(why, status)))
}

/// An outage is not a logout: the client keeps its cookie and tries again.
fn failed(error: &session_store::Error) -> worker::Result<Response> {
    worker::console_error!("{error}");
    if !error.is_retryable() {
        return Response::error("the server can't do that", 500);
    }
    let answer = Response::error("try again in a moment", 503)?;
    answer.headers().set("retry-after", "1")?;
    Ok(answer)
}

#[derive(Deserialize)]
struct Credentials {
    email: String,
    password: String,
    device: Option<String>,
}

impl Credentials {
    async fn of(request: &mut Request) -> Result<(Self, Email), Refused> {
        let Ok(given) = request.json::<Self>().await else {
            return refuse(400, "wanted: {\"email\", \"password\"}");
        };
        let Ok(email) = Email::parse(&given.email) else {
            return refuse(400, "this is no e-mail address");
        };
        Ok((given, email))
    }
}

async fn register(app: &App, request: &mut Request) -> Answer {
    let (given, email) = Credentials::of(request).await?;
    let now = app.now();
    let mut user = User::new(UserId::new(SessionId::generate(now)?.to_string())?, now);
    user.email = Some(email);
    user.password_hash = Some(password::hash(&given.password)?);
    match app.register_user(&user).await {
        Err(error) if *error.kind() == ErrorKind::Conflict => refuse(409, "registered already"),
        done => {
            done?;
            Ok(Response::from_json(&json!({ "user": user.id.as_str() }))?.with_status(201))
        }
    }
}

async fn log_in(app: &App, request: &mut Request) -> Answer {
    let (given, email) = Credentials::of(request).await?;
    let account = app.find_user_by_email(&email).await?;
    let stored = account.as_ref().and_then(|account| account.user.password_hash.as_ref());
    let (true, Some(account)) = (password::is_right(&given.password, stored)?, &account) else {
        return refuse(401, "no such user, or another password");
    };
    let mut login = Login::of(account);
    let header = |name| request.headers().get(name).ok().flatten();
    login.metadata = Metadata {
        ip: header("cf-connecting-ip").and_then(|ip| ip.parse().ok()),
        user_agent: header("user-agent"),
        device: given.device,
    };
    let created = match app.create(login).await {
        // Logged out everywhere, or deleted, while the password was looked at.
        Err(error)
            if matches!(error.kind(), ErrorKind::StaleCredentials | ErrorKind::UnknownUser) =>
        {
            return refuse(401, "no such user, or another password");
        }
        done => done?,
    };
    let answer = Response::from_json(&json!({ "user": account.user.id.as_str() }))?;
    // As long as it may last at all: idleness is for the server to judge.
    let session = &created.session;
    let life = session.absolute_expires_at.unwrap_or(session.expires_at).since(app.now());
    answer.headers().set("set-cookie", &cookie::set(&created.token, life))?;
    Ok(answer)
}

/// The session of the request's cookie; without one, an answer that says so.
async fn authenticated(app: &App, request: &Request) -> Result<Live, Refused> {
    let Some(token) = cookie::token(request) else {
        return refuse(401, "not logged in");
    };
    judged(app.authenticate(&token).await)
}

fn judged(answer: Authentication) -> Result<Live, Refused> {
    match answer {
        Authentication::Live(live) => Ok(*live),
        Authentication::Unavailable(error) => Err(error.into()),
        Authentication::Absent(refusal) => {
            let answer = Response::error("not logged in", 401)?;
            if refusal.clears_cookie() {
                answer.headers().set("set-cookie", &cookie::cleared())?;
            }
            Err(Refused::Answer(Ok(answer)))
        }
    }
}

fn told(live: &Live, body: &impl Serialize) -> Answer {
    let source = match live.source {
        Source::Near | Source::Secondary => "kv",
        Source::Primary | Source::Joined => "d1",
    };
    let answer = Response::from_json(body)?;
    answer.headers().set(SOURCE, source)?;
    answer.headers().set("cache-control", "no-store")?;
    Ok(answer)
}

async fn who_am_i(app: &App, request: &Request) -> Answer {
    let live = authenticated(app, request).await?;
    let session = live.session();
    let body = json!({
        "user": live.user().map(|user| user.id.as_str()),
        "role": live.user().map(|user| user.role.as_str()),
        "session": live.id().to_string(),
        "device": session.metadata.device,
        "expires_at_ms": session.expires_at.as_millis(),
    });
    told(&live, &body)
}

async fn devices(app: &App, request: &Request) -> Answer {
    let live = authenticated(app, request).await?;
    let Some(user) = live.user() else {
        return refuse(403, "a guest has no devices");
    };
    let page = app.list(&user.id, Some(live.id()), &Page::first(100)).await?;
    let devices: Vec<_> = page
        .items
        .iter()
        .map(|device| {
            json!({
                "session": device.id.to_string(),
                "device": device.metadata.device,
                "created_at_ms": device.created_at.as_millis(),
                "is_current": device.is_current,
            })
        })
        .collect();
    told(&live, &devices)
}

async fn log_out(app: &App, request: &Request) -> Answer {
    let Some(token) = cookie::token(request) else {
        return refuse(401, "not logged in");
    };
    logged_out(&app.logout(&token).await?)
}

async fn log_out_everywhere(app: &App, request: &Request) -> Answer {
    let Some(token) = cookie::token(request) else {
        return refuse(401, "not logged in");
    };
    // A session that has ended elsewhere must not end the others, so no cache is asked.
    let live = judged(app.authenticate_fresh(&token).await)?;
    let Some(user) = live.user() else {
        return refuse(403, "a guest is logged in here only");
    };
    logged_out(&app.revoke_all(&user.id, Reason::LogoutEverywhere).await?)
}

fn logged_out(done: &Revoked) -> Answer {
    let bound = u64::try_from(done.visibility.bound().as_millis()).unwrap_or(u64::MAX);
    let answer = Response::from_json(&json!({ "ended": done.count, "visible_within_ms": bound }))?;
    answer.headers().set("set-cookie", &cookie::cleared())?;
    Ok(answer)
}
