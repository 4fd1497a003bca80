//! `cargo xtask faults`: what happens to logged-in people when servers die, hang, lie down and come
//! back. Real servers, real processes, a proxy for the wire.

mod cache;
mod connections;
mod crash;
mod crowd;
mod failover;
mod load;
mod node;
mod pooled;
mod private;
mod proxy;
mod secure;
mod standby;
mod stress;
mod truth;
mod wire;

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::try_join_all;
use session_store::postgres::{PostgresConfig, PostgresHarness};
use session_store::redis::Client;

use crate::cli::{Failure, Verdict, say};
use crate::servers::{Addresses, Lease};
use crate::test::Tally;
use node::{Outcome, said};

/// No case may take longer.
const PATIENCE: Duration = Duration::from_mins(3);

type Run = for<'a> fn(&'a World) -> Pin<Box<dyn Future<Output = Outcome<String>> + 'a>>;

/// What every case may use.
pub(crate) struct World {
    postgres: PostgresHarness,
    /// The Cluster that the tests share; nobody kills it.
    cluster: String,
    stress: Duration,
    name: &'static str,
}

impl World {
    /// An empty schema of the case.
    async fn truth(&self) -> Outcome<PostgresConfig> {
        self.truth_of("all").await
    }

    /// An empty schema of a part of the case. Its name may have 63 bytes, and the harness takes some.
    async fn truth_of(&self, part: &str) -> Outcome<PostgresConfig> {
        let name = format!("{:.28}_{part}", self.name);
        let mut config = self.postgres.fresh(&name).await.map_err(said)?;
        config.compare_clocks = true;
        config.max_connections = 10;
        config.connect_timeout = Duration::from_secs(20);
        Ok(config)
    }
}

/// Both client libraries, and what they are called.
const CLIENTS: [(Client, &str); 2] = [(Client::Redis, "redis"), (Client::Fred, "fred")];

/// What a case comes to with each of them, side by side; each has a schema of its own.
async fn both(
    on: &World,
    case: impl AsyncFn(PostgresConfig, Client) -> Outcome<String>,
) -> Outcome<String> {
    let cases = CLIENTS.map(async |(client, name)| {
        let truth = on.truth_of(name).await?;
        Ok::<_, String>(format!("{name}: {}", case(truth, client).await?))
    });
    Ok(try_join_all(cases).await?.join("; "))
}

/// The ids of the catalogue that a case answers, its name, and the case. It says what it measured.
const CASES: &[(&str, &str, Run)] = &[
    ("K6-R10 K6-R12", "a_lost_removal_is_bounded", |on| {
        Box::pin(wire::a_lost_removal_is_bounded(on))
    }),
    ("K6-R16", "a_lost_reservation_fills_nothing", |on| {
        Box::pin(wire::a_lost_reservation_fills_nothing(on))
    }),
    ("S-48", "a_half_open_connection_is_replaced", |on| {
        Box::pin(wire::a_half_open_connection_is_replaced(on))
    }),
    ("S-48 S-49", "a_slow_wire_and_a_cut_one", |on| Box::pin(wire::a_slow_wire_and_a_cut_one(on))),
    ("S-48", "held_bytes_hold_nobody", |on| Box::pin(wire::held_bytes_hold_nobody(on))),
    ("S-49 L-12", "redis_killed_and_restarted_empty", |on| {
        Box::pin(cache::redis_killed_and_restarted_empty(on))
    }),
    ("K6-H03", "redis_stopped_for_ten_seconds", |on| {
        Box::pin(cache::redis_stopped_for_ten_seconds(on))
    }),
    ("K6-H02", "redis_restarted_from_a_file", |on| {
        Box::pin(cache::redis_restarted_from_a_file(on))
    }),
    ("S-45", "redis_full", |on| Box::pin(cache::redis_full(on))),
    ("S-44 S-45", "redis_evicts", |on| Box::pin(cache::redis_evicts(on))),
    ("", "too_many_clients", |on| Box::pin(cache::too_many_clients(on))),
    ("S-49", "a_node_starts_without_redis", |on| Box::pin(cache::a_node_starts_without_redis(on))),
    ("S-51", "a_replica_is_refused", |on| Box::pin(failover::a_replica_is_refused(on))),
    ("K6-H01", "a_replica_is_promoted_behind_us", |on| {
        Box::pin(failover::a_replica_is_promoted_behind_us(on))
    }),
    ("K6-H01 K6-H03", "a_replica_without_a_removal_takes_over", |on| {
        Box::pin(failover::a_replica_without_a_removal_takes_over(on))
    }),
    ("", "what_others_removed_is_waited_for", |on| {
        Box::pin(failover::what_others_removed_is_waited_for(on))
    }),
    ("K6-R21", "half_a_cluster", |on| Box::pin(failover::half_a_cluster(on))),
    ("S-49 S-51", "the_master_dies_under_sentinel", |on| {
        Box::pin(failover::the_master_dies_under_sentinel(on))
    }),
    ("S-51", "a_master_dies_in_a_cluster", |on| Box::pin(failover::a_master_dies_in_a_cluster(on))),
    ("P-105 P-106", "postgres_killed_and_restarted", |on| {
        Box::pin(truth::postgres_killed_and_restarted(on))
    }),
    ("K6-A05", "sql_typed_by_hand_reaches_redis", |on| {
        Box::pin(truth::sql_typed_by_hand_reaches_redis(on))
    }),
    ("P-106", "postgres_on_a_bad_wire", |on| Box::pin(connections::postgres_on_a_bad_wire(on))),
    ("P-106", "postgres_ends_connections", |on| {
        Box::pin(connections::postgres_ends_connections(on))
    }),
    ("P-106", "every_connection_is_taken", |on| {
        Box::pin(connections::every_connection_is_taken(on))
    }),
    ("K6-A02", "ten_thousand_devices_log_out", |on| {
        Box::pin(crowd::ten_thousand_devices_log_out(on))
    }),
    ("", "a_standby_is_no_truth", |on| Box::pin(standby::a_standby_is_no_truth(on))),
    ("", "what_was_ended_survives_a_crash", |on| {
        Box::pin(crash::what_was_ended_survives_a_crash(on))
    }),
    ("", "a_postgres_leaves_no_memory_behind", |on| {
        Box::pin(private::a_postgres_leaves_no_memory_behind(on))
    }),
    ("", "settings_pass_a_pooler", |on| Box::pin(pooled::settings_pass_a_pooler(on))),
    ("", "poolers_are_refused_by_name", |on| Box::pin(pooled::poolers_are_refused_by_name(on))),
    ("", "certificates_are_checked", |on| Box::pin(secure::certificates_are_checked(on))),
    ("", "passwords_are_checked", |on| Box::pin(secure::passwords_are_checked(on))),
    ("", "a_demand_for_tls_is_named", |on| Box::pin(secure::a_demand_for_tls_is_named(on))),
    ("X01", "stress_redis", |on| Box::pin(stress::stress_redis(on))),
    ("X01", "stress_fred", |on| Box::pin(stress::stress_fred(on))),
    ("X01", "stress_cluster_redis", |on| Box::pin(stress::stress_cluster_redis(on))),
    ("X01", "stress_cluster_fred", |on| Box::pin(stress::stress_cluster_fred(on))),
];

/// `[--case WORDS] [--seconds N]`; `child ..` is what the stress starts.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<Verdict, Failure> {
    if let [word, rest @ ..] = arguments
        && word == "child"
    {
        return stress::child(rest);
    }
    let (mut wanted, mut seconds) = (None, 60);
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let value = rest.next().ok_or_else(|| Failure::new(format!("{flag} needs a value")))?;
        match flag.as_str() {
            "--case" => wanted = Some(value.clone()),
            "--seconds" => {
                let wrong = |_| Failure::new(format!("--seconds: {value:?} is no number"));
                seconds = value.parse().map_err(wrong)?;
            }
            _ => return Err(Failure::new(format!("faults: unknown option {flag:?}"))),
        }
    }
    let servers = Lease::take(root)?;
    let tally = judge(&servers.addresses, wanted.as_deref(), Duration::from_secs(seconds))?;
    say(&format!("{} passed, {} failed", tally.passed, tally.failed));
    Ok(tally.verdict())
}

/// What the faults add to the sum that `cargo xtask test` prints; the stress is short there.
pub(crate) fn tally(servers: &Addresses) -> Result<Tally, Failure> {
    judge(servers, None, Duration::from_secs(10))
}

fn judge(servers: &Addresses, wanted: Option<&str>, stress: Duration) -> Result<Tally, Failure> {
    let address = |variable: &str| {
        let missing = || Failure::new(format!("faults: no {variable}"));
        servers.of(variable).map(str::to_owned).ok_or_else(missing)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::io("tokio", &error))?;
    let mut tally = Tally::default();
    for (ids, name, case) in CASES {
        if wanted.is_some_and(|wanted| !name.contains(wanted)) {
            continue;
        }
        let world = World {
            postgres: PostgresHarness::new(address("SESSION_STORE_POSTGRES_URL")?),
            cluster: address("SESSION_STORE_REDIS_CLUSTER_URL")?,
            stress,
            name,
        };
        let began = Instant::now();
        let outcome = runtime.block_on(held(PATIENCE + stress, case(&world)));
        let took = began.elapsed().as_secs_f32();
        match outcome {
            Ok(figures) => {
                tally.passed += 1;
                say(&format!("  held {ids} {name} ({took:.1} s): {figures}"));
            }
            Err(what) => {
                tally.failed += 1;
                say(&format!("  FAIL {ids} {name} ({took:.1} s): {what}"));
            }
        }
    }
    Ok(tally)
}

/// What a case comes to that may take too long, or panic: the others run all the same.
async fn held<T>(patience: Duration, case: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let late = |_| Err(format!("not done in {patience:?}"));
    let case = AssertUnwindSafe(case).catch_unwind();
    let broken = |panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panicked: {}", text.unwrap_or("without a message")))
    };
    let case = async { case.await.unwrap_or_else(broken) };
    tokio::time::timeout(patience, case).await.unwrap_or_else(late)
}

/// `Err` with `what` unless it holds.
fn ensure(holds: bool, what: &str) -> Outcome {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

/// Waits until `holds`. It is late when a look that began after `length` shows that it does not: one
/// that began before and took long, or began late, shows nothing.
async fn until(
    length: Duration,
    what: &str,
    mut holds: impl AsyncFnMut() -> bool,
) -> Outcome<Duration> {
    let began = Instant::now();
    loop {
        let asked = began.elapsed();
        if holds().await {
            return Ok(began.elapsed());
        }
        if asked > length {
            return Err(format!("not in {length:?}: {what}"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How long anything may take on the busiest machine that is to work in the end.
const BUSIEST: Duration = Duration::from_secs(40);

/// What `deed` comes to when it succeeds, as it does at last unless more than a busy machine is in the way.
async fn at_last<T>(mut deed: impl AsyncFnMut() -> Outcome<T>) -> Outcome<T> {
    let began = Instant::now();
    loop {
        let asked = began.elapsed();
        match deed().await {
            Err(_) if asked <= BUSIEST => tokio::time::sleep(Duration::from_millis(10)).await,
            outcome => return outcome,
        }
    }
}

fn seconds(length: Option<Duration>) -> String {
    length.map_or_else(|| "never".to_owned(), |length| format!("{:.2} s", length.as_secs_f32()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_that_panics_or_hangs_is_one_that_failed() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let patience = Duration::from_secs(5);
        let fine = runtime.block_on(held(patience, async { Ok(7) }));
        assert_eq!(fine, Ok(7));
        let broken = held::<()>(patience, async { panic!("no {}", "way") });
        assert_eq!(runtime.block_on(broken), Err("panicked: no way".to_owned()));
        let hanging = held::<()>(Duration::from_millis(10), std::future::pending());
        assert!(runtime.block_on(hanging).unwrap_err().contains("not done"));
    }
}
