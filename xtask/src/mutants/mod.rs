//! `cargo xtask mutants`: shows that the suite notices what it must.
//!
//! The cases of a role run against stores, caches and nodes that are broken in one way each. A mutant
//! that no case notices fails the command, and so does a case that notices no mutant, unless it is
//! named with the reason in `session-store-core/conformance/ledger/idle.toml`.

mod cache;
mod idle;
mod layered;
mod primary;
mod report;
mod stage;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use futures_executor::block_on;
use parking_lot::Mutex;
use session_store_core::Clock;
use session_store_core::conformance::explore::{MUTANTS, Mutant as Explored, Pair, explore};
use session_store_core::conformance::{
    AdapterReport, Filter, Verdict as Found, run_layered, run_primary, run_secondary, run_twisted,
};
use session_store_memory::{MemoryCache, MemoryCacheConfig, MemoryStore};

use crate::cli::{Failure, Verdict};
use layered::Place;
use report::{Caught, Report};
use stage::Stage;

/// What is broken.
#[derive(Clone, Copy, Debug)]
enum Broken {
    Primary(primary::Defect),
    Secondary(cache::Defect),
    Layered(Place),
    Explored(&'static Explored),
}

/// One mutant: what is broken, where it was seen, and in a sentence.
type Mutant = (Broken, &'static str, &'static str);

/// What an honest pair of stores comes to.
struct Control {
    reports: [AdapterReport; 3],
}

impl Control {
    fn run() -> Self {
        let honest = Stage::new(primary::Defect::Nothing, cache::Defect::Nothing);
        let all = &Filter::All;
        Self {
            reports: block_on(async {
                [
                    run_primary(honest, all).await,
                    run_secondary(honest, all).await,
                    run_layered(honest, honest, all).await,
                ]
            }),
        }
    }

    /// The cases of `role` that need a shell, which memory does not have.
    fn weak(&self, role: &str) -> Vec<Filter> {
        let report = self.reports.iter().filter(|report| report.role == role);
        let cases = report.flat_map(|report| &report.cases);
        cases
            .filter(|case| matches!(case.verdict, Found::Weak { .. }))
            .map(|case| Filter::Named(case.name.to_owned()))
            .collect()
    }
}

/// Runs every mutant; the last line is `N passed, N failed`.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<Verdict, Failure> {
    let json = match arguments {
        [] => None,
        [flag, path] if flag == "--json" => Some(PathBuf::from(path)),
        _ => return Err(Failure::new("mutants: the only option is `--json FILE`")),
    };
    let reasons = idle::read(root)?;
    let control = Control::run();
    let caught = all_caught(&control)?;
    Report::new(&control.reports, caught, &reasons).tell(json.as_deref())
}

fn catalogue() -> Vec<Mutant> {
    let stores = primary::TABLE.iter().map(|&(it, at, what)| (Broken::Primary(it), at, what));
    let caches = cache::TABLE.iter().map(|&(it, at, what)| (Broken::Secondary(it), at, what));
    let pairs = layered::TABLE.iter().map(|&(it, at, what)| (Broken::Layered(it), at, what));
    let explored =
        MUTANTS.iter().map(|it| (Broken::Explored(it), "coherence 5.2", "every schedule is run"));
    // The explorer takes longest, and first is best for what takes long.
    explored.chain(pairs).chain(stores).chain(caches).collect()
}

/// Every mutant, on as many threads as there are cores, in the order of the catalogue.
fn all_caught(control: &Control) -> Result<Vec<Caught>, Failure> {
    let catalogue = catalogue();
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutant) = catalogue.get(number) else { break };
                    let result = caught(mutant, control);
                    results.lock().push((number, result));
                }
            });
        }
    });
    let mut results = results.into_inner();
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Which cases notice the mutant.
fn caught(&(broken, source, defect): &Mutant, control: &Control) -> Result<Caught, Failure> {
    let (name, role) = match broken {
        Broken::Primary(it) => (format!("{it:?}"), "primary"),
        Broken::Secondary(it) => (format!("{it:?}"), "secondary"),
        Broken::Layered(it) => (format!("{it:?}"), "layered"),
        Broken::Explored(it) => (format!("Explored({})", it.name), "layered"),
    };
    let killed_by = match broken {
        Broken::Explored(mutant) => {
            let is_noticed = explore(&mutant.scenario, &pair).violations > 0;
            is_noticed.then(|| EXPLORER.to_owned()).into_iter().collect()
        }
        _ => killers(&trial(broken, control)?),
    };
    Ok(Caught { name, role, source, defect, killed_by })
}

/// The id of the explorer, which is no case but runs every schedule of one.
const EXPLORER: &str = "K6-X01";

fn pair(clock: Arc<dyn Clock>) -> Pair {
    let cache = MemoryCache::new(&MemoryCacheConfig::default(), clock);
    Pair { primary: Arc::new(MemoryStore::new()), secondary: Arc::new(cache) }
}

fn killers(reports: &[AdapterReport]) -> Vec<String> {
    let cases = reports.iter().flat_map(|report| &report.cases);
    let failed = cases.filter(|case| matches!(case.verdict, Found::Fail { .. }));
    failed.map(|case| case.id.to_owned()).collect()
}

/// Runs the cases of the mutant's role against it.
fn trial(broken: Broken, control: &Control) -> Result<Vec<AdapterReport>, Failure> {
    const SHELL: [primary::Defect; 3] = [
        primary::Defect::HidesDamage,
        primary::Defect::SpreadsDamage,
        primary::Defect::ShellsAreNotLogged,
    ];
    let nothing = (primary::Defect::Nothing, cache::Defect::Nothing);
    let (role, (store, cache), quirk) = match broken {
        Broken::Primary(it) => ("primary", (it, nothing.1), None),
        Broken::Secondary(it) => ("secondary", (nothing.0, it), None),
        Broken::Layered(Place::Primary(it)) => ("layered", (it, nothing.1), None),
        Broken::Layered(Place::Cache(it)) => ("layered", (nothing.0, it), None),
        Broken::Layered(Place::Node(quirk)) => ("layered", nothing, Some(quirk)),
        Broken::Explored(_) => return Ok(Vec::new()),
    };
    let (stage, filters) = if SHELL.contains(&store) {
        let stage = Stage::with_shell(store);
        (stage.map_err(|error| Failure::new(error.to_string()))?, control.weak(role))
    } else {
        (Stage::new(store, cache), vec![Filter::All])
    };
    let twist = quirk.map(stage::twist);
    let run = async |filter| match (role, twist) {
        ("primary", _) => run_primary(stage, filter).await,
        ("secondary", _) => run_secondary(stage, filter).await,
        (_, None) => run_layered(stage, stage, filter).await,
        (_, Some(twist)) => run_twisted(stage, stage, twist, filter).await,
    };
    let mut reports = Vec::new();
    for filter in &filters {
        reports.push(block_on(run(filter)));
    }
    Ok(reports)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_mutant_stands_in_the_catalogue_twice() {
        let names: BTreeSet<_> =
            catalogue().iter().map(|(broken, ..)| format!("{broken:?}")).collect();
        assert_eq!(names.len(), catalogue().len());
    }

    #[test]
    fn an_honest_pair_passes() {
        let control = Control::run();
        for report in &control.reports {
            report.assert_conforms();
        }
        assert!(!control.weak("primary").is_empty());
    }

    #[test]
    fn a_mutant_is_noticed_by_the_case_of_its_rule() {
        let reports = trial(Broken::Primary(primary::Defect::UpdatesRevive), &Control::run());
        assert!(killers(&reports.unwrap()).contains(&"P-33".to_owned()));
    }

    #[test]
    fn options_are_read_and_unknown_ones_refused() {
        for wrong in [vec!["--json"], vec!["--fast", "x"], vec!["--json", "a", "b"]] {
            let words: Vec<_> = wrong.into_iter().map(str::to_owned).collect();
            assert!(run(Path::new("/nowhere"), &words).is_err());
        }
    }
}
