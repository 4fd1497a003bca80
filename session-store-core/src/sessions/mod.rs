//! The policy: the only place where a session is judged.

mod authenticate;
mod judge;
mod create;
mod rotate;
mod change;
mod revoke;
mod users;
mod touch;
mod maintenance;
mod verifier;

use std::sync::Arc;

pub use authenticate::{Authentication, Live};
pub use change::{DataUpdate, Device, Extended};
pub use create::{Created, Login};
pub use judge::{Presented, Refusal};
pub use maintenance::{Health, Maintenance, MaintenanceConfig};
pub use rotate::{Proof, RotationOutcome};
pub use verifier::Verifier;

use crate::error::Result;
use crate::host::Host;
use crate::layered::Layered;
use crate::observer::{Event, NoObserver, Observer};
use crate::policy::Policy;
use crate::primary::PrimaryStore;
use crate::secondary::SecondaryStore;
use touch::Touches;

/// Logs users in, recognises them, and logs them out.
///
/// A cheap handle over a [`Layered`] store and a [`Policy`]; clones share everything.
///
/// # Contract
/// - After a logout that returned [`Visibility::Immediate`](crate::Visibility), no node accepts the
///   session \[K6-R01\].
/// - An outage is never reported as a logout \[L-15\].
/// - Asking the policy never makes the session immortal: activity moves the idle deadline, and the
///   absolute one caps it \[P-51 P-55\].
#[derive(Debug)]
pub struct Sessions<P, S> {
    shared: Arc<Shared<P, S>>,
}

impl<P, S> Clone for Sessions<P, S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

#[derive(Debug)]
struct Shared<P, S> {
    store: Layered<P, S>,
    policy: Policy,
    observer: Arc<dyn Observer>,
    touches: Touches,
    /// Sessions whose grace is being started, so that a burst of requests writes it once.
    starting: authenticate::Graces,
    is_read_only: bool,
}

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Sessions<P, S> {
    /// Sessions in `store` under `policy`.
    ///
    /// # Contract
    /// - A policy that can't work is `Configuration` \[X8-Y-01\].
    pub fn new(store: Layered<P, S>, policy: Policy) -> Result<Self> {
        Self::observed(store, policy, Arc::new(NoObserver))
    }

    /// The same, with somebody who wants to know.
    pub fn observed(
        store: Layered<P, S>,
        policy: Policy,
        observer: Arc<dyn Observer>,
    ) -> Result<Self> {
        Self::with_access(store, policy, observer, false)
    }

    fn with_access(
        store: Layered<P, S>,
        policy: Policy,
        observer: Arc<dyn Observer>,
        is_read_only: bool,
    ) -> Result<Self> {
        policy.check()?;
        let touches = Touches::default();
        let starting = authenticate::Graces::default();
        let shared = Shared { store, policy, observer, touches, starting, is_read_only };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The store below.
    pub fn store(&self) -> &Layered<P, S> {
        &self.shared.store
    }

    /// The policy in force.
    pub fn policy(&self) -> &Policy {
        &self.shared.policy
    }

    fn host(&self) -> &Host {
        self.shared.store.host()
    }

    fn tell(&self, event: &Event<'_>) {
        self.shared.observer.event(event);
    }
}
