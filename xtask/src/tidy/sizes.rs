//! How long a file and a function may be, how a file opens and what it may be called.

use proc_macro2::Span;
use syn::visit::{self, Visit};

use super::tree::Rust;
use crate::violation::Violation;

const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 60;
const VAGUE_NAMES: [&str; 5] = ["utils", "helpers", "common", "misc", "manager"];

pub(super) fn check(file: &Rust) -> Vec<Violation> {
    let mut functions = Functions { path: &file.path, found: Vec::new() };
    functions.visit_file(&file.items);
    functions.found.extend(length(&file.path, &file.content));
    functions.found.extend(opening(&file.path, &file.content));
    functions.found.extend(name(&file.path));
    functions.found
}

fn length(path: &str, content: &str) -> Option<Violation> {
    let lines = content.lines().count();
    let what = format!("{lines} lines, at most {FILE_LINES}");
    (lines > FILE_LINES).then(|| Violation::new(path, lines, "file-length", what))
}

fn opening(path: &str, content: &str) -> Option<Violation> {
    let what = "the file does not open with `//!`";
    (!content.starts_with("//!")).then(|| Violation::new(path, 1, "opening", what))
}

fn name(path: &str) -> Option<Violation> {
    let vague = path
        .split('/')
        .map(|part| part.trim_end_matches(".rs"))
        .find(|part| VAGUE_NAMES.contains(part))?;
    Some(Violation::new(
        path,
        1,
        "file-name",
        format!("`{vague}` says nothing; name it after the noun inside"),
    ))
}

/// Measures each function from its signature to its closing brace; those inside others too.
struct Functions<'a> {
    path: &'a str,
    found: Vec<Violation>,
}

impl Functions<'_> {
    fn measure(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let start = first(signature).start().line;
        let lines = body.brace_token.span.close().end().line + 1 - start;
        if lines > FUNCTION_LINES {
            let what = format!("`{}` has {lines} lines, at most {FUNCTION_LINES}", signature.ident);
            self.found.push(Violation::new(self.path, start, "function-length", what));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.measure(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.measure(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.measure(&item.sig, body);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

fn first(signature: &syn::Signature) -> Span {
    let asyncness = signature.asyncness.as_ref().map(|token| token.span);
    let constness = signature.constness.as_ref().map(|token| token.span);
    constness.or(asyncness).unwrap_or(signature.fn_token.span)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, content: &str) -> Vec<&'static str> {
        let file =
            Rust::parse(path, content.into()).unwrap_or_else(|violation| panic!("{violation}"));
        check(&file).into_iter().map(|violation| violation.rule).collect()
    }

    fn body(lines: usize) -> String {
        format!("{{\n{}}}\n", "    f();\n".repeat(lines - 2))
    }

    #[test]
    fn a_file_of_400_lines_is_the_longest() {
        let file = |lines: usize| format!("//! A.\n{}", "\n".repeat(lines - 1));
        assert_eq!(rules("a.rs", &file(400)), [""; 0]);
        assert_eq!(rules("a.rs", &file(401)), ["file-length"]);
    }

    #[test]
    fn a_function_of_60_lines_is_the_longest_whatever_surrounds_it() {
        for (before, after) in [
            ("/// Docs\n/// are not counted.\nasync fn f() ", ""),
            ("impl A {\n    pub const fn f() ", "}"),
            ("trait A {\n    fn f() ", "}"),
        ] {
            let file = |lines| format!("//! A.\n{before}{}{after}\n", body(lines));
            assert_eq!(rules("a.rs", &file(60)), [""; 0], "{before}");
            assert_eq!(rules("a.rs", &file(61)), ["function-length"], "{before}");
        }
        let nested = format!("//! A.\nfn outer() {{ fn f() {}}}\n", body(61));
        assert_eq!(rules("a.rs", &nested), ["function-length"; 2]);
    }

    #[test]
    fn a_file_opens_with_its_purpose() {
        assert_eq!(rules("a.rs", "//! A.\n"), [""; 0]);
        assert_eq!(rules("a.rs", "// A.\n"), ["opening"]);
    }

    #[test]
    fn a_vague_name_is_refused_for_files_and_folders() {
        assert_eq!(rules("src/session.rs", "//! A.\n"), [""; 0]);
        assert_eq!(rules("src/utils.rs", "//! A.\n"), ["file-name"]);
        assert_eq!(rules("tests/common/mod.rs", "//! A.\n"), ["file-name"]);
    }
}
