//! Words that must not be in the code: silenced lints, skipped tests, promises to finish later, further macros.

use proc_macro2::{TokenStream, TokenTree};

use super::docs;
use super::tokens::{attributes, calls, each_level, line};
use super::tree::{Rust, extension};
use crate::violation::Violation;

const ATTRIBUTES: [(&str, &str); 3] = [
    ("allow", "use `#[expect(lint, reason = \"..\")]` at the item"),
    ("ignore", "a test that does not run is none"),
    ("should_panic", "assert on what is returned"),
];
const UNFINISHED: [&str; 3] = ["todo", "unimplemented", "dbg"];
/// A table of cases, and a test for each of its entries.
const MACROS: [&str; 2] = ["checks", "conformance_tests"];
// Written in halves, so that this file passes its own rule.
const PROMISES: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Attributes, calls and doc tests that are refused anywhere, in macros too.
pub(super) fn check(file: &Rust) -> Vec<Violation> {
    let mut found = Vec::new();
    each_level(&file.tokens, &mut |level| {
        for (at, group) in attributes(level) {
            let refused = refused_attribute(&group.stream());
            found.extend(refused.map(|(name, why)| {
                Violation::new(
                    &file.path,
                    line(&level[at]),
                    "attribute",
                    format!("`{name}`: {why}"),
                )
            }));
        }
        for (name, at) in calls(level) {
            let called = UNFINISHED.iter().any(|unfinished| name == unfinished);
            if called && matches!(level.get(at), Some(TokenTree::Group(_))) {
                let at = name.span().start().line;
                found.push(Violation::new(&file.path, at, "unfinished", format!("`{name}!`")));
            }
        }
    });
    found.extend(skipped_doc_tests(file));
    found
}

/// Each macro of the workspace is known, and made once.
pub(super) fn macros(files: &[Rust]) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut known = Vec::new();
    for file in files {
        each_level(&file.tokens, &mut |level| {
            for (_, at) in calls(level).filter(|(name, _)| *name == "macro_rules") {
                let Some(TokenTree::Ident(name)) = level.get(at) else {
                    continue;
                };
                if !MACROS.iter().any(|known| name == known) || known.contains(name) {
                    let what = format!(
                        "`{name}`: the macros of the workspace are {MACROS:?}; write a function"
                    );
                    found.push(Violation::new(&file.path, name.span().start().line, "macro", what));
                }
                known.push(name.clone());
            }
        });
    }
    found
}

/// Comments that promise work without linking to an issue.
pub(super) fn unlinked(path: &str, content: &str) -> Vec<Violation> {
    let mark = match extension(path) {
        "rs" => "//",
        "md" => return Vec::new(),
        _ => "#",
    };
    let comments = content
        .lines()
        .zip(1..)
        .filter_map(|(line, number)| Some((line.split_once(mark)?.1, number)));
    comments
        .filter_map(|(comment, number)| {
            let word = PROMISES.into_iter().find(|word| has_word(comment, word))?;
            let what = format!("`{word}` without the number or address of an issue");
            (!names_an_issue(comment)).then(|| Violation::new(path, number, "promise", what))
        })
        .collect()
}

fn refused_attribute(attribute: &TokenStream) -> Option<(&'static str, &'static str)> {
    let mut names = Vec::new();
    let mut conditional = false;
    each_level(attribute, &mut |level| {
        let first = names.is_empty();
        let idents = level.iter().filter_map(|token| match token {
            TokenTree::Ident(name) => Some(name.to_string()),
            _ => None,
        });
        // Only a `cfg_attr` can hold further attributes; elsewhere the first word is the attribute.
        names.extend(idents.take(if first { 1 } else { usize::MAX }));
        conditional |= first && names.first().is_some_and(|name| name == "cfg_attr");
    });
    let names = if conditional { names.as_slice() } else { names.get(..1).unwrap_or_default() };
    ATTRIBUTES.into_iter().find(|(refused, _)| names.iter().any(|name| name == refused))
}

fn skipped_doc_tests(file: &Rust) -> Vec<Violation> {
    let blocks = docs::blocks(&file.tokens);
    let lines = blocks.iter().flat_map(|block| &block.lines);
    let skipped = lines.filter(|line| {
        let fence = line.text.trim().strip_prefix("```");
        fence.is_some_and(|info| info.split(',').any(|word| word.trim().starts_with("ignore")))
    });
    skipped
        .map(|line| {
            Violation::new(
                &file.path,
                line.number,
                "attribute",
                "`ignore`: a doc test that does not run is none",
            )
        })
        .collect()
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|part| part == word)
}

fn names_an_issue(text: &str) -> bool {
    let numbered =
        text.split('#').skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    numbered || (text.contains("https://") && text.contains("/issues/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> Rust {
        Rust::parse("a.rs", content.into()).unwrap_or_else(|violation| panic!("{violation}"))
    }

    fn count(content: &str) -> usize {
        check(&file(content)).len()
    }

    #[test]
    fn silenced_lints_and_skipped_tests_are_refused() {
        for bad in [
            "#[allow(dead_code)] fn f() {}",
            "#![allow(dead_code)]",
            "#[ignore] fn f() {}",
            "#[ignore = \"slow\"] fn f() {}",
            "#[should_panic(expected = \"x\")] fn f() {}",
            "#[cfg_attr(windows, allow(dead_code))] fn f() {}",
            "m! { #[allow(dead_code)] fn f() {} }",
            "/// ```ignore\n/// f();\n/// ```\nfn f() {}",
            "/// ```rust,ignore\n/// f();\n/// ```\nfn f() {}",
        ] {
            assert_eq!(count(bad), 1, "{bad}");
        }
    }

    #[test]
    fn what_only_looks_like_them_is_not() {
        for good in [
            "#[expect(clippy::panic, reason = \"allow\")] fn f() {}",
            "#[serde(allow)] fn f() {}",
            "#[cfg_attr(docsrs, feature(doc_cfg))] fn f() {}",
            "const A: &str = \"#[allow(x)]\";",
            "/// ```no_run\n/// f();\n/// ```\nfn f() {}",
        ] {
            assert_eq!(count(good), 0, "{good}");
        }
    }

    #[test]
    fn unfinished_code_is_refused() {
        for bad in
            ["fn f() { todo!() }", "fn f() { m!(unimplemented!(\"x\")) }", "fn f() { dbg!(1); }"]
        {
            assert_eq!(count(bad), 1, "{bad}");
        }
        assert_eq!(count("fn todo() { todo(); !dbg }"), 0);
    }

    #[test]
    fn there_is_one_macro_and_it_is_called_checks() {
        let checks = file("macro_rules! checks { () => {} }");
        let other = file("mod a { macro_rules! other { () => {} } }");
        assert_eq!(macros(&[file("checks! { x }"), checks]), []);
        assert_eq!(macros(&[other]).len(), 1);
        let twice =
            [file("macro_rules! checks { () => {} }"), file("macro_rules! checks { () => {} }")];
        assert_eq!(macros(&twice).len(), 1);
    }

    #[test]
    fn a_promise_links_to_its_issue() {
        for word in PROMISES {
            assert_eq!(unlinked("a.rs", &format!("f(); // {word}: later")).len(), 1);
            assert_eq!(unlinked("a.toml", &format!("# {word} later")).len(), 1);
            assert_eq!(unlinked("a.rs", &format!("// {word} #12: later")), []);
            assert_eq!(unlinked("a.rs", &format!("// {word} https://example.org/x/issues/12")), []);
            assert_eq!(unlinked("a.rs", &format!("let {word} = 1;")), []);
            assert_eq!(unlinked("a.rs", &format!("// {word}S are words")), []);
        }
    }
}
