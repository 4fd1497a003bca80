//! Broken users.

use session_store_core::{
    Account, CredentialEpoch, Deleted, Edit, ErrorKind, Result, Session, Timestamp, User,
    UserChange, UserId, UserUpdate, Which,
};

use super::super::stage::pause;
use super::{Broken, Defect};

impl Broken {
    pub(super) async fn add_user(&self, user: &User, now: Timestamp) -> Result<()> {
        let mut user = user.clone();
        if self.defect == Defect::FoldsCase {
            user.id = UserId::new(user.id.as_str().to_lowercase())?;
        }
        let Err(error) = self.inner.insert_user(&user, now).await else { return Ok(()) };
        match (self.defect, error.kind()) {
            (Defect::UsersAreOverwritten, ErrorKind::Conflict) => Ok(()),
            (Defect::AddressesByCase, ErrorKind::Conflict) => {
                user.email = None;
                self.inner.insert_user(&user, now).await
            }
            _ => Err(error),
        }
    }

    pub(super) async fn change_user(
        &self,
        id: &UserId,
        mut version: u64,
        change: &UserChange,
    ) -> Result<UserUpdate> {
        let mut change = change.clone();
        match self.defect {
            Defect::IgnoresUserVersions => {
                let found = self.inner.find_user(id).await?;
                version = found.map_or(version, |found| found.user.version);
            }
            Defect::PasswordsKeepTheEpoch => change.password_hash = Edit::Keep,
            _ => {}
        }
        match self.inner.update_user(id, version, &change).await? {
            UserUpdate::Missing if self.defect == Defect::UserUpdatesCreate => {
                let user = User::new(id.clone(), Timestamp::EPOCH);
                self.inner.insert_user(&user, Timestamp::EPOCH).await?;
                Ok(UserUpdate::Missing)
            }
            UserUpdate::Updated { user, .. } if self.defect == Defect::UserUpdatesNameNothing => {
                Ok(UserUpdate::Updated { user, sessions: Vec::new() })
            }
            other => Ok(other),
        }
    }

    pub(super) async fn remove_user(
        &self,
        id: &UserId,
        until: Timestamp,
    ) -> Result<Option<Deleted>> {
        let quarantine = self.defect != Defect::ForgetsQuarantine;
        let until = if quarantine { until } else { Timestamp::EPOCH };
        let before = self.all_of(id, Which::All).await?;
        if self.defect == Defect::DeletesASnapshot {
            pause().await;
        }
        let Some(mut deleted) = self.inner.delete_user(id, until).await? else {
            let nobody = self.defect == Defect::DeletesNobody;
            return Ok(nobody.then(Deleted::default));
        };
        self.state().deleted.insert(id.clone());
        match self.defect {
            Defect::OrphansStay => self.keep(&before).await?,
            Defect::DeletesTheLastOnly => {
                self.keep(before.split_last().map_or(&[], |(_, rest)| rest)).await?;
            }
            Defect::DeletesAPage => deleted.sessions.truncate(100),
            Defect::DeletesASnapshot => {
                deleted.sessions = before.iter().map(|session| session.id).collect();
            }
            Defect::DeletesEverybodysSessions => {
                let known = self.known_ids();
                self.state().hidden.extend(known);
            }
            _ => {}
        }
        Ok(Some(deleted))
    }

    pub(super) async fn settle(
        &self,
        id: &UserId,
        held: Timestamp,
        until: Timestamp,
    ) -> Result<()> {
        let until = match self.defect {
            Defect::SettlesNothing => held,
            Defect::RestsAreNeverLonger => until.min(held),
            _ => until,
        };
        self.inner.settle_deletion(id, held, until).await
    }

    pub(super) fn shown(&self, mut account: Account) -> Account {
        let state = self.state();
        match self.defect {
            Defect::ForgetsLastLogin => account.user.last_login_at = None,
            Defect::EpochsStartAgain if state.deleted.contains(&account.user.id) => {
                account.credential_epoch = CredentialEpoch::default();
            }
            _ => {}
        }
        account
    }

    /// Leaves sessions of a deleted user behind.
    async fn keep(&self, sessions: &[Session]) -> Result<()> {
        for session in sessions {
            self.haunt(session.clone()).await?;
        }
        Ok(())
    }
}
