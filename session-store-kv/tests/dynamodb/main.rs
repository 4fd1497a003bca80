//! Stores and caches in DynamoDB: the suite, and what only DynamoDB can do wrong.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod byhand;
mod cascade;
mod clocks;
mod conformance;
mod crowd;
mod garbage;
mod lab;
mod limits;
mod once;
mod pages;
mod queue;
mod races;
mod rights;
mod setup;
mod trouble;
mod underway;
mod wire;
mod writers;
