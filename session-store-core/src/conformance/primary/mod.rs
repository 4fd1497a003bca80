//! The cases of [`PrimaryStore`](crate::PrimaryStore).

mod insert;
mod find;
mod update;
mod touch;
mod revoke;
mod users;
mod list;
mod sweep;
mod log;
mod history;

use std::sync::Arc;

use super::harness::{Deed, PrimaryHarness};
use super::report::{AdapterReport, Violation};
use super::runner::{Case, Filter, Outcome, Weakness, judge, unopened};
use super::sample::{NOW, new, session, user};
use crate::error::Result;
use crate::primary::PrimaryStore;
use crate::session::Session;
use crate::token::SessionId;

/// What a case works with: an empty store, another client of it, and a neighbour.
pub(in crate::conformance) struct PrimaryBench {
    pub(super) store: Arc<dyn PrimaryStore>,
    pub(super) second: Arc<dyn PrimaryStore>,
    pub(super) neighbour: Arc<dyn PrimaryStore>,
    pub(super) harness: &'static dyn PrimaryHarness,
    pub(super) namespace: String,
    pub(super) weakness: Weakness,
}

impl std::fmt::Debug for PrimaryBench {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrimaryBench").field("store", &self.store).finish_non_exhaustive()
    }
}

impl PrimaryBench {
    /// Registers users 1 to `count`.
    pub(super) async fn register(&self, count: u16) -> Outcome {
        for number in 1..=count {
            self.store.insert_user(&user(number)?, NOW).await?;
        }
        Ok(())
    }

    /// Stores sessions 1 to `count` of user 1, who is registered.
    pub(super) async fn log_in(&self, count: u16) -> Outcome {
        self.register(1).await?;
        for number in 1..=count {
            self.store.insert(&new(session(number, 1)?), NOW).await?;
        }
        Ok(())
    }

    /// The session as stored.
    pub(super) async fn stored(&self, id: SessionId) -> Result<Option<Session>> {
        Ok(self.store.find(&id).await?.snapshot.map(|snapshot| snapshot.session))
    }

    /// Whether the deed was done; if it can't be, the case is weak by it.
    pub(super) async fn by_hand(&self, deed: &Deed) -> std::result::Result<bool, Violation> {
        let done = self.harness.by_hand(&self.namespace, deed).await?;
        if !done {
            self.weakness.note("no shell", std::time::Duration::ZERO);
        }
        Ok(done)
    }
}

fn cases() -> impl Iterator<Item = &'static Case<PrimaryBench>> {
    [
        insert::CASES,
        find::CASES,
        update::CASES,
        touch::CASES,
        revoke::CASES,
        users::CASES,
        list::CASES,
        sweep::CASES,
        log::CASES,
        history::CASES,
        super::token::CASES,
    ]
    .into_iter()
    .flatten()
}

/// The names of all cases.
pub fn names() -> Vec<&'static str> {
    cases().map(|case| case.name).collect()
}

/// Runs every admitted case against the primary store behind `harness`.
pub async fn run(harness: &'static dyn PrimaryHarness, filter: &Filter) -> AdapterReport {
    let mut report =
        AdapterReport { name: harness.name().to_owned(), role: "primary", cases: Vec::new() };
    for case in cases().filter(|case| filter.admits(case)) {
        let work = async {
            let opened = open(harness, case.namespace('c')).await;
            let (bench, _guards) = opened.map_err(|error| unopened(&error))?;
            (case.run)(&bench).await?;
            Ok(bench.weakness.taken())
        };
        report.cases.push(judge(case, || harness.patience(), work).await);
    }
    report
}

type Guards = [super::harness::Guard; 2];

async fn open(
    harness: &'static dyn PrimaryHarness,
    namespace: String,
) -> Result<(PrimaryBench, Guards)> {
    let (store, guard) = harness.open(&namespace).await?;
    let (neighbour, other_guard) = harness.open(&format!("{namespace}n")).await?;
    let second = harness.reopen(&namespace).await?;
    let weakness = Weakness::default();
    let bench = PrimaryBench { store, second, neighbour, harness, namespace, weakness };
    Ok((bench, [guard, other_guard]))
}
