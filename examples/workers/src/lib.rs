//! A Worker with logins: D1 for the truth, Workers KV for speed.
//!
//! Everything is made per request: a Worker may do no I/O on behalf of another one.

mod app;
mod account;
mod body;
mod password;
mod cookie;
mod limit;
mod answer;
mod schedule;

use serde::Serialize;
use serde_json::json;
use session_store::{
    Authentication, Live, Page, PrimaryStore, Reason, RotationOutcome, Source, Token, Visibility,
};
use worker::{Context, Env, Method, Request, Response, event};

use answer::Refused;
use app::App;
use cookie::Sent;

/// Where the answer to a request came from.
const SOURCE: &str = "x-session-source";

type Answer = Result<Response, Refused>;

#[event(fetch)]
async fn fetch(mut request: Request, env: Env, context: Context) -> worker::Result<Response> {
    let answer = route(&mut request, &env, &context).await;
    answer.or_else(Refused::answer)
}

async fn route(request: &mut Request, env: &Env, context: &Context) -> Answer {
    if is_from_another_site(request)? {
        return Err(answer::OTHER_SITE.into());
    }
    limit::admit(env, limit::CLIENT, request).await?;
    let app = app::open(env, session_store::kv::workers::worker_host(context))?;
    app::check(&app).await?;
    let answer = match (request.method(), request.path().as_str()) {
        (Method::Get, "/me") => who_am_i(&app, request).await,
        (Method::Get, "/devices") => devices(&app, request).await,
        (Method::Post, "/logout") => log_out(&app, request).await,
        (Method::Post, "/logout-everywhere") => log_out_everywhere(&app, request).await,
        (Method::Post, path @ ("/register" | "/login" | "/password")) => {
            limit::admit(env, limit::LOGIN, request).await?;
            match path {
                "/register" => account::register(&app, request).await,
                "/login" => account::log_in(&app, request).await,
                _ => account::change_password(&app, request).await,
            }
        }
        _ => Err(answer::NOWHERE.into()),
    };
    app::remember(&app);
    answer
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

/// The session of the request's cookie; without one, an answer that says so.
async fn authenticated(app: &App, request: &Request) -> Result<(Token, Live), Refused> {
    let token = token(request)?;
    let live = judged(app.authenticate(&token).await)?;
    Ok((token, live))
}

/// The same, for steps that a session which has ended elsewhere must not take: no cache is asked.
async fn authenticated_fresh(app: &App, request: &Request) -> Result<(Token, Live), Refused> {
    let token = token(request)?;
    let live = judged(app.authenticate_fresh(&token).await)?;
    Ok((token, live))
}

fn token(request: &Request) -> Result<Token, Refused> {
    match cookie::sent(request) {
        Sent::Token(token) => Ok(token),
        Sent::Malformed => Err(answer::NOT_LOGGED_IN.clearing_cookie().into()),
        Sent::Nothing => Err(answer::NOT_LOGGED_IN.into()),
    }
}

fn judged(answer: Authentication) -> Result<Live, Refused> {
    match answer {
        Authentication::Live(live) => Ok(*live),
        Authentication::Unavailable(error) => Err(error.into()),
        Authentication::Absent(refusal) if refusal.clears_cookie() => {
            Err(answer::NOT_LOGGED_IN.clearing_cookie().into())
        }
        Authentication::Absent(_) => Err(answer::NOT_LOGGED_IN.into()),
    }
}

/// Answers whoever is logged in, with another secret when theirs has grown old.
async fn told(app: &App, (token, live): (&Token, &Live), body: &impl Serialize) -> Answer {
    let source = match live.source {
        Source::Near | Source::Secondary => "kv",
        Source::Primary | Source::Joined => "d1",
    };
    let answer = Response::from_json(body)?;
    answer.headers().set(SOURCE, source)?;
    answer.headers().set("cache-control", "no-store")?;
    if live.rotation_due {
        match app.rotate(token).await {
            Ok(RotationOutcome::Rotated { token, snapshot, .. }) => {
                let lifetime = cookie::life(&snapshot.session, app.now());
                answer.headers().set("set-cookie", &cookie::set(&token, lifetime))?;
            }
            Ok(RotationOutcome::NotNow | RotationOutcome::Absent(_)) => {}
            // The next request tries again.
            Err(error) => worker::console_error!("not rotated: {error}"),
        }
    }
    Ok(answer)
}

async fn who_am_i(app: &App, request: &Request) -> Answer {
    let (token, live) = authenticated(app, request).await?;
    let session = live.session();
    let body = json!({
        "user": live.user().map(|user| user.id.as_str()),
        "role": live.user().map(|user| user.role.as_str()),
        "session": live.id().to_string(),
        "device": session.metadata.device,
        "expires_at_ms": session.expires_at.as_millis(),
    });
    told(app, (&token, &live), &body).await
}

async fn devices(app: &App, request: &Request) -> Answer {
    let (token, live) = authenticated(app, request).await?;
    let user = live.user().ok_or(answer::GUEST)?;
    let mut page = Page::first(100);
    let mut found = Vec::new();
    loop {
        let listed = app.list(&user.id, Some(live.id()), &page).await?;
        found.extend(listed.items);
        let Some(next) = listed.next else { break };
        page = page.behind(next);
    }
    // The newest first: stores list the oldest first.
    let devices: Vec<_> = found
        .iter()
        .rev()
        .map(|device| {
            json!({
                "session": device.id.to_string(),
                "device": device.metadata.device,
                "created_at_ms": device.created_at.as_millis(),
                "is_current": device.is_current,
            })
        })
        .collect();
    told(app, (&token, &live), &devices).await
}

async fn log_out(app: &App, request: &Request) -> Answer {
    let token = token(request)?;
    if app.store().primary().find(&token.id()).await?.snapshot.is_none() {
        // Anybody can make up a token, and a logout writes to D1 and KV, whose writes are few. What may be
        // left of a session that is gone ends by itself.
        return logged_out(0, app::bound(app).await?);
    }
    let done = app.logout(&token).await?;
    logged_out(done.count, done.visibility)
}

async fn log_out_everywhere(app: &App, request: &Request) -> Answer {
    let (_, live) = authenticated_fresh(app, request).await?;
    let user = live.user().ok_or(answer::GUEST)?;
    let done = app.revoke_all(&user.id, Reason::LogoutEverywhere).await?;
    logged_out(done.count, done.visibility)
}

fn logged_out(count: u64, visibility: Visibility) -> Answer {
    let answer = ended(count, visibility)?;
    answer.headers().set("set-cookie", &cookie::cleared())?;
    Ok(answer)
}

/// How many sessions were ended, and from when on no location accepts them.
fn ended(count: u64, visibility: Visibility) -> Answer {
    let bound = u64::try_from(visibility.bound().as_millis()).unwrap_or(u64::MAX);
    Ok(Response::from_json(&json!({ "ended": count, "visible_within_ms": bound }))?)
}
