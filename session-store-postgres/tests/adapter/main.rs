//! What only Postgres has.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod fixture;
mod locks;
mod server;
mod sweep;
