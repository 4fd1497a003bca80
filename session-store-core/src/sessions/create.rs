//! Logging in.

use super::Sessions;
use crate::error::{Error, ErrorKind, Result};
use crate::json::Json;
use crate::layered::Visibility;
use crate::observer::Event;
use crate::primary::PrimaryStore;
use crate::secondary::SecondaryStore;
use crate::session::{Metadata, NewSession, Reason, Session, SessionIds, SessionLimit};
use crate::text;
use crate::time::{Timestamp, Ttl};
use crate::token::Token;
use crate::user::{Account, CredentialEpoch, UserId};

/// A user whose credentials were just verified, and the circumstances.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Login {
    /// Who.
    pub user: UserId,
    /// The epoch that came with the credentials that were verified.
    pub credential_epoch: CredentialEpoch,
    /// From where. Default: nothing known.
    pub metadata: Metadata,
    /// Whether the user asked to stay logged in. Default: `false`.
    pub remember: bool,
    /// Another idle timeout than the policy's. Default: `None`.
    pub lifetime: Option<Ttl>,
    /// The assurance level reached. Default: `None`.
    pub aal: Option<u8>,
    /// How the user authenticated. Default: empty.
    pub amr: Vec<String>,
    /// The session's name at an identity provider. Default: `None`.
    pub external_sid: Option<String>,
    /// The application's document. Default: `{}`.
    pub data: Json,
}

impl Login {
    /// A login of the user that `account` was found for.
    pub fn of(account: &Account) -> Self {
        Self::new(account.user.id.clone(), account.credential_epoch)
    }

    /// A login of `user`, whose credentials were verified in `credential_epoch`.
    pub fn new(user: UserId, credential_epoch: CredentialEpoch) -> Self {
        Self {
            user,
            credential_epoch,
            metadata: Metadata::default(),
            remember: false,
            lifetime: None,
            aal: None,
            amr: Vec::new(),
            external_sid: None,
            data: Json::default(),
        }
    }
}

/// A session that was created.
#[derive(Debug)]
pub struct Created {
    /// For the client; nobody else ever sees it.
    pub token: Token,
    /// The session as stored.
    pub session: Session,
    /// Older sessions that had to go, to keep the limit.
    pub evicted: SessionIds,
    /// From when on no node accepts those.
    pub visibility: Visibility,
}

/// The longest text of a login that is neither user agent nor device, in bytes.
const MAX_TEXT: usize = 512;

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Sessions<P, S> {
    /// Creates a session for a user whose credentials were just verified.
    ///
    /// # Contract
    /// - The token is accepted from now on, by every node \[P-15 K6-N01\].
    /// - An unknown user is `UnknownUser`; credentials that were changed or revoked since they were
    ///   verified are `StaleCredentials`; nothing is stored \[P-03 K6-A04\].
    /// - A use that could not be written is no failure of a login \[X8-Y-26\].
    /// - Data over the limit is `TooLarge` before any store is asked \[X8-Y-12\].
    /// - Names that are too long are cut where a character ends, or refused, as the policy says
    ///   \[P-101\].
    pub async fn create(&self, login: Login) -> Result<Created> {
        let now = self.host().now();
        let limit = self.policy().max_sessions;
        if limit.is_some() {
            // The least recently used one goes: what is known of use must be known to the store.
            self.flush_touches_of(&login.user).await;
        }
        let (token, session) = self.session_for(login, now)?;
        self.insert(token, session, limit, now).await
    }

    /// Creates a session without a user, for carts and forms before a login.
    ///
    /// # Contract
    /// - It is found like any other, without a user \[X8-Y-03\].
    pub async fn create_guest(&self, metadata: Metadata, data: Json) -> Result<Created> {
        let now = self.host().now();
        self.check_data(&data)?;
        let token = Token::generate(now)?;
        let mut session = self.blank(&token, self.policy().guest_timeout, now);
        session.metadata = self.policy().fit(metadata)?;
        session.data = data;
        self.insert(token, session, None, now).await
    }

    /// The session that `login` asks for, not stored yet.
    pub(super) fn session_for(&self, login: Login, now: Timestamp) -> Result<(Token, Session)> {
        self.check_data(&login.data)?;
        for text in login.amr.iter().chain(&login.external_sid) {
            text::check("amr or external_sid", text, MAX_TEXT)?;
        }
        let policy = self.policy();
        let usual = if login.remember { policy.remember_timeout } else { policy.idle_timeout };
        let idle = login.lifetime.unwrap_or(usual);
        let token = Token::generate(now)?;
        let mut session = self.blank(&token, idle, now);
        session.user_id = Some(login.user);
        session.authenticated_at = Some(now);
        session.metadata = policy.fit(login.metadata)?;
        session.remember = login.remember;
        session.aal = login.aal;
        session.amr = login.amr;
        session.external_sid = login.external_sid;
        session.data = login.data;
        session.credential_epoch = login.credential_epoch;
        Ok((token, session))
    }

    /// A guest's session that nothing is known about.
    fn blank(&self, token: &Token, idle_timeout: Ttl, now: Timestamp) -> Session {
        let absolute = self.policy().absolute_timeout;
        let absolute_expires_at = absolute.map(|length| now.plus(length.as_duration()));
        let deadline = now.plus(idle_timeout.as_duration());
        Session {
            id: token.id(),
            user_id: None,
            secret_hash: token.secret_hash(),
            previous: None,
            created_at: now,
            authenticated_at: None,
            last_seen_at: now,
            expires_at: absolute_expires_at.map_or(deadline, |cap| deadline.min(cap)),
            absolute_expires_at,
            idle_timeout,
            rotated_at: now,
            metadata: Metadata::default(),
            remember: false,
            aal: None,
            amr: Vec::new(),
            external_sid: None,
            data: Json::default(),
            version: 1,
            credential_epoch: CredentialEpoch::default(),
            revoked: None,
        }
    }

    async fn insert(
        &self,
        token: Token,
        session: Session,
        limit: Option<SessionLimit>,
        now: Timestamp,
    ) -> Result<Created> {
        let new = NewSession { session, limit };
        // Boxed, or the future of every login would be as large as all that may happen to it.
        let done = Box::pin(self.store().insert(new.clone(), now)).await?;
        let session = new.session;
        self.tell(&Event::Created { id: session.id, user: session.user_id.as_ref() });
        let evicted = done.update.evicted;
        if !evicted.is_empty() {
            self.tell(&Event::Revoked { ids: &evicted, reason: Reason::Limit });
        }
        Ok(Created { token, session, evicted, visibility: done.visibility })
    }

    pub(super) fn check_data(&self, data: &Json) -> Result<()> {
        self.policy().check_data(data, self.store().primary().promise().max_data_bytes)
    }

    pub(super) fn conflict() -> Error {
        Error::new(ErrorKind::Conflict, "core")
    }
}
