//! Every named scenario of the shipped protocol, and the mutants that must be noticed.

use std::sync::Arc;
use std::thread;

use session_store_core::Clock;
use session_store_core::conformance::explore::{MUTANTS, Pair, SCENARIOS, explore};
use session_store_memory::{MemoryCache, MemoryCacheConfig, MemoryStore};

fn pair(clock: Arc<dyn Clock>) -> Pair {
    let cache = MemoryCache::new(&MemoryCacheConfig::default(), clock);
    Pair { primary: Arc::new(MemoryStore::new()), secondary: Arc::new(cache) }
}

#[test]
fn every_scenario_holds_and_a_million_schedules_were_run() {
    let total: u64 = thread::scope(|scope| {
        let runs: Vec<_> = SCENARIOS
            .iter()
            .map(|scenario| (scenario, scope.spawn(|| explore(scenario, &pair))))
            .collect();
        runs.into_iter()
            .map(|(scenario, run)| {
                let found = run.join().unwrap();
                eprintln!("{:<32} {:>8} schedules", scenario.name, found.schedules);
                assert!(found.is_clean(), "{}: {found:#?}", scenario.name);
                let minimum = scenario.minimum;
                assert!(found.schedules >= minimum, "{}: {}", scenario.name, found.schedules);
                found.schedules
            })
            .sum()
    });
    eprintln!("{total} schedules");
    assert!(total >= 1_000_000, "{total}");
}

#[test]
fn every_mutant_is_noticed() {
    for mutant in MUTANTS {
        let found = explore(&mutant.scenario, &pair);
        assert!(found.violations > 0, "{} went unnoticed: {found:?}", mutant.name);
        eprintln!("{:<44} noticed after {:>6} schedules", mutant.name, found.schedules);
    }
}
