//! How often one client may ask. The stores live for one request and count nothing between requests;
//! Cloudflare's rate limits count for a whole location, and cost no I/O.

use std::net::{IpAddr, Ipv6Addr};

use worker::{Env, Request};

use crate::answer::{self, Refused};

/// For everything: guesses at the secret of a session, whose id is public, each cost a read of D1.
pub(crate) const CLIENT: &str = "CLIENT_LIMIT";
/// For whatever hashes a password.
pub(crate) const LOGIN: &str = "LOGIN_LIMIT";

/// Whose address it is: whoever has one address of IPv6 has 2^64 of them.
fn network(address: &str) -> String {
    match address.parse() {
        Ok(IpAddr::V6(ip)) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).to_string(),
        _ => address.to_owned(),
    }
}

/// Counts this request by the address of its client: by the session, a stranger could use up what its
/// owner may do. While nobody counts, passwords can't be guessed, and the rest goes on: its trouble is
/// nobody's logout.
pub(crate) async fn admit(env: &Env, binding: &str, request: &Request) -> Result<(), Refused> {
    let limiter = env.rate_limiter(binding).map_err(|error| {
        let what = format!("{binding}: no such rate limit in wrangler.jsonc: {error}");
        session_store::Error::configuration("worker", what)
    })?;
    let client = request.headers().get("cf-connecting-ip")?.unwrap_or_default();
    match limiter.limit(network(&client)).await {
        Ok(outcome) if !outcome.success => Err(answer::TOO_OFTEN.into()),
        Ok(_) => Ok(()),
        Err(error) => {
            worker::console_error!("{binding}: {error}");
            if binding == LOGIN { Err(answer::UNAVAILABLE.into()) } else { Ok(()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("2001:db8:1:2::9"), "2001:db8:1:2::");
        assert_eq!(network("2001:db8:1:3::9"), "2001:db8:1:3::");
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
        assert_eq!(network(""), "");
    }
}
