//! Serverless back ends for `session-store`: DynamoDB as a primary store and as a cache, Cloudflare
//! Workers KV as a cache, and D1 as the primary store of a Worker.
//!
//! What is for Workers compiles on every target, so that a workspace can be checked on a developer's
//! machine; a call into a Worker's runtime panics anywhere but in a Worker.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "d1")]
pub mod d1;
#[cfg(feature = "dynamodb")]
pub mod dynamo;
#[cfg(any(feature = "workers-kv", feature = "d1"))]
mod said;
#[cfg(feature = "workers-kv")]
pub mod workers;
