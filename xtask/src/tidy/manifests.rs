//! What every package takes from the workspace instead of writing it again.

use std::path::Path;

use crate::cli::Failure;
use crate::members::Member;
use crate::violation::Violation;

const INHERITED: [(&str, &str); 5] = [
    ("package", "version"),
    ("package", "edition"),
    ("package", "rust-version"),
    ("package", "license"),
    ("lints", ""),
];

/// Checks the manifest of every member.
pub(super) fn check(root: &Path, members: &[Member]) -> Result<Vec<Violation>, Failure> {
    let mut found = Vec::new();
    for member in members {
        let path = &member.manifest;
        let text =
            std::fs::read_to_string(root.join(path)).map_err(|error| Failure::io(path, &error))?;
        found.extend(manifest(path, &text));
    }
    Ok(found)
}

fn manifest(path: &str, text: &str) -> Vec<Violation> {
    let missing = INHERITED.into_iter().filter(|(section, key)| !inherits(text, section, key));
    missing
        .map(|(section, key)| {
            let line = text
                .lines()
                .position(|line| line.trim() == format!("[{section}]"))
                .map_or(1, |at| at + 1);
            let dot = if key.is_empty() { "" } else { "." };
            let what = format!("`{key}{dot}workspace = true` is missing in `[{section}]`");
            Violation::new(path, line, "inherited", what)
        })
        .collect()
}

/// Whether `key` of `section` says `workspace = true`, in either of the two spellings.
fn inherits(text: &str, section: &str, key: &str) -> bool {
    let mut current = "";
    let prefix = if key.is_empty() { String::new() } else { format!("{key}.") };
    text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).any(|line| {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            current = name;
        }
        let line: String = line.split_whitespace().collect();
        current == section
            && (line == format!("{prefix}workspace=true")
                || line == format!("{key}={{workspace=true}}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[package]\nname = \"a\"\nversion.workspace = true\nedition.workspace = true\n\
        rust-version = { workspace = true }\nlicense.workspace=true # as all\n\n[lints]\nworkspace = true\n";

    #[test]
    fn a_manifest_that_inherits_is_clean() {
        assert_eq!(manifest("a/Cargo.toml", GOOD), []);
    }

    #[test]
    fn a_version_of_its_own_is_refused() {
        let found = manifest(
            "a/Cargo.toml",
            &GOOD.replace("version.workspace = true\ne", "version = \"1.0.0\"\ne"),
        );
        assert_eq!((found.len(), found[0].line), (1, 1));
    }

    #[test]
    fn lints_of_its_own_are_refused() {
        assert_eq!(manifest("a/Cargo.toml", &GOOD.replace("[lints]\n", "[features]\n")).len(), 1);
        assert_eq!(manifest("a/Cargo.toml", "[workspace]\n").len(), INHERITED.len());
    }
}
