//! Answers that are no success: a status, a code for programs, a sentence for people.

use serde_json::json;
use session_store::ErrorKind;
use worker::Response;

use crate::cookie;

/// Why a request is refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Problem {
    status: u16,
    code: &'static str,
    message: &'static str,
    clears_cookie: bool,
}

const fn problem(status: u16, code: &'static str, message: &'static str) -> Problem {
    Problem { status, code, message, clears_cookie: false }
}

pub(crate) const NOWHERE: Problem = problem(404, "not_found", "nothing is here");
pub(crate) const OTHER_SITE: Problem =
    problem(403, "other_site", "asked by a page of another site");
pub(crate) const TOO_OFTEN: Problem = problem(429, "too_many_requests", "try again in a minute");
pub(crate) const TOO_LARGE: Problem =
    problem(413, "body_too_large", "the body may have 4096 bytes at most");
pub(crate) const MALFORMED: Problem =
    problem(400, "malformed_body", "the body is not the JSON object that this path wants");
pub(crate) const NO_ADDRESS: Problem =
    problem(400, "invalid_email", "`email` is no e-mail address");
pub(crate) const SHORT_PASSWORD: Problem =
    problem(400, "password_too_short", "a new password has 15 characters at least");
pub(crate) const STRANGE_DEVICE: Problem =
    problem(400, "invalid_device", "`device` holds a control character");
const INVALID: Problem = problem(400, "invalid_input", "something in the request can't be stored");
pub(crate) const WRONG_CREDENTIALS: Problem =
    problem(401, "wrong_credentials", "no such user, or another password");
pub(crate) const NOT_LOGGED_IN: Problem = problem(401, "not_logged_in", "not logged in");
pub(crate) const GUEST: Problem = problem(403, "guest", "a guest can't do that");
pub(crate) const CHANGED: Problem =
    problem(409, "changed_meanwhile", "the user was changed meanwhile, try again");
pub(crate) const HALF_DONE: Problem = problem(
    503,
    "others_not_ended",
    "the password is changed; ask the same again, so that all other sessions end",
);
pub(crate) const UNAVAILABLE: Problem = problem(503, "unavailable", "try again in a moment");
const BROKEN: Problem = problem(500, "server_error", "the server can't do that");

impl Problem {
    /// The same, and the client is to forget its cookie, which is worth nothing.
    pub(crate) const fn clearing_cookie(self) -> Self {
        Self { clears_cookie: true, ..self }
    }

    pub(crate) fn answer(self) -> worker::Result<Response> {
        let body = json!({ "error": { "code": self.code, "message": self.message } });
        let answer = Response::from_json(&body)?.with_status(self.status);
        answer.headers().set("cache-control", "no-store")?;
        if self.clears_cookie {
            answer.headers().set("set-cookie", &cookie::cleared())?;
        }
        match self.status {
            429 => answer.headers().set("retry-after", "60")?,
            503 => answer.headers().set("retry-after", "1")?,
            _ => {}
        }
        Ok(answer)
    }
}

/// Why there is no ordinary answer.
#[derive(Debug)]
pub(crate) enum Refused {
    Store(session_store::Error),
    Problem(Problem),
    Worker(worker::Error),
}

impl From<session_store::Error> for Refused {
    fn from(error: session_store::Error) -> Self {
        Self::Store(error)
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<worker::Error> for Refused {
    fn from(error: worker::Error) -> Self {
        Self::Worker(error)
    }
}

impl Refused {
    /// An outage is not a logout: the client keeps its cookie and tries again.
    pub(crate) fn answer(self) -> worker::Result<Response> {
        match self {
            Self::Problem(problem) => problem.answer(),
            Self::Store(error) => {
                worker::console_error!("{error}");
                match error.kind() {
                    ErrorKind::InvalidInput { .. } | ErrorKind::TooLarge { .. } => INVALID.answer(),
                    _ if error.is_retryable() => UNAVAILABLE.answer(),
                    _ => BROKEN.answer(),
                }
            }
            Self::Worker(error) => {
                worker::console_error!("{error}");
                BROKEN.answer()
            }
        }
    }
}
