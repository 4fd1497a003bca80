//! What a run of the mutants found: who was caught by what, and who caught nobody.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use session_store_core::conformance::{AdapterReport, Verdict as Found};

use super::idle::{PATH, Reasons};
use crate::cli::{Failure, Verdict, complain, say};

/// How many ids a line shows.
const SHOWN: usize = 4;

/// A mutant, and the cases that notice it.
#[derive(Clone, Debug)]
pub(super) struct Caught {
    pub(super) name: String,
    pub(super) role: &'static str,
    pub(super) source: &'static str,
    pub(super) defect: &'static str,
    /// The ids of each case, as the suite spells them.
    pub(super) killed_by: Vec<String>,
}

/// A case that notices no mutant.
#[derive(Clone, Debug)]
struct Idle {
    id: String,
    name: String,
    reason: Option<String>,
}

/// Everything that a run found.
#[derive(Clone, Debug)]
pub(super) struct Report {
    caught: Vec<Caught>,
    idle: Vec<Idle>,
    /// What else is wrong, a line each.
    complaints: Vec<String>,
}

impl Report {
    /// Compares what was caught with what an honest pair came to, and with the reasons on file.
    pub(super) fn new(control: &[AdapterReport], caught: Vec<Caught>, reasons: &Reasons) -> Self {
        let mut complaints = Vec::new();
        let busy: BTreeSet<_> = caught.iter().flat_map(|mutant| &mutant.killed_by).collect();
        let mut idle = Vec::new();
        let mut known = BTreeSet::new();
        for case in control.iter().flat_map(|report| &report.cases) {
            known.insert(case.id);
            if let Found::Fail { detail } = &case.verdict {
                complaints.push(format!("{} fails without a mutant: {detail}", case.id));
            }
            let reason = reasons.get(case.id).cloned();
            match (busy.contains(&case.id.to_owned()), reason) {
                (true, None) => {}
                (true, Some(_)) => {
                    complaints.push(format!("{} notices a mutant; take it out of {PATH}", case.id));
                }
                (false, reason) => {
                    if reason.is_none() {
                        complaints
                            .push(format!("{} notices nothing, and {PATH} has no reason", case.id));
                    }
                    idle.push(Idle { id: case.id.to_owned(), name: case.name.to_owned(), reason });
                }
            }
        }
        for id in reasons.keys().filter(|id| !known.contains(id.as_str())) {
            complaints.push(format!("{PATH} names {id}, which is no case"));
        }
        Self { caught, idle, complaints }
    }

    /// Prints everything, writes `json`, and says how it went.
    pub(super) fn tell(&self, json: Option<&Path>) -> Result<Verdict, Failure> {
        for mutant in &self.caught {
            say(&mutant.line());
        }
        for case in &self.idle {
            let reason = case.reason.as_deref().unwrap_or("no reason on file");
            say(&format!("idle      {} {}: {reason}", case.id, case.name));
        }
        for complaint in &self.complaints {
            complain(&format!("mutants: {complaint}"));
        }
        if let Some(path) = json {
            let name = path.display().to_string();
            fs::write(path, self.json()).map_err(|error| Failure::io(&name, &error))?;
        }
        let survivors = self.caught.iter().filter(|mutant| mutant.killed_by.is_empty()).count();
        let failed = survivors + self.complaints.len();
        say(&format!("{} passed, {failed} failed", self.caught.len() - survivors));
        Ok(if failed == 0 && !self.caught.is_empty() { Verdict::Held } else { Verdict::Broken })
    }

    fn json(&self) -> String {
        let mutants = self.caught.iter().map(|mutant| {
            json!({
                "name": mutant.name,
                "role": mutant.role,
                "source": mutant.source,
                "defect": mutant.defect,
                "killed_by": mutant.killed_by,
            })
        });
        let idle = self
            .idle
            .iter()
            .map(|case| json!({ "id": case.id, "name": case.name, "reason": case.reason }));
        let (mutants, idle): (Vec<Value>, Vec<Value>) = (mutants.collect(), idle.collect());
        json!({ "mutants": mutants, "idle": idle }).to_string()
    }
}

impl Caught {
    fn line(&self) -> String {
        let Self { name, role, source, defect, killed_by } = self;
        let first = killed_by.iter().map(|ids| ids.split(' ').next().unwrap_or_default());
        let mut ids = first.take(SHOWN).collect::<Vec<_>>().join(" ");
        if killed_by.len() > SHOWN {
            ids.push_str(" ..");
        }
        let (word, count) = match killed_by.len() {
            0 => ("SURVIVES", "by nothing".to_owned()),
            count => ("killed", format!("by {ids} ({count})")),
        };
        format!("{word:<9} {role:<9} {name}, {source}: {defect}; {count}")
    }
}

#[cfg(test)]
mod tests {
    use session_store_core::conformance::CaseReport;

    use super::*;

    fn control() -> [AdapterReport; 1] {
        let case = |id, name| CaseReport { id, name, title: "", verdict: Found::Pass };
        let cases = vec![case("P-01 P-02", "one"), case("P-03", "other")];
        [AdapterReport { name: "m".to_owned(), role: "primary", cases }]
    }

    fn caught(killed_by: &[&str]) -> Caught {
        let killed_by = killed_by.iter().map(ToString::to_string).collect();
        Caught { name: "M".to_owned(), role: "primary", source: "s", defect: "d", killed_by }
    }

    fn reasons(ids: &[&str]) -> Reasons {
        ids.iter().map(|id| (id.to_string(), "reason".to_owned())).collect()
    }

    #[test]
    fn a_case_notices_a_mutant_or_has_a_reason() {
        let report = Report::new(&control(), vec![caught(&["P-01 P-02"])], &reasons(&["P-03"]));
        assert!(report.complaints.is_empty());
        assert_eq!(report.idle.len(), 1);
        assert_eq!(report.tell(None).unwrap(), Verdict::Held);
        let without = Report::new(&control(), vec![caught(&["P-01 P-02"])], &reasons(&[]));
        assert_eq!(without.tell(None).unwrap(), Verdict::Broken);
    }

    #[test]
    fn stale_reasons_are_refused() {
        let all = vec![caught(&["P-01 P-02", "P-03"])];
        assert!(Report::new(&control(), all.clone(), &reasons(&[])).complaints.is_empty());
        for stale in ["P-03", "P-99"] {
            let report = Report::new(&control(), all.clone(), &reasons(&[stale]));
            assert_eq!(report.complaints.len(), 1, "{stale}");
        }
    }

    #[test]
    fn a_survivor_fails() {
        let all = vec![caught(&["P-01 P-02", "P-03"]), caught(&[])];
        let report = Report::new(&control(), all, &reasons(&[]));
        assert!(report.caught[1].line().starts_with("SURVIVES"));
        assert_eq!(report.tell(None).unwrap(), Verdict::Broken);
    }

    #[test]
    fn an_honest_pair_that_fails_is_told() {
        let mut control = control();
        control[0].cases[0].verdict = Found::Fail { detail: "no".to_owned() };
        let all = vec![caught(&["P-01 P-02", "P-03"])];
        assert_eq!(Report::new(&control, all, &reasons(&[])).complaints.len(), 1);
    }
}
