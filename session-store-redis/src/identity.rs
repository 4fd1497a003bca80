//! Who answers: a process, its history, and whether it is in charge. A cache that is served by
//! another process, or by the same one after it followed another, may hold what had been removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use parking_lot::Mutex;

use crate::driver::{Command, Connection, PLAIN_HINT, Reply};
use crate::error::Fault;
use crate::url::Node;

/// What `INFO` says about a server. Empty fields are those that a server does not print.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Another one after every start.
    run: String,
    /// Another one after every promotion.
    history: String,
    is_replica: bool,
    is_cluster: bool,
}

const UNASKED: &str = "the Redis user may not run INFO; grant what RedisConfig::acl_rules lists";

/// The two commands that ask for it.
const QUESTIONS: [Command<'static>; 2] = [
    Command { name: "INFO", args: &[b"server"] },
    Command { name: "INFO", args: &[b"replication"] },
];

impl Identity {
    /// Asks over `connection`, which nobody else uses yet.
    pub(crate) async fn ask(connection: &dyn Connection, node: &Node) -> Result<Self, Fault> {
        // Each by itself: of a pipeline that what is no Redis answers, a library only says that the
        // connection was lost.
        let answers = join_all(QUESTIONS.map(|question| connection.one(question))).await;
        let answers = answers.into_iter().map(|answer| {
            answer.map_err(|fault| match fault {
                Fault::Lost(_) => Fault::Unreachable(format!(
                    "{node}: it closed the connection before it answered; {PLAIN_HINT}"
                )),
                other => other,
            })
        });
        Self::of(answers.collect(), node)
    }

    /// Reads the answers to [`QUESTIONS`].
    fn of(answers: Vec<Result<Reply, Fault>>, node: &Node) -> Result<Self, Fault> {
        let mut identity = Self::default();
        for answer in answers {
            let answer = answer.map_err(|fault| match fault {
                fault if fault.is("NOPERM") => Fault::misconfigured(UNASKED, node),
                other => other,
            })?;
            identity.read(answer.text().unwrap_or_default());
        }
        Ok(identity)
    }

    fn read(&mut self, text: &str) {
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match name {
                "run_id" => value.clone_into(&mut self.run),
                "master_replid" => value.clone_into(&mut self.history),
                "role" => self.is_replica = value != "master",
                "redis_mode" | "server_mode" => self.is_cluster |= value == "cluster",
                _ => {}
            }
        }
    }

    /// Refuses a server that only follows another.
    pub(crate) fn must_lead(&self, node: &Node) -> Result<(), Fault> {
        if self.is_replica {
            let what = "it is a replica; name the master, or its sentinels";
            return Err(Fault::Unreachable(format!("{node}: {what}")));
        }
        Ok(())
    }

    /// Refuses a server that holds only a part of the keys.
    pub(crate) fn must_be_alone(&self, node: &Node) -> Result<(), Fault> {
        if self.is_cluster {
            let what = "the server is a node of a Cluster; name its nodes as Servers::Cluster";
            return Err(Fault::misconfigured(what, node));
        }
        Ok(())
    }

    /// Refuses a server of which no restart and no promotion could be noticed. Its connections say
    /// nothing of that either: whatever stands before it may keep them.
    pub(crate) fn must_have_history(&self, node: &Node) -> Result<(), Fault> {
        if self.history.is_empty() {
            let what = "INFO names no master_replid, so it could not be noticed when removed entries come \
                        back; if they can't, say Rollback::Impossible";
            return Err(Fault::misconfigured(what, node));
        }
        Ok(())
    }
}

/// Who answered last at one place, for all ways to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    last: Option<Identity>,
    /// Nothing is kept there, so nothing can come back.
    is_idle: bool,
}

impl Known {
    /// Notes who answers. Another one than before is a new epoch, counted once, and before anybody can
    /// find it noted.
    pub(crate) fn note(&self, identity: &Identity, watch: &Watch) {
        let mut seen = self.0.lock();
        if seen.is_idle {
            return;
        }
        if seen.last.as_ref().is_some_and(|before| before != identity) {
            watch.changed();
        }
        seen.last = Some(identity.clone());
    }

    /// Notes that nobody could be asked. Whoever answers first after that is another one: what it has
    /// may be of before removals that were acknowledged to others.
    pub(crate) fn missed(&self) {
        let mut seen = self.0.lock();
        if !seen.is_idle {
            seen.last.get_or_insert_with(Identity::default);
        }
    }

    /// From now on nothing is kept there, or something may be. That it is, is a change by itself, so who
    /// was there before need not be known.
    pub(crate) fn set_idle(&self, is_idle: bool) {
        let mut seen = self.0.lock();
        if is_idle {
            seen.last = None;
        }
        seen.is_idle = is_idle;
    }

    /// Whether nobody else was noted since.
    pub(crate) fn is(&self, identity: &Identity) -> bool {
        let seen = self.0.lock();
        seen.is_idle || seen.last.as_ref() == Some(identity)
    }
}

/// Counts how often entries may have come back.
#[derive(Debug, Default)]
pub(crate) struct Watch(AtomicU64);

impl Watch {
    pub(crate) fn epoch(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Notes that another server answers now, or the same with another history.
    pub(crate) fn changed(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
        tracing::warn!(store = crate::error::NAME, "another server answers");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        Node { host: "a".into(), port: 1 }
    }

    fn identity(server: &str, replication: &str) -> Identity {
        let reply = |text: &str| Ok(Reply::Bytes(text.as_bytes().to_vec()));
        Identity::of(vec![reply(server), reply(replication)], &node()).unwrap()
    }

    #[test]
    fn a_restart_and_a_promotion_make_another_server() {
        let server = "# Server\r\nredis_mode:standalone\r\nrun_id:aa\r\n";
        let before = identity(server, "role:master\r\nmaster_replid:01\r\n");
        let node = node();
        assert!(before.must_lead(&node).is_ok() && before.must_be_alone(&node).is_ok());
        assert_eq!(before, identity(server, "role:master\r\nmaster_replid:01\r\nother:1\r\n"));
        assert_ne!(before, identity("run_id:bb\r\n", "role:master\r\nmaster_replid:01\r\n"));
        assert_ne!(before, identity(server, "role:master\r\nmaster_replid:02\r\n"));
    }

    #[test]
    fn one_change_counts_once_whoever_sees_it() {
        let (known, watch) = (Known::default(), Watch::default());
        let other_way = known.clone();
        let [before, after] = ["run_id:aa\r\n", "run_id:bb\r\n"].map(|run| identity(run, ""));
        known.note(&before, &watch);
        other_way.note(&before, &watch);
        assert_eq!(watch.epoch(), 0);
        known.note(&after, &watch);
        assert!(other_way.is(&after) && !other_way.is(&before));
        other_way.note(&after, &watch);
        assert_eq!(watch.epoch(), 1);
    }

    #[test]
    fn whoever_answers_first_is_no_change_unless_somebody_was_missed() {
        let one = identity("run_id:aa\r\n", "");
        for (is_missed, epoch) in [(false, 0), (true, 1)] {
            let (known, watch) = (Known::default(), Watch::default());
            if is_missed {
                known.missed();
            }
            known.note(&one, &watch);
            assert_eq!(watch.epoch(), epoch);
            // Who it was is known now, whether it can be asked or not.
            known.missed();
            known.note(&one, &watch);
            assert_eq!(watch.epoch(), epoch);
        }
    }

    #[test]
    fn whoever_keeps_nothing_may_change() {
        let [one, other] = ["run_id:aa\r\n", "run_id:bb\r\n"].map(|run| identity(run, ""));
        let (known, watch) = (Known::default(), Watch::default());
        known.note(&one, &watch);
        known.set_idle(true);
        known.note(&other, &watch);
        known.missed();
        assert!(known.is(&one) && known.is(&other));
        known.set_idle(false);
        assert!(!known.is(&one) && !known.is(&other), "who is there is asked first");
        known.note(&one, &watch);
        assert_eq!(watch.epoch(), 0);
        known.note(&other, &watch);
        assert_eq!(watch.epoch(), 1);
    }

    #[test]
    fn replicas_and_parts_of_a_cluster_are_told() {
        let node = node();
        let replica = identity("server_mode:cluster\r\n", "role:slave\r\n");
        assert!(matches!(replica.must_lead(&node), Err(Fault::Unreachable(_))));
        assert!(matches!(replica.must_be_alone(&node), Err(Fault::Misconfigured { .. })));
    }

    #[test]
    fn a_server_without_a_history_is_told() {
        let node = node();
        let silent = identity("run_id:aa\r\n", "role:master\r\n");
        assert!(matches!(silent.must_have_history(&node), Err(Fault::Misconfigured { .. })));
        assert!(identity("", "master_replid:01\r\n").must_have_history(&node).is_ok());
    }
}
