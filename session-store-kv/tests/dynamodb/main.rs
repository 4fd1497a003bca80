//! Stores and caches in DynamoDB: the suite, and what only DynamoDB can do wrong.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod cascade;
mod conformance;
mod lab;
mod limits;
mod queue;
mod setup;
mod trouble;
mod wire;
mod writers;
