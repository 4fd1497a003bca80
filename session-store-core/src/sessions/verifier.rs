//! A handle for services that only check.

use std::sync::Arc;

use super::Sessions;
use super::authenticate::Authentication;
use crate::error::Result;
use crate::layered::Layered;
use crate::observer::Observer;
use crate::policy::Policy;
use crate::primary::PrimaryStore;
use crate::secondary::SecondaryStore;
use crate::token::Token;

/// Recognises users and writes nothing to the primary: the right to read is enough.
///
/// # Contract
/// - It accepts and refuses exactly what [`Sessions`] does, and writes nothing \[X8-Y-09\].
#[derive(Debug)]
pub struct Verifier<P, S> {
    sessions: Sessions<P, S>,
}

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Sessions<P, S> {
    /// A handle that only checks. Use of sessions is not recorded by it.
    pub fn verifier(
        store: Layered<P, S>,
        policy: Policy,
        observer: Arc<dyn Observer>,
    ) -> Result<Verifier<P, S>> {
        Ok(Verifier { sessions: Self::with_access(store, policy, observer, true)? })
    }
}

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Verifier<P, S> {
    /// See [`Sessions::authenticate`].
    pub async fn authenticate(&self, token: &Token) -> Authentication {
        self.sessions.authenticate(token).await
    }

    /// See [`Sessions::authenticate_text`].
    pub async fn authenticate_text(&self, text: &str) -> Authentication {
        self.sessions.authenticate_text(text).await
    }

    /// See [`Sessions::authenticate_fresh`].
    pub async fn authenticate_fresh(&self, token: &Token) -> Authentication {
        self.sessions.authenticate_fresh(token).await
    }
}
