//! How long sessions live, how often they are written, and what is refused.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::json::Json;
use crate::session::{Metadata, SessionLimit};
use crate::text;
use crate::time::Ttl;

/// What happens to a user agent or device name that is too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LongText {
    /// It is cut, between two characters.
    #[default]
    Truncate,
    /// The login is `TooLarge`.
    Reject,
}

/// The policy of every session of an application.
///
/// Presets quote their sources; [`Policy::check`] refuses what would log active users out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Policy {
    /// How long a session lives without activity. Default: 7 days.
    pub idle_timeout: Ttl,
    /// The same for users who asked to stay logged in. Default: 30 days.
    pub remember_timeout: Ttl,
    /// How long a session lives at most, however active. Default: 90 days.
    pub absolute_timeout: Option<Ttl>,
    /// How long a guest's session lives without activity. Default: 1 day.
    pub guest_timeout: Ttl,
    /// How old `last_seen_at` may get before it is written again. Default: `None`, a tenth of the
    /// session's idle timeout.
    pub touch_interval: Option<Duration>,
    /// How old a secret may get before a rotation is due; `None` turns that off. Default: 1 day.
    pub rotation_interval: Option<Duration>,
    /// How long a replaced secret is still accepted, from the first use of the new one.
    /// Default: 10 s.
    pub rotation_grace: Duration,
    /// How many active sessions a user may have. Default: `None`, any number.
    pub max_sessions: Option<SessionLimit>,
    /// The largest application document, in bytes. Default: 16 KiB.
    pub max_data_bytes: usize,
    /// The longest user agent and device name kept, in bytes. Default: 512.
    pub max_text_bytes: usize,
    /// What happens to longer ones. Default: `Truncate`.
    pub long_text: LongText,
    /// How long revoked sessions are kept for the record. Default: 30 days.
    pub retention: Duration,
}

const fn minutes(count: u32) -> Ttl {
    Ttl::from_secs_const(count * 60)
}

const DAY: u32 = 24 * 60;

impl Default for Policy {
    fn default() -> Self {
        Self {
            idle_timeout: minutes(7 * DAY),
            remember_timeout: minutes(30 * DAY),
            absolute_timeout: Some(minutes(90 * DAY)),
            guest_timeout: minutes(DAY),
            touch_interval: None,
            rotation_interval: Some(Duration::from_hours(24)),
            rotation_grace: Duration::from_secs(10),
            max_sessions: None,
            max_data_bytes: 16 * 1024,
            max_text_bytes: 512,
            long_text: LongText::default(),
            retention: Duration::from_hours(30 * 24),
        }
    }
}

impl Policy {
    fn strict(idle: Ttl, absolute: Ttl) -> Self {
        Self {
            idle_timeout: idle,
            remember_timeout: idle,
            absolute_timeout: Some(absolute),
            guest_timeout: idle,
            ..Self::default()
        }
    }

    /// Re-authentication after 30 days: NIST SP 800-63B (2017), 4.1.3, for AAL1.
    pub fn nist_aal1() -> Self {
        Self::strict(minutes(30 * DAY), minutes(30 * DAY))
    }

    /// 12 hours, or 30 minutes of inactivity: NIST SP 800-63B (2017), 4.2.3, for AAL2.
    pub fn nist_aal2() -> Self {
        Self::strict(minutes(30), minutes(12 * 60))
    }

    /// 12 hours, or 15 minutes of inactivity: NIST SP 800-63B (2017), 4.3.3, for AAL3.
    pub fn nist_aal3() -> Self {
        Self::strict(minutes(15), minutes(12 * 60))
    }

    /// 8 hours, or 30 minutes of inactivity: OWASP Session Management Cheat Sheet, for low-risk
    /// applications.
    pub fn owasp() -> Self {
        Self::strict(minutes(30), minutes(8 * 60))
    }

    /// 4 hours, or 5 minutes of inactivity: OWASP Session Management Cheat Sheet, for applications
    /// of high value.
    pub fn owasp_high_value() -> Self {
        Self::strict(minutes(5), minutes(4 * 60))
    }

    /// How old `last_seen_at` of a session with this idle timeout may get: never more than a quarter
    /// of it, also where one login asked for less than the policy.
    pub fn touch_after(&self, idle_timeout: Ttl) -> Duration {
        let idle = idle_timeout.as_duration();
        self.touch_interval.map_or(idle / 10, |interval| interval.min(idle / 4))
    }

    /// Refuses a policy that can't work.
    ///
    /// # Contract
    /// - A policy under which an active user would be logged out is `Configuration` \[X8-Y-01\].
    pub fn check(&self) -> Result<()> {
        let shortest = self.idle_timeout.min(self.remember_timeout).min(self.guest_timeout);
        let idle = shortest.as_duration();
        if self.touch_interval.is_some_and(|interval| interval > idle / 4) {
            let what = "touch_interval: more than a quarter of an idle timeout would log active \
                        users out";
            return Err(Error::configuration("core", what));
        }
        if self.absolute_timeout.is_some_and(|absolute| absolute < shortest) {
            let what = "absolute_timeout: shorter than an idle timeout";
            return Err(Error::configuration("core", what));
        }
        if self.rotation_interval.is_some_and(|every| every <= self.rotation_grace) {
            let what = "rotation_interval: not longer than rotation_grace";
            return Err(Error::configuration("core", what));
        }
        if self.max_sessions.is_some_and(|limit| limit.max == 0) {
            return Err(Error::configuration("core", "max_sessions: at least 1"));
        }
        Ok(())
    }

    pub(crate) fn check_data(&self, data: &Json, store_limit: usize) -> Result<()> {
        let limit = self.max_data_bytes.min(store_limit);
        if data.as_str().len() > limit {
            return Err(Error::new(ErrorKind::TooLarge { what: "session data", limit }, "core"));
        }
        Ok(())
    }

    /// `metadata` as it may be stored.
    pub(crate) fn fit(&self, metadata: Metadata) -> Result<Metadata> {
        Ok(Metadata {
            ip: metadata.ip,
            user_agent: self.fit_text("user agent", metadata.user_agent)?,
            device: self.fit_text("device", metadata.device)?,
        })
    }

    fn fit_text(&self, what: &'static str, text: Option<String>) -> Result<Option<String>> {
        let Some(text) = text else { return Ok(None) };
        let kept = match self.long_text {
            LongText::Truncate => text::truncate(&text, self.max_text_bytes),
            LongText::Reject => &text,
        };
        text::check(what, kept, self.max_text_bytes)?;
        Ok(Some(kept.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_works() {
        for policy in [
            Policy::default(),
            Policy::nist_aal1(),
            Policy::nist_aal2(),
            Policy::nist_aal3(),
            Policy::owasp(),
            Policy::owasp_high_value(),
        ] {
            policy.check().unwrap();
        }
    }

    #[test]
    fn presets_say_what_their_sources_say() {
        let day = 24 * 60;
        for (policy, idle, absolute) in [
            (Policy::nist_aal1(), 30 * day, 30 * day),
            (Policy::nist_aal2(), 30, 12 * 60),
            (Policy::nist_aal3(), 15, 12 * 60),
            (Policy::owasp(), 30, 8 * 60),
            (Policy::owasp_high_value(), 5, 4 * 60),
            (Policy::strict(minutes(1), minutes(2)), 1, 2),
        ] {
            let timeouts = [policy.idle_timeout, policy.remember_timeout, policy.guest_timeout];
            assert_eq!(timeouts, [minutes(idle); 3]);
            assert_eq!(policy.absolute_timeout, Some(minutes(absolute)));
        }
        let policy = Policy::default();
        assert_eq!(policy.idle_timeout.as_duration(), Duration::from_hours(7 * 24));
        assert_eq!(policy.remember_timeout.as_duration(), Duration::from_hours(30 * 24));
        assert_eq!(policy.retention, Duration::from_hours(30 * 24));
        assert_eq!((policy.max_data_bytes, policy.max_text_bytes), (16_384, 512));
    }

    #[test]
    fn what_just_works_is_accepted() {
        let strict = Policy::strict(minutes(8), minutes(8));
        let quarter = Duration::from_mins(2);
        let policy = Policy { touch_interval: Some(quarter), ..strict };
        policy.check().unwrap();
        assert_eq!(policy.touch_after(minutes(8)), quarter);
        assert_eq!(policy.touch_after(minutes(4)), Duration::from_mins(1));
        let longer = Some(quarter + Duration::from_millis(1));
        assert!(Policy { touch_interval: longer, ..policy.clone() }.check().is_err());
        assert!(Policy { absolute_timeout: Some(minutes(7)), ..policy.clone() }.check().is_err());
        let limit = |max| Some(SessionLimit { max, evict: true });
        assert!(Policy { max_sessions: limit(1), ..policy.clone() }.check().is_ok());
        assert!(Policy { max_sessions: limit(0), ..policy.clone() }.check().is_err());
        let grace = policy.rotation_grace;
        assert!(Policy { rotation_interval: Some(grace), ..policy }.check().is_err());
    }

    #[test]
    fn data_may_be_as_large_as_the_smaller_limit() {
        let policy = Policy { max_data_bytes: 4, ..Policy::default() };
        assert!(policy.check_data(&Json::parse("1234").unwrap(), 9).is_ok());
        assert!(policy.check_data(&Json::parse("12345").unwrap(), 9).is_err());
        assert!(policy.check_data(&Json::parse("12").unwrap(), 1).is_err());
    }

    #[test]
    fn a_policy_that_logs_active_users_out_is_refused() {
        let mut policy = Policy::owasp();
        policy.touch_interval = Some(Duration::from_mins(8));
        assert!(matches!(
            policy.check().unwrap_err().kind(),
            ErrorKind::Configuration { what } if what.contains("touch_interval")
        ));
    }

    #[test]
    fn long_texts_are_cut_or_refused() {
        let mut policy = Policy { max_text_bytes: 2, ..Policy::default() };
        let long = Metadata { user_agent: Some("aé".to_owned()), ..Metadata::default() };
        assert_eq!(policy.fit(long.clone()).unwrap().user_agent.as_deref(), Some("a"));
        policy.long_text = LongText::Reject;
        assert!(policy.fit(long).is_err());
    }
}
