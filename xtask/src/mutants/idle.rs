//! The cases that notice no mutant, each with its reason, as written down by hand.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::cli::Failure;

/// Where the reasons are.
pub(super) const PATH: &str = "session-store-core/conformance/ledger/idle.toml";

/// The reason by the ids of the case.
pub(super) type Reasons = BTreeMap<String, String>;

/// Reads the reasons.
pub(super) fn read(root: &Path) -> Result<Reasons, Failure> {
    let text = fs::read_to_string(root.join(PATH)).map_err(|error| Failure::io(PATH, &error))?;
    parse(&text).map_err(|what| Failure::new(format!("{PATH}: {what}")))
}

/// Tables `[[idle]]` of an `id` and a `reason`, with comments and nothing else.
fn parse(text: &str) -> Result<Reasons, String> {
    let mut reasons = Reasons::new();
    let mut id = None;
    for (line, number) in text.lines().zip(1..) {
        let wrong = || format!("line {number}: `[[idle]]`, `id = \"..\"`, `reason = \"..\"`");
        let value = |key: &str| {
            let value = line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')?;
            (!value.is_empty() && !value.contains(['"', '\\'])).then(|| value.to_owned())
        };
        match line {
            "" => {}
            "[[idle]]" if id.is_none() => {}
            comment if comment.starts_with('#') => {}
            _ if id.is_none() => id = Some(value("id").ok_or_else(wrong)?),
            _ => {
                let reason = value("reason").ok_or_else(wrong)?;
                let named = id.take().unwrap_or_default();
                if reasons.insert(named.clone(), reason).is_some() {
                    return Err(format!("line {number}: `{named}` stands here twice"));
                }
            }
        }
    }
    id.map_or(Ok(reasons), |id| Err(format!("`{id}` has no reason")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_read() {
        let text = "# by hand\n\n[[idle]]\nid = \"P-08\"\nreason = \"asks no store\"\n";
        assert_eq!(parse(text).unwrap()["P-08"], "asks no store");
        assert_eq!(parse("").unwrap().len(), 0);
    }

    #[test]
    fn anything_else_is_refused() {
        let entry = "[[idle]]\nid = \"P-08\"\nreason = \"x\"\n";
        for wrong in [
            "[[idle]]\nid = \"P-08\"\n",
            "[[idle]]\nid = \"P-08\"\nreason = \"\"\n",
            "[[idle]]\nreason = \"x\"\n",
            "[[idle]]\nid = P-08\nreason = \"x\"\n",
            "[[weak]]\nid = \"P-08\"\nreason = \"x\"\n",
            &entry.repeat(2),
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
