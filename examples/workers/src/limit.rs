//! How often one client may ask. The stores live for one request and count nothing between requests;
//! Cloudflare's rate limits count for a whole location, and cost no I/O.

use worker::{Env, Request};

use crate::answer::{self, Refused};

/// For everything: guesses at the secret of a session, whose id is public, each cost a read of D1.
pub(crate) const CLIENT: &str = "CLIENT_LIMIT";
/// For whatever hashes a password.
pub(crate) const LOGIN: &str = "LOGIN_LIMIT";

/// Counts this request by the address of its client: by the session, a stranger could use up what its
/// owner may do.
pub(crate) async fn admit(env: &Env, binding: &str, request: &Request) -> Result<(), Refused> {
    let limiter = env.rate_limiter(binding).map_err(|error| {
        let what = format!("{binding}: no such rate limit in wrangler.jsonc: {error}");
        session_store::Error::configuration("worker", what)
    })?;
    let client = request.headers().get("cf-connecting-ip")?.unwrap_or_default();
    match limiter.limit(client).await {
        Ok(outcome) if !outcome.success => Err(answer::TOO_OFTEN.into()),
        Ok(_) => Ok(()),
        Err(error) => {
            // Its trouble is nobody's logout.
            worker::console_error!("{binding}: {error}");
            Ok(())
        }
    }
}
