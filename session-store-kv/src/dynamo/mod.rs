//! DynamoDB as a primary store and as a cache, over the application's own
//! [`Client`](aws_sdk_dynamodb::Client): its region, its credentials, its HTTP and its TLS.
//!
//! [`create_table`] makes a table, [`DynamoStore::connect`] and [`DynamoCache::connect`] use it, and
//! [`minimal_policy`] prints what a role must be allowed to do. Store and cache take a table each.
//!
//! ```no_run
//! use aws_sdk_dynamodb::Client;
//! use session_store_core::Result;
//! use session_store_kv::dynamo::{DynamoConfig, DynamoStore, create_table};
//!
//! async fn open(client: Client) -> Result<DynamoStore> {
//!     create_table(&client, "sessions").await?;
//!     DynamoStore::connect(client, &DynamoConfig::new("sessions")).await
//! }
//! ```
//!
//! Something must sweep. Where nothing runs all the time, a function that is started by a schedule does:
//! what it has not done when its time is up, the next one goes on with. It needs no cache, since it
//! removes nothing that is alive.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use aws_sdk_dynamodb::Client;
//! use session_store_core::{
//!     Host, Layered, LayeredConfig, MaintenanceConfig, NoCache, Policy, Result, Sessions,
//! };
//! use session_store_kv::dynamo::{DynamoConfig, DynamoStore};
//!
//! async fn scheduled(client: Client, host: Host, time: Duration) -> Result<()> {
//!     let store = DynamoStore::connect(client, &DynamoConfig::new("sessions")).await?;
//!     let layered = Layered::new(store, NoCache::new(), LayeredConfig::default(), host)?;
//!     let sessions = Sessions::new(layered, Policy::default())?;
//!     let round = sessions.maintenance(MaintenanceConfig::default())?;
//!     tokio::time::timeout(time, round.run_once()).await.unwrap_or(Ok(()))
//! }
//! ```
//!
//! # One table
//!
//! Two string keys, `pk` and `sk`, and no index: an index of DynamoDB is behind its table, and a list of
//! sessions that is behind is a logout that was not.
//!
//! ```text
//!  pk             sk                     what it is
//! +--------------+----------------------+-----------------------------------------------------------+
//! | S#<session>  | 0                    | a session: every field, stamp, life, rev, filed, ttl      |
//! +--------------+----------------------+-----------------------------------------------------------+
//! | U#<user>     | 0                    | the user, life, credential epoch, barrier, whom it spared,|
//! |              |                      | the last barriers, the latest logins                      |
//! | U#<user>     | s#<created>#<session>| entry: this session is this user's                        |
//! +--------------+----------------------+-----------------------------------------------------------+
//! | E#<address>  | 0                    | the address is taken, and by whom                         |
//! +--------------+----------------------+-----------------------------------------------------------+
//! | R#users      | <created>#<user>     | all users, in the order of their registration             |
//! | R#caches     | <cache>              | the caches over this store                                |
//! | R#jobs       | <user>               | what was begun and is not finished                        |
//! +--------------+----------------------+-----------------------------------------------------------+
//! | Q#<0..7>     | e#<deadline>#<sess.> | not revoked, expires at the deadline or later             |
//! | Q#<0..7>     | x#<deadline>#<sess.> | revoked, expires at the deadline or later                 |
//! | Q#<0..7>     | r#<revoked>#<session>| revoked at that moment                                    |
//! +--------------+----------------------+-----------------------------------------------------------+
//! | C#<key>      | 0                    | (cache) a record, its end, when it was written, ttl       |
//! +--------------+----------------------+-----------------------------------------------------------+
//! ```
//!
//! Moments are milliseconds, in 16 hexadecimal digits where they are part of a key.
//!
//! - A **login** is one transaction: the session, its entry, its place in a queue, and the user's item,
//!   on the condition that epoch and barrier are still those that the login saw. With a limit on
//!   sessions, also on the condition that nobody else has logged in, and with the ends of those that
//!   make room. DynamoDB shows the items of a transaction one by one, so the login notes itself on the
//!   user's item: whoever must know of every session asks for those noted and not found in a
//!   transaction, which waits for that of the login.
//! - A **lookup** is two consistent reads: the session, then its user. The session counts if its stamp
//!   is not behind the user's barrier. Of the one session that the latest barrier has spared, both are
//!   read once more before a "no", in one transaction.
//! - A **revoke-all** raises the barrier, which is one transaction whatever the number of sessions. They
//!   are all ended by that; then it is written down at each of them, 25 to a transaction. "All but this"
//!   gives the spared session the new stamp in the same transaction.
//! - A **deletion** of a user takes the user's fields away in one transaction, and no session of theirs
//!   is found from then on. Sessions and places are removed in batches, the entries last: a deletion that
//!   crashed names all of them again when it is repeated.
//! - A **sweep** finishes what a crash left in `R#jobs`, then reads the queues up to the given moments
//!   and removes what is dead. A touch leaves the place in the queue alone; the sweep moves it.
//!
//! Every write of a session or a user is conditional on what it was decided by, the revision that was
//! read (`rev`) or just epoch, barrier, version, stamp and life, and no write is repeated by the SDK,
//! which would not tell of an answer that was lost. What DynamoDB throttles, refuses for a conflict with
//! another transaction, or leaves unprocessed is tried again with
//! growing, spread pauses until [`CallConfig::patience`] is over, and is then `Unavailable`. No batch is
//! larger than 100 reads or 25 removals, and no transaction larger than 100 items or 4 MB. One session
//! takes up to 400 KB, `data` up to 256 KB. Limits of one partition hold for one user, for the list of
//! all users (registrations), for the jobs (revoke-alls and deletions, two writes each) and for an eighth
//! of the queues (logins and logouts): about 500 writes a second each, since those of transactions count
//! twice.
//!
//! # Limits
//!
//! - No invalidation log: what is typed by hand reaches a cache by the end of its entries alone.
//! - DynamoDB's own removal (the attribute `ttl`) is for garbage, [`DynamoConfig::garbage_after`] the
//!   deadline; sessions end when they end, and sweeps remove them. Without sweeps the places in the
//!   queues stay for ever.
//! - The census of everybody reads the whole table, and holds the sessions of users in memory. It is no
//!   snapshot: what changes meanwhile counts as before or as after. Elsewhere every session that is
//!   returned, alone or in a list, is as of a moment between call and answer.
//! - A revocation of everybody looks at every session that is stored, those that ended and wait for
//!   their sweep included, up to three times, in pages.
//! - An entry of the cache ends by the clock of the node that wrote it, so that
//!   [`DynamoCacheConfig::max_skew`] is a part of the bound that is told when a removal fails.
//! - DynamoDB tells no time along with its answers, so nothing compares a node's clock with it: a sweep
//!   removes, and a node refuses, what has ended by that node's clock, less `max_skew` for a sweep. AWS
//!   refuses requests that are signed more than a few minutes off, which would bound the difference, but
//!   the SDK corrects its signatures by the dates of the answers unless the client is made with
//!   `disable_clock_skew_correction(true)`. Keep the clocks of nodes right, or make it so.
//! - A user's item that somebody takes away by hand ends the user's sessions, and neither those nor a
//!   login that had verified that user count for the next one of that id; the address can be claimed
//!   again. `count_users` counts such a user on: `delete_user` is the way.
//! - What can't be read is passed by in sweeps, counted ([`DynamoStore::unreadable`]) and logged.
//! - One region. Reads are consistent, which a global table is not between its regions.
//!
//! # Errors
//!
//! No such table, or other keys: `SchemaMismatch`. Credentials that are refused, have expired, or may
//! not do something: `Configuration`. Throttled for longer than the patience: `Unavailable`. No answer
//! in time: `Timeout`, and the call may have happened.

mod config;
mod store;
mod cache;
mod migrate;
mod policy;
mod look;
mod underway;
mod write;
mod touch;
mod ending;
mod job;
mod sweep;
mod census;
mod users;
mod registry;
mod owner;
mod mark;
mod stored;
mod row;
mod key;
mod step;
mod query;
mod single;
mod batch;
mod call;
mod error;

#[cfg(feature = "conformance")]
mod harness;

pub use cache::DynamoCache;
pub use config::{CallConfig, DynamoCacheConfig, DynamoConfig};
#[cfg(feature = "conformance")]
pub use harness::{DynamoCacheHarness, DynamoHarness};
pub use migrate::{create_table, table_definition};
pub use policy::{Access, minimal_policy};
pub use store::DynamoStore;
