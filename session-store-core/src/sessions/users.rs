//! Users, where they concern sessions.

use super::Sessions;
use crate::error::Result;
use crate::layered::{Changed, Revoked};
use crate::observer::Event;
use crate::primary::{Listing, Page, PrimaryStore};
use crate::secondary::SecondaryStore;
use crate::session::Reason;
use crate::time::Timestamp;
use crate::user::{Account, Email, User, UserChange, UserId, UserUpdate};

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Sessions<P, S> {
    /// The present moment by this host's clock, for building records.
    pub fn now(&self) -> Timestamp {
        self.host().now()
    }

    /// Registers a user.
    ///
    /// # Contract
    /// - A taken id or address is `Conflict`; an id in quarantine is `UnknownUser`
    ///   \[X8-U-02 X8-U-06\].
    pub async fn register_user(&self, user: &User) -> Result<()> {
        self.store().primary().insert_user(user, self.host().now()).await
    }

    /// The user called `id`, with the epoch for a login that follows.
    pub async fn find_user(&self, id: &UserId) -> Result<Option<Account>> {
        self.store().primary().find_user(id).await
    }

    /// The user with this address, with the epoch for a login that follows.
    ///
    /// # Contract
    /// - Any spelling of the address finds the user \[X8-Y-18\].
    pub async fn find_user_by_email(&self, email: &Email) -> Result<Option<Account>> {
        self.store().primary().find_user_by_email(email.normalized()).await
    }

    /// Changes a user; no session shows the old projection afterwards. A change of the password
    /// ends no session: follow it with `revoke_others`.
    pub async fn update_user(
        &self,
        id: &UserId,
        version: u64,
        change: UserChange,
    ) -> Result<Changed<UserUpdate>> {
        self.store().update_user(id, version, change).await
    }

    /// Removes a user with every session; `None` when there is no such user. Sessions that had
    /// ended before are removed, named and counted as well. For how long the id rests:
    /// [`Layered::delete_user`](crate::Layered::delete_user).
    ///
    /// # Contract
    /// - No session of the user is accepted afterwards \[P-60 L-26\].
    pub async fn delete_user(&self, id: &UserId) -> Result<Option<Revoked>> {
        let done = self.store().delete_user(id, self.host().now()).await?;
        if let Some(done) = &done
            && !done.sessions.is_empty()
        {
            self.tell(&Event::Revoked { ids: &done.sessions, reason: Reason::Admin });
        }
        Ok(done)
    }

    /// The users in order of registration.
    pub async fn list_users(&self, page: &Page) -> Result<Listing<User>> {
        self.store().primary().list_users(page).await
    }

    /// How many users there are.
    ///
    /// # Contract
    /// - Users and revoked sessions are each counted once \[X8-Y-18\].
    pub async fn count_users(&self) -> Result<u64> {
        self.store().primary().count_users().await
    }
}
