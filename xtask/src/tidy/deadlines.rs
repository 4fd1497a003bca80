//! Whether a session has expired is decided in one place: no other code compares a deadline with `now`.

use proc_macro2::Ident;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};

use super::tree::Rust;
use crate::violation::Violation;

const THE_PLACE: &str = "session-store-core/src/session.rs";
const DEADLINES: [&str; 2] = ["expires_at", "absolute_expires_at"];

/// Finds `expires_at <= now` and its likes outside [`THE_PLACE`], the suite and tests; SQL is text and not seen.
pub(super) fn check(file: &Rust) -> Vec<Violation> {
    if file.path == THE_PLACE || is_test(&file.path) {
        return Vec::new();
    }
    let mut comparisons = Comparisons { path: &file.path, found: Vec::new() };
    comparisons.visit_file(&file.items);
    comparisons.found
}

fn is_test(path: &str) -> bool {
    path.split('/').any(|part| matches!(part.trim_end_matches(".rs"), "tests" | "conformance"))
}

struct Comparisons<'a> {
    path: &'a str,
    found: Vec<Violation>,
}

impl<'ast> Visit<'ast> for Comparisons<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !item.attrs.iter().any(is_cfg_test) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_expr_binary(&mut self, expression: &'ast syn::ExprBinary) {
        use syn::BinOp::{Ge, Gt, Le, Lt};
        let orders = matches!(expression.op, Lt(_) | Le(_) | Gt(_) | Ge(_));
        let (left, right) = (Mentions::of(&expression.left), Mentions::of(&expression.right));
        let judged = left.deadline.filter(|_| right.now).or(right.deadline.filter(|_| left.now));
        if let Some(line) = judged.filter(|_| orders) {
            let what = "a deadline is compared with `now` only in `Session::state`";
            self.found.push(Violation::new(self.path, line, "deadline", what));
        }
        visit::visit_expr_binary(self, expression);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        // The arguments of a macro are tokens; most macros take expressions.
        let list = Punctuated::<syn::Expr, syn::Token![,]>::parse_terminated;
        for expression in list.parse2(call.tokens.clone()).into_iter().flatten() {
            let mut inner = Comparisons { path: self.path, found: Vec::new() };
            inner.visit_expr(&expression);
            self.found.append(&mut inner.found);
        }
    }
}

/// Which of the two words an expression contains.
#[derive(Clone, Copy, Default)]
struct Mentions {
    /// The line of the first deadline.
    deadline: Option<usize>,
    now: bool,
}

impl Mentions {
    fn of(expression: &syn::Expr) -> Self {
        let mut mentions = Self::default();
        mentions.visit_expr(expression);
        mentions
    }
}

impl<'ast> Visit<'ast> for Mentions {
    fn visit_ident(&mut self, name: &'ast Ident) {
        if DEADLINES.iter().any(|deadline| name == deadline) {
            self.deadline = self.deadline.or(Some(name.span().start().line));
        }
        self.now |= name == "now";
    }
}

fn is_cfg_test(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, content: &str) -> usize {
        let file =
            Rust::parse(path, content.into()).unwrap_or_else(|violation| panic!("{violation}"));
        check(&file).len()
    }

    #[test]
    fn a_second_judge_is_refused() {
        for bad in [
            "fn f() { if session.expires_at <= now { g() } }",
            "fn f() -> bool { now >= self.session.expires_at }",
            "fn f() { rows.retain(|row| row.expires_at > clock.now()) }",
            "fn f() { a && s.absolute_expires_at.is_some_and(|absolute_expires_at| absolute_expires_at < now) }",
            "fn f() { assert!(session.expires_at > now) }",
        ] {
            assert_eq!(count("src/a.rs", bad), 1, "{bad}");
        }
    }

    #[test]
    fn other_uses_of_a_deadline_are_not() {
        for good in [
            "fn f() { session.state(now) == State::Expired }",
            "fn f() { session.expires_at < other.expires_at }",
            "fn f() { query(\"DELETE FROM s WHERE expires_at <= now\") }",
            "fn f() { touch(session.expires_at, now) }",
            "#[cfg(test)] mod tests { fn f() { session.expires_at > now; } }",
        ] {
            assert_eq!(count("src/a.rs", good), 0, "{good}");
        }
    }

    #[test]
    fn the_one_place_the_suite_and_tests_may() {
        let judge = "fn f() { session.expires_at > now; }";
        assert_eq!(count(THE_PLACE, judge), 0);
        assert_eq!(count("tests/a.rs", judge), 0);
        assert_eq!(count("session-store-core/src/conformance/expiry.rs", judge), 0);
        assert_eq!(count("session-store-sqlite/src/session.rs", judge), 1);
    }
}
