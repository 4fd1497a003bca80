//! The files that are looked at: those that git tracks, and those it would.

use std::path::Path;

use proc_macro2::TokenStream;

use crate::cli::Failure;
use crate::command::Program;
use crate::violation::Violation;

/// A file with text that rules read.
pub(super) struct Text {
    pub(super) path: String,
    pub(super) content: String,
}

/// A Rust file, three times: as text, as tokens and as items.
pub(super) struct Rust {
    pub(super) path: String,
    pub(super) content: String,
    pub(super) tokens: TokenStream,
    pub(super) items: syn::File,
}

impl Rust {
    /// Parses `content`; what does not parse is itself a violation.
    pub(super) fn parse(path: &str, content: String) -> Result<Self, Violation> {
        let refused = |line: usize, error: String| Violation::new(path, line, "parse", error);
        let tokens: TokenStream = content.parse().map_err(|error: proc_macro2::LexError| {
            refused(error.span().start().line, error.to_string())
        })?;
        let items = syn::parse2(tokens.clone())
            .map_err(|error| refused(error.span().start().line, error.to_string()))?;
        Ok(Self { path: path.to_owned(), content, tokens, items })
    }
}

/// Everything `tidy` looks at.
pub(super) struct Tree {
    /// Every file, relative to the root, with forward slashes, ordered.
    pub(super) paths: Vec<String>,
    /// The files whose text is judged, Rust included.
    pub(super) texts: Vec<Text>,
    /// The Rust files that parse.
    pub(super) rust: Vec<Rust>,
    /// The files that don't.
    pub(super) unreadable: Vec<Violation>,
}

impl Tree {
    /// Reads the tree under `root`.
    pub(super) fn read(root: &Path) -> Result<Self, Failure> {
        let listed =
            Program::from("git ls-files -z --cached --others --exclude-standard").output(root)?;
        let mut paths: Vec<String> = listed
            .split(|byte| *byte == 0)
            .map(|path| String::from_utf8_lossy(path).into_owned())
            .filter(|path| root.join(path).is_file())
            .collect();
        paths.sort();
        // A file in conflict is listed once per side.
        paths.dedup();
        let mut tree = Self { paths, texts: Vec::new(), rust: Vec::new(), unreadable: Vec::new() };
        for path in tree.paths.iter().filter(|path| judged(path)) {
            match std::fs::read_to_string(root.join(path)) {
                Ok(content) => tree.texts.push(Text { path: path.clone(), content }),
                Err(error) => {
                    tree.unreadable.push(Violation::new(path, 1, "parse", error.to_string()));
                }
            }
        }
        for text in tree.texts.iter().filter(|text| is_rust(&text.path)) {
            match Rust::parse(&text.path, text.content.clone()) {
                Ok(rust) => tree.rust.push(rust),
                Err(violation) => tree.unreadable.push(violation),
            }
        }
        Ok(tree)
    }
}

fn is_rust(path: &str) -> bool {
    extension(path) == "rs"
}

fn judged(path: &str) -> bool {
    path.starts_with(".ci/") || matches!(extension(path), "rs" | "toml" | "md" | "sh")
}

/// What follows the last dot of the file name.
pub(super) fn extension(path: &str) -> &str {
    Path::new(path).extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_does_not_parse_is_a_violation_at_its_line() {
        let refused = Rust::parse("a.rs", "//! A.\nfn f( {}\n".into()).err().unwrap();
        assert_eq!((refused.line, refused.rule), (2, "parse"));
        assert!(Rust::parse("a.rs", "//! A.\nfn f() {}\n".into()).is_ok());
    }

    #[test]
    fn the_kinds_of_files_that_are_judged() {
        for path in ["a/b.rs", "Cargo.toml", "README.md", ".ci/run", "x.sh"] {
            assert!(judged(path), "{path}");
        }
        assert!(!judged("a.sql"));
        assert!(!judged("Cargo.lock"));
    }
}
