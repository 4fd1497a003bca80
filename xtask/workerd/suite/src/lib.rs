//! The conformance suite as a Worker. It runs inside workerd, against real bindings, and answers
//! with reports; `cargo xtask conformance` asks it, a case at a time.
//!
//! `GET /cases?suite=NAME` lists the names of all cases, `GET /run?suite=NAME&case=NAME` runs one,
//! `GET /clock` shows that time passes for a namespace, and `GET /refusals` what is said to input and
//! surroundings that can't work.

mod turn;
mod refusals;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use session_store_core::conformance::{
    AdapterReport, Filter, PrimaryHarness, Report, Verdict, layered_cases, primary_cases,
    run_layered, run_primary, run_secondary, secondary_cases,
};
use session_store_core::{Error, ErrorKind, Result};
use session_store_kv::d1::D1Harness;
use session_store_kv::workers::{KvClock, WorkersKvHarness, edge_cases, run_edge};
use session_store_memory::MemoryHarness;
use worker::send::SendFuture;
use worker::{Context, Env, Fetcher, Request, Response, event};

/// The namespace as two locations of the edge see it.
const EDGE: &str = "workers-kv-edge";

/// The clock of the namespaces, moved by whoever started the runtime.
#[derive(Debug)]
struct Simulated(Fetcher);

#[async_trait]
impl KvClock for Simulated {
    async fn pass(&self, length: Duration) -> Result<()> {
        let failed = || Error::new(ErrorKind::Unavailable, "clock");
        let url = format!("http://clock/pass?ms={}", length.as_millis());
        let answer = SendFuture::new(self.0.fetch(url, None)).await.map_err(|_| failed())?;
        if answer.status_code() == 200 { Ok(()) } else { Err(failed()) }
    }
}

/// What is to be run.
struct Asked {
    suite: String,
    case: Option<String>,
}

impl Asked {
    fn of(request: &Request) -> worker::Result<Self> {
        let url = request.url()?;
        let value = |name: &str| {
            url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
        };
        Ok(Self { suite: value("suite").unwrap_or_default(), case: value("case") })
    }

    fn pair(&self) -> Option<(&str, &str)> {
        self.suite.strip_prefix("layered:")?.split_once('+')
    }

    fn cases(&self) -> Vec<&'static str> {
        match self.pair() {
            Some((_, second)) if second == EDGE => edge_cases(),
            Some(_) => layered_cases(),
            None if self.suite == "d1" => primary_cases(),
            None => secondary_cases(),
        }
    }

    /// Cases that let time pass run over a namespace whose clock can be moved, which takes small
    /// values only.
    fn namespace(&self) -> &'static str {
        let timed = session_store_core::secondary_ttl!(names);
        let is_timed = self.case.as_deref().is_some_and(|case| timed.contains(&case));
        if is_timed { "KV_CLOCK" } else { "KV" }
    }
}

/// Harnesses live as long as the suite; this Worker lives for one run.
fn keep<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn cache(asked: &Asked, env: &Env, name: &str) -> worker::Result<&'static WorkersKvHarness> {
    let clock = Arc::new(Simulated(env.service("CLOCK")?));
    let harness = WorkersKvHarness::new(env.kv(asked.namespace())?, clock);
    match name {
        "workers-kv" | EDGE => Ok(keep(harness)),
        _ => Err(format!("no cache is called {name:?}").into()),
    }
}

/// What a case has come to over `cache`: a case whose time did not pass has shown nothing.
fn judged(mut report: AdapterReport, cache: &WorkersKvHarness) -> AdapterReport {
    if let Some(stopped) = cache.stopped() {
        for case in &mut report.cases {
            let detail = format!("time did not pass for the namespace: {stopped}");
            case.verdict = Verdict::Fail { detail };
        }
    }
    report
}

/// Whether the clock by which the namespace counts its own TTLs can be moved: entries carry their own end,
/// and no case would notice.
async fn clock(env: &Env) -> worker::Result<()> {
    let kv = env.kv("KV_CLOCK")?;
    let time = Simulated(env.service("CLOCK")?);
    kv.put("clock", "here")?.expiration_ttl(60).execute().await?;
    for (secs, wanted) in [(59, true), (2, false)] {
        let passed = time.pass(Duration::from_secs(secs)).await;
        passed.map_err(|error| format!("time does not pass for the namespace: {error}"))?;
        if kv.get("clock").text().await?.is_some() != wanted {
            let what = if wanted { "is gone" } else { "is there" };
            return Err(format!("a value of 60 s {what} after {secs} s more").into());
        }
    }
    Ok(())
}

fn primary(env: &Env, name: &str) -> worker::Result<&'static dyn PrimaryHarness> {
    match name {
        "memory" => Ok(keep(MemoryHarness::default())),
        "d1" => Ok(keep(D1Harness::new(env))),
        _ => Err(format!("no primary store is called {name:?}").into()),
    }
}

async fn run(asked: &Asked, env: &Env) -> worker::Result<AdapterReport> {
    let filter = asked.case.clone().map_or(Filter::All, Filter::Named);
    match asked.pair() {
        Some((first, EDGE)) => {
            let (primary, cache) = (primary(env, first)?, cache(asked, env, EDGE)?);
            Ok(run_edge(primary, cache, asked.case.as_deref()).await)
        }
        Some((first, second)) => {
            let cache = cache(asked, env, second)?;
            Ok(judged(run_layered(primary(env, first)?, cache, &filter).await, cache))
        }
        None if asked.suite == "d1" => Ok(run_primary(primary(env, "d1")?, &filter).await),
        None => {
            let cache = cache(asked, env, &asked.suite)?;
            Ok(judged(run_secondary(cache, &filter).await, cache))
        }
    }
}

#[event(fetch)]
async fn fetch(request: Request, env: Env, context: Context) -> worker::Result<Response> {
    let asked = Asked::of(&request)?;
    match request.path().as_str() {
        "/cases" => Response::from_json(&asked.cases()),
        "/run" => {
            let report =
                Report { adapters: vec![Box::pin(turn::in_turns(run(&asked, &env))).await?] };
            Response::ok(report.to_json())
        }
        "/clock" => {
            clock(&env).await?;
            Response::ok("null")
        }
        "/refusals" => Response::from_json(&refusals::all(&env, &context).await),
        path => Response::error(format!("nothing is at {path}"), 404),
    }
}
