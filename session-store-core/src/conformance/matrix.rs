//! The report for a README: who passes what, and every weaker promise with its bound.

use std::fmt::Write;
use std::time::Duration;

use super::report::{AdapterReport, Report, Verdict};

/// What a declared difference means to somebody who must decide whether to live with it.
const MEANINGS: &[(&str, &str)] = &[
    ("eventual", "another node may still be told what was there before"),
    ("no log", "what is changed past this library ends in a cache by itself, told by nobody"),
    ("no shell", "nothing but this library can change what is stored"),
    ("no dump", "nothing is stored that could be searched for secrets"),
    ("ttl", "an entry may live longer than was asked"),
];

impl Report {
    /// The report for a README: a row per adapter, then every weak case under what it is weak by.
    pub fn markdown(&self) -> String {
        let mut text = "| adapter | role | cases | pass | weak | fail |\n".to_owned();
        text.push_str("|---|---|---:|---:|---:|---:|\n");
        for adapter in &self.adapters {
            let (passed, failed) = adapter.counts();
            let weaker = weak(adapter).count();
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} | {weaker} | {failed} |",
                adapter.name,
                adapter.role,
                adapter.cases.len(),
                passed - weaker,
            );
        }
        let rows: String = self.adapters.iter().map(weaker_promises).collect();
        if !rows.is_empty() {
            text.push_str("\n| adapter | weak by | for at most | cases |\n|---|---|---:|---|\n");
            text.push_str(&rows);
        }
        text
    }
}

/// The weak cases: what each is weak by, its bound, and its ids.
fn weak(adapter: &AdapterReport) -> impl Iterator<Item = (&str, Duration, &str)> {
    adapter.cases.iter().filter_map(|case| match &case.verdict {
        Verdict::Weak { capability, bound } => Some((capability.as_str(), *bound, case.id)),
        Verdict::Pass | Verdict::Fail { .. } => None,
    })
}

/// One row per difference and bound, in the order of the suite.
fn weaker_promises(adapter: &AdapterReport) -> String {
    let mut groups: Vec<(&str, Duration, Vec<&str>)> = Vec::new();
    for (capability, bound, id) in weak(adapter) {
        match groups.iter_mut().find(|group| (group.0, group.1) == (capability, bound)) {
            Some(group) => group.2.push(id),
            None => groups.push((capability, bound, vec![id])),
        }
    }
    let mut rows = String::new();
    for (capability, bound, ids) in groups {
        let meaning = MEANINGS.iter().find(|known| known.0 == capability);
        let meaning = meaning.map_or(String::new(), |known| format!(": {}", known.1));
        // Without a bound there is nothing to outlive: what was asserted instead holds at once.
        let bound = if bound.is_zero() { "-".to_owned() } else { format!("{bound:?}") };
        let (name, ids) = (&adapter.name, ids.join(", "));
        let _ = writeln!(rows, "| `{name}` | {capability}{meaning} | {bound} | {ids} |");
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::super::report::CaseReport;
    use super::*;

    fn case(id: &'static str, bound: Option<Duration>) -> CaseReport {
        let weaker = |bound| Verdict::Weak { capability: "eventual".to_owned(), bound };
        let verdict = bound.map_or(Verdict::Pass, weaker);
        CaseReport { id, name: "a_case", title: "A sentence.", verdict }
    }

    #[test]
    fn weak_cases_of_one_bound_share_a_row() {
        let minute = Some(Duration::from_mins(1));
        let cases = vec![
            case("X-1", minute),
            case("X-2", None),
            case("X-3", minute),
            case("X-4", Some(Duration::ZERO)),
        ];
        let adapter = AdapterReport { name: "kv".to_owned(), role: "secondary", cases };
        let text = Report { adapters: vec![adapter] }.markdown();
        assert!(text.contains("| `kv` | secondary | 4 | 1 | 3 | 0 |"), "{text}");
        let why = "eventual: another node may still be told what was there before";
        assert!(text.contains(&format!("| `kv` | {why} | 60s | X-1, X-3 |")), "{text}");
        assert!(text.contains(&format!("| `kv` | {why} | - | X-4 |")), "{text}");
    }
}
