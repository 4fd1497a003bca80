//! The parts of the repository that `cargo xtask conformance` writes: the matrix in README.md and the ledgers.
//!
//! A ledger's first line carries the hash of the rest of it; the matrix's opening marker carries the hash of
//! every ledger and of the matrix itself. So none of them can be edited, added or removed by hand unseen.

use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::cli::Failure;
use crate::violation::Violation;

const README: &str = "README.md";
const LEDGERS: &str = "session-store-core/conformance/ledger";
/// Lies among the ledgers and is written by hand; `cargo xtask mutants` checks it.
const BY_HAND: &str = "idle.toml";
const BEGIN: &str = "<!-- matrix:begin";
const END: &str = "<!-- matrix:end -->";
const LEDGER_HEAD: &str = "# written by `cargo xtask conformance`, hash=";
const RULE: &str = "generated";

/// Puts `text` between the markers of README.md. Write the ledgers first: their hash is part of the marker.
pub(crate) fn write_matrix(root: &Path, text: &str) -> Result<(), Failure> {
    let path = root.join(README);
    let readme = fs::read_to_string(&path).map_err(|error| Failure::io(README, &error))?;
    let marked = Marked::find(&readme).ok_or_else(|| Failure::new(NO_MARKERS))?;
    let text = ended(text);
    let hash = matrix_hash(&ledgers(root)?, &text);
    let rewritten =
        format!("{}{BEGIN} hash={hash} -->\n{text}{END}{}", marked.before, marked.after);
    fs::write(&path, rewritten).map_err(|error| Failure::io(README, &error))
}

/// Writes the ledger of `adapter` (for example `sqlite`), TOML without a head of its own.
pub(crate) fn write_ledger(root: &Path, adapter: &str, text: &str) -> Result<(), Failure> {
    let folder = root.join(LEDGERS);
    let name = format!("{LEDGERS}/{adapter}.toml");
    fs::create_dir_all(&folder).map_err(|error| Failure::io(LEDGERS, &error))?;
    let text = ended(text);
    let content = format!("{LEDGER_HEAD}{}\n{text}", hash_of(&[&text]));
    fs::write(root.join(&name), content).map_err(|error| Failure::io(&name, &error))
}

/// Whether the ledger of `adapter` on disk says `text`.
pub(crate) fn ledger_is(root: &Path, adapter: &str, text: &str) -> bool {
    let content = fs::read_to_string(root.join(LEDGERS).join(format!("{adapter}.toml")));
    content.is_ok_and(|content| content.split_once('\n').is_some_and(|(_, old)| old == ended(text)))
}

/// Whether the matrix in README.md says `text`.
pub(crate) fn matrix_is(root: &Path, text: &str) -> bool {
    let readme = fs::read_to_string(root.join(README)).unwrap_or_default();
    Marked::find(&readme).is_some_and(|marked| marked.text == ended(text))
}

/// What was edited by hand, or is missing.
pub(crate) fn check(root: &Path) -> Result<Vec<Violation>, Failure> {
    let ledgers = ledgers(root)?;
    let mut found: Vec<Violation> = ledgers.iter().filter_map(Ledger::violation).collect();
    if ledgers.is_empty() {
        found.push(Violation::new(LEDGERS, 1, RULE, "no ledger; run `cargo xtask conformance`"));
    }
    let readme = fs::read_to_string(root.join(README)).unwrap_or_default();
    found.extend(matrix_violation(&readme, &ledgers));
    Ok(found)
}

const NO_MARKERS: &str =
    "README.md has no `<!-- matrix:begin -->` line before a `<!-- matrix:end -->` line";

/// One ledger file as it lies on disk.
struct Ledger {
    path: String,
    content: String,
}

impl Ledger {
    fn violation(&self) -> Option<Violation> {
        let (head, text) = self.content.split_once('\n').unwrap_or((&self.content, ""));
        let recorded = head.strip_prefix(LEDGER_HEAD).map(str::trim);
        let what = match recorded {
            None => "no hash in the first line; run `cargo xtask conformance`",
            Some(hash) if hash == hash_of(&[text]) => return None,
            Some(_) => "edited by hand; run `cargo xtask conformance`",
        };
        Some(Violation::new(&self.path, 1, RULE, what))
    }
}

/// README.md cut at its two markers.
struct Marked<'a> {
    before: &'a str,
    hash: Option<&'a str>,
    text: &'a str,
    after: &'a str,
}

impl<'a> Marked<'a> {
    fn find(readme: &'a str) -> Option<Self> {
        let (before, rest) = readme.split_once(BEGIN)?;
        let (attributes, rest) = rest.split_once("-->")?;
        let (text, after) = rest.trim_start_matches(' ').strip_prefix('\n')?.split_once(END)?;
        Some(Self { before, hash: attributes.trim().strip_prefix("hash="), text, after })
    }

    fn line(&self) -> usize {
        self.before.matches('\n').count() + 1
    }
}

fn matrix_violation(readme: &str, ledgers: &[Ledger]) -> Option<Violation> {
    let Some(marked) = Marked::find(readme) else {
        return Some(Violation::new(README, 1, RULE, NO_MARKERS));
    };
    let what = match marked.hash {
        None => "the matrix carries no hash; run `cargo xtask conformance`",
        Some(hash) if hash == matrix_hash(ledgers, marked.text) => return None,
        Some(_) => "the matrix and the ledgers are not from one run; run `cargo xtask conformance`",
    };
    Some(Violation::new(README, marked.line(), RULE, what))
}

/// Every ledger, ordered by name; none if the folder does not exist.
fn ledgers(root: &Path) -> Result<Vec<Ledger>, Failure> {
    let entries = match fs::read_dir(root.join(LEDGERS)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| Failure::io(LEDGERS, &error))?,
    };
    let paths: std::io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(|error| Failure::io(LEDGERS, &error))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.retain(|path| !path.ends_with(BY_HAND));
    paths.sort();
    paths.iter().map(|path| ledger(path)).collect()
}

fn ledger(path: &Path) -> Result<Ledger, Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("{LEDGERS}/{name}");
    let content = fs::read_to_string(path).map_err(|error| Failure::io(&name, &error))?;
    Ok(Ledger { path: name, content })
}

fn matrix_hash(ledgers: &[Ledger], text: &str) -> String {
    let of_ledgers =
        ledgers.iter().flat_map(|ledger| [ledger.path.as_str(), ledger.content.as_str()]);
    hash_of(&of_ledgers.chain([text]).collect::<Vec<_>>())
}

/// SHA-256 in hexadecimal; each part is preceded by its length, so that no text can move between parts.
fn hash_of(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.len().to_string());
        hasher.update([b'\n']);
        hasher.update(part);
    }
    hasher.finalize().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").ok();
        hex
    })
}

fn ended(text: &str) -> String {
    format!("{}\n", text.trim_end_matches('\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::write(
            root.path().join(README),
            "# Title\n<!-- matrix:begin -->\n<!-- matrix:end -->\nrest\n",
        )
        .unwrap();
        write_ledger(root.path(), "memory", "weak = []").unwrap();
        write_ledger(root.path(), "sqlite", "weak = [\"P-04\"]\n").unwrap();
        write_matrix(root.path(), "| case | memory |").unwrap();
        root
    }

    fn edit(root: &Path, path: &str, from: &str, to: &str) {
        let text = fs::read_to_string(root.join(path)).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(root.join(path), text.replace(from, to)).unwrap();
    }

    #[test]
    fn what_was_written_is_clean_and_surrounded_by_the_old_text() {
        let root = written();
        assert_eq!(check(root.path()).unwrap(), []);
        let readme = fs::read_to_string(root.path().join(README)).unwrap();
        assert!(readme.starts_with("# Title\n<!-- matrix:begin hash="), "{readme}");
        assert!(
            readme.ends_with(" -->\n| case | memory |\n<!-- matrix:end -->\nrest\n"),
            "{readme}"
        );
    }

    #[test]
    fn what_another_run_would_write_is_told_from_what_is_there() {
        let root = written();
        assert!(ledger_is(root.path(), "memory", "weak = []"));
        assert!(!ledger_is(root.path(), "memory", "weak = [\"P-04\"]"));
        assert!(!ledger_is(root.path(), "oracle", "weak = []"));
        assert!(matrix_is(root.path(), "| case | memory |"));
        assert!(!matrix_is(root.path(), "| case | sqlite |"));
    }

    #[test]
    fn writing_twice_changes_nothing() {
        let root = written();
        let once = fs::read_to_string(root.path().join(README)).unwrap();
        write_matrix(root.path(), "| case | memory |").unwrap();
        assert_eq!(fs::read_to_string(root.path().join(README)).unwrap(), once);
    }

    #[test]
    fn an_edited_matrix_is_seen() {
        let root = written();
        edit(root.path(), README, "| case | memory |", "| case | better |");
        let found = check(root.path()).unwrap();
        assert_eq!((found.len(), found[0].path.as_str(), found[0].line), (1, README, 2));
    }

    #[test]
    fn an_edited_ledger_is_seen_twice() {
        let root = written();
        edit(root.path(), "session-store-core/conformance/ledger/sqlite.toml", "P-04", "P-05");
        let paths: Vec<String> =
            check(root.path()).unwrap().into_iter().map(|found| found.path).collect();
        assert_eq!(paths, [format!("{LEDGERS}/sqlite.toml"), README.to_owned()]);
    }

    #[test]
    fn the_ledger_that_is_written_by_hand_needs_no_hash() {
        let root = written();
        fs::write(root.path().join(LEDGERS).join(BY_HAND), "# reasons\n").unwrap();
        assert_eq!(check(root.path()).unwrap(), []);
    }

    #[test]
    fn a_removed_ledger_is_seen() {
        let root = written();
        fs::remove_file(root.path().join(LEDGERS).join("sqlite.toml")).unwrap();
        assert_eq!(check(root.path()).unwrap().len(), 1);
    }

    #[test]
    fn nothing_generated_at_all_is_no_pass() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(check(root.path()).unwrap().len(), 2);
        assert!(write_matrix(root.path(), "x").is_err());
    }
}
