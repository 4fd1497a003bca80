//! What must happen in the background: touches, the log, the sweep.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Sessions;
use super::touch::FLUSH_EVERY;
use crate::error::{Error, Result};
use crate::primary::{PrimaryStore, SweepBounds, Swept};
use crate::secondary::SecondaryStore;
use crate::time::Timestamp;
use crate::token::SessionId;

/// How often things are done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MaintenanceConfig {
    /// How often the invalidation log is drained. Default: 1 s.
    pub drain_every: Duration,
    /// How often dead sessions are removed, between half and one and a half of it. Default: 1 h.
    pub sweep_every: Duration,
    /// How many dead sessions one statement removes. Default: 500.
    pub sweep_batch: u32,
}

impl MaintenanceConfig {
    const LONGEST: Duration = Duration::from_hours(365 * 24);
}

impl Default for MaintenanceConfig {
    fn default() -> Self {
        Self {
            drain_every: Duration::from_secs(1),
            sweep_every: Duration::from_hours(1),
            sweep_batch: 500,
        }
    }
}

/// How the background work is doing.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// When the last round without an error ended.
    pub last_success: Option<Timestamp>,
    /// Errors since that round.
    pub failures: u64,
    /// The last error.
    pub last_error: Option<Error>,
    /// Sessions swept since the start.
    pub swept: u64,
    /// Log entries drained since the start.
    pub drained: u64,
}

/// The background work of one process, as one future that the application spawns.
#[derive(Debug)]
#[must_use = "spawn `run`, or call `run_once` from a scheduler"]
pub struct Maintenance<P, S> {
    sessions: Sessions<P, S>,
    config: MaintenanceConfig,
    health: Arc<Mutex<Health>>,
}

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Sessions<P, S> {
    /// The background work of this process.
    ///
    /// # Contract
    /// - Rounds of no length, or of more than a year, and batches of nothing are `Configuration`
    ///   \[X8-Y-19\].
    pub fn maintenance(&self, config: MaintenanceConfig) -> Result<Maintenance<P, S>> {
        let lengths = [config.drain_every, config.sweep_every];
        let is_fit = |length: &Duration| !length.is_zero() && *length <= MaintenanceConfig::LONGEST;
        if config.sweep_batch == 0 || !lengths.iter().all(is_fit) {
            let what = "maintenance: more than zero, and at most a year between two rounds";
            return Err(Error::configuration("core", what));
        }
        Ok(Maintenance { sessions: self.clone(), config, health: Arc::default() })
    }

    /// Removes dead sessions, at most `limit` of them.
    ///
    /// # Contract
    /// - Nothing is removed that a clock within `max_skew` of this one could call alive
    ///   \[P-79 X8-Y-07\].
    /// - A host whose clock is further from the server's than `max_skew` is refused \[X8-Y-07\].
    pub async fn sweep(&self, limit: u32) -> Result<Swept> {
        let (store, now) = (self.store(), self.host().now());
        let max_skew = store.config().max_skew;
        let probe = store.primary().find(&SessionId::generate(now)?).await?;
        let mut before = now;
        if let Some(server) = probe.server_time {
            if server.distance(now) > max_skew {
                let what = "clock differs from the server's by more than max_skew: not sweeping";
                return Err(Error::configuration("core", what));
            }
            before = before.min(server);
        }
        let bounds = SweepBounds {
            expired_before: before.minus(max_skew),
            revoked_before: before.minus(max_skew).minus(self.policy().retention),
        };
        store.primary().sweep(&bounds, limit).await
    }
}

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Maintenance<P, S> {
    /// A handle to read the health from, also while `run` runs.
    pub fn health(&self) -> Arc<Mutex<Health>> {
        Arc::clone(&self.health)
    }

    /// Works until it is dropped.
    ///
    /// # Contract
    /// - Errors are logged and counted, and the next round is tried; a dropped future does nothing
    ///   more \[P-84\].
    /// - Use is written every five seconds \[X8-Y-22\].
    pub async fn run(self) {
        let host = self.sessions.host().clone();
        let touches = &self.sessions.shared.touches;
        // From now on nobody else needs to schedule a flush.
        let _claim = touches.take_schedule();
        let mut flush_at = host.clock.monotonic();
        let mut sweep_at = flush_at + self.jittered();
        loop {
            host.runtime.sleep(self.config.drain_every).await;
            let now = host.clock.monotonic();
            self.note(self.drain().await);
            if now >= flush_at {
                flush_at = now + FLUSH_EVERY;
                self.note(self.sessions.flush_touches().await.map(drop));
            }
            if now >= sweep_at {
                sweep_at = now + self.jittered();
                self.note(self.sweep_all().await);
            }
        }
    }

    /// One round of everything, for hosts that run jobs by a schedule.
    ///
    /// # Contract
    /// - Touches are written, the log is drained, dead sessions are removed \[X8-Y-08\].
    pub async fn run_once(&self) -> Result<()> {
        let flushed = self.sessions.flush_touches().await.map(drop);
        let drained = self.drain().await;
        let swept = self.sweep_all().await;
        let outcome = flushed.and(drained).and(swept);
        self.note(outcome.clone());
        outcome
    }

    async fn drain(&self) -> Result<()> {
        let drained = self.sessions.store().drain().await?;
        self.health.lock().drained += drained;
        Ok(())
    }

    async fn sweep_all(&self) -> Result<()> {
        loop {
            let swept = self.sessions.sweep(self.config.sweep_batch).await?;
            self.health.lock().swept += swept.removed;
            if !swept.more {
                return Ok(());
            }
        }
    }

    fn note(&self, outcome: Result<()>) {
        let now = self.sessions.host().now();
        let mut health = self.health.lock();
        match outcome {
            Ok(()) => {
                health.last_success = Some(now);
                health.failures = 0;
            }
            Err(error) => {
                tracing::error!(%error, "maintenance failed");
                health.failures += 1;
                health.last_error = Some(error);
            }
        }
    }

    /// Between half and one and a half of `sweep_every`, so that many nodes don't sweep at once.
    fn jittered(&self) -> Duration {
        let mut random = [0; 2];
        // Without randomness the sweep merely has no jitter.
        let _ = getrandom::fill(&mut random);
        let share = f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX);
        self.config.sweep_every.mul_f64(0.5 + share)
    }
}
