//! What an adapter brings to be tested.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::host::TestClock;
use crate::error::Result;
use crate::host::{BoxFuture, Host};
use crate::primary::PrimaryStore;
use crate::secondary::{CacheKey, SecondaryStore};
use crate::token::SessionId;
use crate::user::UserId;

/// Removes what a case has left behind, when it is dropped.
pub type Guard = Box<dyn Any + Send + Sync>;

/// Something that only somebody with a database shell does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// `DELETE FROM users` for one user.
    DeleteUser(UserId),
    /// `DELETE FROM sessions` for one session.
    DeleteSession(SessionId),
    /// An `UPDATE sessions` that leaves the row of one session unreadable.
    Damage(SessionId),
    /// `UPDATE users SET role` for one user.
    SetRole(UserId, &'static str),
}

/// How the suite gets at a primary store.
///
/// A namespace is opened once, before anything else is asked of it, and reopened while its guard is
/// alive; cases run at the same time, each in a namespace of its own.
#[async_trait]
pub trait PrimaryHarness: Send + Sync {
    /// The adapter's name in reports.
    fn name(&self) -> &str;

    /// An empty store of this namespace; other namespaces on the same server don't see it.
    async fn open(&self, namespace: &str) -> Result<(Arc<dyn PrimaryStore>, Guard)>;

    /// Another client of the same data, as a second node or a restart would be.
    async fn reopen(&self, namespace: &str) -> Result<Arc<dyn PrimaryStore>>;

    /// Does what a person with a shell could do; `false` where there is no shell.
    async fn by_hand(&self, namespace: &str, deed: &Deed) -> Result<bool>;

    /// Everything that is stored, as bytes, for the search for secrets; `None` where it can't be had.
    /// Ids and hashes must stand in it as their `as_bytes`, or nothing could be found.
    async fn dump(&self, namespace: &str) -> Result<Option<Vec<u8>>>;

    /// Ends when a case has taken too long.
    fn patience(&self) -> BoxFuture<'static, ()>;
}

/// How the suite gets at a secondary store.
#[async_trait]
pub trait SecondaryHarness: Send + Sync {
    /// The adapter's name in reports.
    fn name(&self) -> &str;

    /// A store whose time is that of `clock`, if it can be told one. Keys carry the namespace.
    async fn open(&self, clock: &Arc<TestClock>) -> Result<(Arc<dyn SecondaryStore>, Guard)>;

    /// Lets `length` pass for the store.
    async fn pass_time(&self, clock: &TestClock, length: Duration);

    /// Makes the store lose one entry; `false` where it can't be made to.
    async fn evict(&self, store: &Arc<dyn SecondaryStore>, key: &CacheKey) -> Result<bool>;

    /// Ends when a case has taken too long.
    fn patience(&self) -> BoxFuture<'static, ()>;
}

/// What one node of the layered suite is made of: its stores, on the wires that the cases watch, and
/// its host.
#[derive(Clone, Debug)]
pub struct NodeParts {
    /// The truth.
    pub primary: Arc<dyn PrimaryStore>,
    /// The cache.
    pub secondary: Arc<dyn SecondaryStore>,
    /// Clock and runtime.
    pub host: Host,
}

/// Stands between every node and its wires, to show that the suite notices a node that breaks the
/// protocol; an adapter has no use for it.
pub type Twist = &'static (dyn Fn(NodeParts) -> NodeParts + Send + Sync);
