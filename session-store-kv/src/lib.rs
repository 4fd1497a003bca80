//! DynamoDB and Cloudflare Workers KV for `session-store`.
//!
//! [`dynamo`] (feature `dynamodb`) is a primary store and a cache over the application's own client.
//! Workers KV is to come; until its conformance run exists, nothing pretends to work.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "dynamodb")]
pub mod dynamo;
