//! The core of `session-store`: what a session is, where it lives, and who is let in.
//!
//! A **primary** store ([`PrimaryStore`]) holds the truth: users and sessions. A **secondary** store
//! ([`SecondaryStore`]) is a cache. [`Layered`] joins one of each by a lease protocol under which
//! the cache never contradicts the truth, and [`Sessions`] is the policy on top: the only place
//! where a session is judged.
//!
//! ```text
//!  Token ─► Sessions (what is a valid session)
//!             └► Layered<P, S> (the cache never contradicts the truth)
//!                  ├► SecondaryStore   get · reserve · swap · remove · epoch
//!                  └► PrimaryStore     users + sessions + invalidation log
//! ```
//!
//! This crate knows no HTTP, no driver and no async runtime, and it compiles for
//! `wasm32-unknown-unknown`. What it needs from its host it asks for through [`Clock`] and
//! [`Runtime`].

#![cfg_attr(docsrs, feature(doc_cfg))]

// What a session is.
mod token;
mod user;
mod session;
mod json;
mod time;
mod text;

// Who is let in.
mod sessions;
mod policy;
mod observer;

// How it is looked up.
mod layered;
mod cached;

// Where it lives.
mod secondary;
mod primary;
mod codec;
mod error;
mod host;

// How adapters are held to it.
#[cfg(feature = "conformance")]
pub mod conformance;

pub use cached::{Cached, CachedConfig, Loaded};
pub use error::{Error, ErrorKind, Result};
pub use host::{BoxFuture, Clock, Host, Moment, Runtime};
pub use json::Json;
pub use layered::*;
pub use observer::{Event, NoObserver, Observer};
pub use policy::{LongText, Policy};
pub use primary::*;
pub use secondary::*;
pub use session::{
    Metadata, NewSession, Previous, Reason, Revocation, Session, SessionIds, SessionLimit,
    Snapshot, State,
};
pub use sessions::*;
pub use time::{Timestamp, Ttl};
pub use token::{SecretHash, SessionId, Token};
pub use user::{
    Account, CredentialEpoch, Edit, Email, PasswordHash, Projection, Role, User, UserChange,
    UserId, UserUpdate,
};
