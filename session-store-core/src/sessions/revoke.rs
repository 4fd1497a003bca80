//! Logging out.

use super::Sessions;
use super::authenticate::Live;
use super::judge::Refusal;
use crate::error::Result;
use crate::layered::{Revoked, Visibility};
use crate::observer::Event;
use crate::primary::{PrimaryStore, Selection};
use crate::secondary::SecondaryStore;
use crate::session::Reason;
use crate::token::{SessionId, Token};
use crate::user::UserId;

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Sessions<P, S> {
    /// Ends the session of `token`.
    ///
    /// # Contract
    /// - Once this returned `Immediate`, no node accepts the token \[K6-R01\].
    /// - A second logout is no error, and removes what a cache may still hold \[K6-R08\].
    /// - A wrong secret ends nothing \[X8-Y-06\].
    pub async fn logout(&self, token: &Token) -> Result<Revoked> {
        let checked = self.check(token, self.host().now(), true).await?;
        match checked.verdict {
            Err(Refusal::WrongSecret | Refusal::Replaced { .. } | Refusal::Implausible) => {
                let visibility = Visibility::Immediate;
                Ok(Revoked { count: 0, sessions: Vec::new(), visibility })
            }
            _ => self.end(Selection::One { id: token.id(), owner: None }, Reason::Logout).await,
        }
    }

    /// Ends the session `id` of the user who asks through `live`.
    ///
    /// # Contract
    /// - Another user's session is not touched; ids are public \[X8-Y-10\].
    pub async fn revoke(&self, live: &Live, id: SessionId) -> Result<Revoked> {
        let owner = live.session().user_id.clone();
        // A guest has no other sessions.
        let id = if owner.is_some() { id } else { live.id() };
        self.end(Selection::One { id, owner }, Reason::LogoutRemote).await
    }

    /// Ends any session; for administrators.
    pub async fn admin_revoke(&self, id: SessionId, reason: Reason) -> Result<Revoked> {
        self.end(Selection::One { id, owner: None }, reason).await
    }

    /// Ends every session of `user`; logins verified before are refused.
    ///
    /// # Contract
    /// - Every session of the user is dead on every node, also one whose login raced this call
    ///   \[P-73 L-36\].
    pub async fn revoke_all(&self, user: &UserId, reason: Reason) -> Result<Revoked> {
        self.end(Selection::AllOf(user.clone()), reason).await
    }

    /// Ends every session of the user who asks through `live`, except that one.
    ///
    /// # Contract
    /// - The session that asks stays \[X8-Y-11\].
    pub async fn revoke_others(&self, live: &Live) -> Result<Revoked> {
        match &live.session().user_id {
            Some(user) => {
                let selection = Selection::AllBut(user.clone(), live.id());
                self.end(selection, Reason::LogoutEverywhere).await
            }
            None => self.end(Selection::Ids(Vec::new()), Reason::LogoutEverywhere).await,
        }
    }

    /// Ends sessions of everybody that existed before this call, in steps of `limit`.
    ///
    /// # Contract
    /// - In the end every session of before is dead, on every node, and no later one
    ///   \[P-76 X8-L-17\].
    /// - Every session that was ended is counted and named, however many steps it took \[X8-Y-18\].
    pub async fn revoke_everyone(&self, limit: u32, reason: Reason) -> Result<Revoked> {
        let mut total =
            Revoked { count: 0, sessions: Vec::new(), visibility: Visibility::Immediate };
        let created_before = self.host().now();
        loop {
            let selection = Selection::Everyone { created_before, limit: limit.max(1) };
            let step = self.end(selection, reason).await?;
            total.count += step.count;
            total.visibility = total.visibility.weaker(step.visibility);
            if step.sessions.is_empty() {
                return Ok(total);
            }
            total.sessions.extend(step.sessions);
        }
    }

    async fn end(&self, selection: Selection, reason: Reason) -> Result<Revoked> {
        let done = self.store().revoke(selection, reason, self.host().now()).await?;
        self.shared.touches.forget(&done.sessions);
        if !done.sessions.is_empty() {
            self.tell(&Event::Revoked { ids: &done.sessions, reason });
        }
        Ok(done)
    }
}
