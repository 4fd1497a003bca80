//! `cargo xtask tidy`: the rules of STYLE.md that no compiler knows.
//!
//! Each module holds one family of rules as functions from text to violations; this one reads the tree and adds up.

mod tree;
mod tokens;
mod sizes;
mod words;
mod paths;
mod slots;
mod deadlines;
mod manifests;
mod docs;
mod cases;
mod contracts;

use std::path::Path;

use crate::cli::{Failure, Verdict, say};
use crate::generated;
use crate::members;
use crate::violation::Violation;

use tree::Tree;

/// Checks every file that git knows or would add.
pub(crate) fn run(root: &Path) -> Result<Verdict, Failure> {
    let tree = Tree::read(root)?;
    let links = contracts::links(&tree);
    let mut found = links.violations;
    found.extend(tree.rust.iter().flat_map(rust));
    found.extend(tree.texts.iter().flat_map(|text| paths::check(&text.path, &text.content)));
    found.extend(tree.texts.iter().flat_map(|text| words::unlinked(&text.path, &text.content)));
    found.extend(words::macros(&tree.rust));
    found.extend(slots::check(&tree.paths));
    found.extend(manifests::check(root, &members::all(root)?)?);
    found.extend(generated::check(root)?);
    found.extend(tree.unreadable);
    found.sort();
    for violation in &found {
        say(&violation.to_string());
    }
    if found.is_empty() {
        let files = tree.paths.len();
        say(&format!(
            "tidy: clean ({files} files, {} contracts, {} cases)",
            links.contracts, links.cases
        ));
        return Ok(Verdict::Held);
    }
    say(&format!("tidy: {} violations", found.len()));
    Ok(Verdict::Broken)
}

fn rust(file: &tree::Rust) -> Vec<Violation> {
    let mut found = sizes::check(file);
    found.extend(words::check(file));
    found.extend(deadlines::check(file));
    found
}
