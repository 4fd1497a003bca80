//! What only Postgres has.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod abandoned;
mod connect;
mod existing;
mod fixture;
mod gate;
mod locks;
mod log;
mod partition;
mod plans;
mod races;
mod refused;
mod server;
mod sweep;
mod touch;
