//! What asks for a password: to register, to log in, to choose another password.

use serde_json::json;
use session_store::{
    Account, Edit, ErrorKind, Live, Login, Metadata, Proof, RotationOutcome, SessionId, Token,
    User, UserChange, UserId, UserUpdate,
};
use worker::{Request, Response};

use crate::answer::{self, Refused};
use crate::app::App;
use crate::body::{self, Credentials, NewPassword};
use crate::cookie::{self, Sent};
use crate::{Answer, password};

/// Registers a user. The answer is the same, and takes as long, whether or not the address was free.
pub(crate) async fn register(app: &App, request: &mut Request) -> Answer {
    let given: Credentials = body::read(request).await?;
    let email = given.email()?;
    body::check_password(&given.password)?;
    let now = app.now();
    let mut user = User::new(UserId::new(SessionId::generate(now)?.to_string())?, now);
    user.email = Some(email);
    user.password_hash = Some(password::hash(&given.password)?);
    match app.register_user(&user).await {
        // Whose address it is should learn of it, by mail.
        Err(error) if *error.kind() == ErrorKind::Conflict => {}
        done => done?,
    }
    Ok(Response::from_json(&json!({ "accepted": true }))?.with_status(202))
}

/// Logs in with a new session, whatever the client sent, and ends the one that it has had.
pub(crate) async fn log_in(app: &App, request: &mut Request) -> Answer {
    let given: Credentials = body::read(request).await?;
    // Before anything is ended that this login could then not replace.
    let device = given.device()?;
    let account = app.find_user_by_email(&given.email()?).await?;
    let stored = account.as_ref().and_then(|account| account.user.password_hash.as_ref());
    let (true, Some(account)) = (password::is_right(&given.password, stored)?, &account) else {
        return Err(answer::WRONG_CREDENTIALS.into());
    };
    // First: else a failure would leave two sessions, and the client would know of one.
    let ended = match cookie::sent(request) {
        Sent::Token(before) => app.logout(&before).await?.count,
        Sent::Malformed | Sent::Nothing => 0,
    };
    let mut login = Login::of(account);
    let header = |name| request.headers().get(name).ok().flatten();
    login.metadata = Metadata {
        ip: header("cf-connecting-ip").and_then(|ip| ip.parse().ok()),
        user_agent: header("user-agent"),
        device,
    };
    let created = match app.create(login).await {
        // Logged out everywhere, or deleted, while the password was looked at.
        Err(error)
            if matches!(error.kind(), ErrorKind::StaleCredentials | ErrorKind::UnknownUser) =>
        {
            return Err(answer::WRONG_CREDENTIALS.into());
        }
        done => done?,
    };
    let body = json!({ "user": account.user.id.as_str(), "ended": ended });
    let answer = Response::from_json(&body)?;
    let lifetime = cookie::life(&created.session, app.now());
    answer.headers().set("set-cookie", &cookie::set(&created.token, lifetime))?;
    Ok(answer)
}

/// Changes the password, which ends every other session and gives this one another secret: whoever had
/// the old ones is out. Asked again after a failure in the middle, it does what is left.
pub(crate) async fn change_password(app: &App, request: &mut Request) -> Answer {
    let given: NewPassword = body::read(request).await?;
    body::check_password(&given.new_password)?;
    let (token, live) = crate::authenticated_fresh(app, request).await?;
    let user = live.user().ok_or(answer::GUEST)?;
    let account = app.find_user(&user.id).await?.ok_or(answer::WRONG_CREDENTIALS)?;
    let stored = account.user.password_hash.as_ref();
    if password::is_right(&given.password, stored)? {
        set_password(app, &account, &given.new_password).await?;
    } else if !password::is_right(&given.new_password, stored)? {
        return Err(answer::WRONG_CREDENTIALS.into());
    }
    // From here on no login with the old password succeeds, so that none slips in between.
    match end_others(app, &token, &live).await {
        Err(Refused::Store(error)) if error.is_retryable() => {
            worker::console_error!("{error}");
            Err(answer::HALF_DONE.into())
        }
        done => done,
    }
}

async fn set_password(app: &App, account: &Account, new: &str) -> Result<(), Refused> {
    let password_hash = Edit::Set(password::hash(new)?);
    let change = UserChange { password_hash, ..UserChange::default() };
    let user = &account.user;
    match app.update_user(&user.id, user.version, change).await?.update {
        UserUpdate::Updated { .. } => Ok(()),
        UserUpdate::Conflict { .. } => Err(answer::CHANGED.into()),
        UserUpdate::Missing => Err(answer::WRONG_CREDENTIALS.into()),
    }
}

/// Ends every session but this one, and gives it another secret.
async fn end_others(app: &App, token: &Token, live: &Live) -> Answer {
    let ended = app.revoke_others(live).await?;
    let proof = Proof { aal: Some(1), amr: vec!["pwd".to_owned()] };
    let RotationOutcome::Rotated { token, snapshot, visibility } =
        app.elevate(token, proof).await?
    else {
        return Err(Refused::Problem(answer::NOT_LOGGED_IN));
    };
    let answer = crate::ended(ended.count, visibility.weaker(ended.visibility))?;
    let lifetime = cookie::life(&snapshot.session, app.now());
    answer.headers().set("set-cookie", &cookie::set(&token, lifetime))?;
    Ok(answer)
}
