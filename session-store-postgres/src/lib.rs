//! Postgres as the primary store of `session-store`: nothing here yet.
//!
//! The adapter arrives with its conformance run against a real server; until then this crate is
//! empty, so that nothing pretends to work.
