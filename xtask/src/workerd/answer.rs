//! What the suite inside the runtime answers, as reports.

use std::time::Duration;

use serde_json::Value;
use session_store_core::conformance::{AdapterReport, CaseReport, Verdict};

use crate::cli::Failure;

/// Adds a line, which is a case of a suite, to the reports.
pub(super) fn add(reports: &mut Vec<AdapterReport>, line: &Value) -> Result<(), Failure> {
    let (Some(suite), Some(name)) = (line["suite"].as_str(), line["name"].as_str()) else {
        return Err(Failure::new(format!("the suite answered {line}")));
    };
    let place = reports.iter().position(|report| report.name == suite).unwrap_or_else(|| {
        reports.push(AdapterReport { name: suite.to_owned(), role: role(line), cases: Vec::new() });
        reports.len() - 1
    });
    let case = match line["error"].as_str() {
        None => case(name, &line["report"]["cases"][0])?,
        // A trap, or an instance that hangs: there is no report to take the rest from.
        Some(error) => CaseReport {
            id: "",
            name: keep(name),
            title: "",
            verdict: Verdict::Fail { detail: error.to_owned() },
        },
    };
    reports[place].cases.push(case);
    Ok(())
}

fn role(line: &Value) -> &'static str {
    match line["report"]["role"].as_str() {
        Some("primary") => "primary",
        Some("secondary") => "secondary",
        _ => "layered",
    }
}

fn case(name: &str, case: &Value) -> Result<CaseReport, Failure> {
    let text = |field: &str| {
        let missing = || Failure::new(format!("the report of {name} has no {field}"));
        case[field].as_str().ok_or_else(missing)
    };
    let verdict = match text("verdict")? {
        "pass" => Verdict::Pass,
        "weak" => Verdict::Weak {
            capability: text("capability")?.to_owned(),
            bound: Duration::from_millis(case["bound_ms"].as_u64().unwrap_or_default()),
        },
        _ => Verdict::Fail { detail: text("detail")?.to_owned() },
    };
    Ok(CaseReport { id: keep(text("id")?), name: keep(name), title: keep(text("title")?), verdict })
}

/// Reports are made of the suite's own texts, which live for ever; so do these.
fn keep(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(verdict: &str) -> Value {
        let case = json!({
            "id": "S-01", "title": "It is.", "verdict": verdict,
            "capability": "eventual", "bound_ms": 60_000, "detail": "no",
        });
        let report = json!({ "name": "kv", "role": "secondary", "cases": [case] });
        json!({ "suite": "kv", "name": "it_is", "report": report })
    }

    #[test]
    fn every_verdict_arrives() {
        let mut reports = Vec::new();
        for verdict in ["pass", "weak", "fail"] {
            add(&mut reports, &line(verdict)).unwrap();
        }
        let bound = Duration::from_mins(1);
        let verdicts: Vec<_> = reports[0].cases.iter().map(|case| case.verdict.clone()).collect();
        let capability = "eventual".to_owned();
        let wanted = [
            Verdict::Pass,
            Verdict::Weak { capability, bound },
            Verdict::Fail { detail: "no".to_owned() },
        ];
        assert_eq!(verdicts, wanted);
        assert_eq!((reports.len(), reports[0].role), (1, "secondary"));
    }

    #[test]
    fn a_trap_is_a_failed_case_and_nonsense_is_no_answer() {
        let mut reports = Vec::new();
        add(&mut reports, &json!({ "suite": "kv", "name": "it_is", "error": "500" })).unwrap();
        assert_eq!(reports[0].counts(), (0, 1));
        assert!(add(&mut reports, &json!({ "suite": "kv" })).is_err());
        assert!(add(&mut reports, &json!({ "suite": "kv", "name": "x", "report": {} })).is_err());
    }
}
