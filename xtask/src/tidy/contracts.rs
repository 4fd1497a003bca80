//! The link between promises and tests: each clause of a `# Contract` names a case, each case is named by a clause.

use std::collections::BTreeSet;

use super::cases::{self, Case};
use super::docs::{self, Block, Line};
use super::tree::{Rust, Tree};
use crate::violation::Violation;

const RULE: &str = "contract";
const SUITE: &str = "session-store-core/src/conformance";
const CORE: &str = "session-store-core/src/";

/// Both ends of the link, and what does not meet.
pub(super) struct Links {
    pub(super) contracts: usize,
    pub(super) cases: usize,
    pub(super) violations: Vec<Violation>,
}

/// A bullet, or a sentence of a paragraph, under `# Contract`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Clause {
    path: String,
    line: usize,
    text: String,
}

impl Clause {
    /// The words between `\[` and `\]`.
    fn ids(&self) -> Vec<&str> {
        let brackets =
            self.text.split("\\[").skip(1).filter_map(|rest| Some(rest.split_once("\\]")?.0));
        brackets.flat_map(|inside| inside.split([' ', ','])).filter(|id| !id.is_empty()).collect()
    }
}

/// Collects contracts from the whole tree and cases from the suite, and compares.
pub(super) fn links(tree: &Tree) -> Links {
    let mut contracts = 0;
    let mut clauses = Vec::new();
    let mut cases = Vec::new();
    let mut violations = Vec::new();
    for file in &tree.rust {
        for block in docs::blocks(&file.tokens) {
            let Some(section) = section(&block) else {
                continue;
            };
            contracts += 1;
            clauses.extend(self::clauses(&file.path, &section));
        }
        violations.extend(missing(file));
        if file.path.starts_with(SUITE) {
            let (read, refused) = cases::scan(&file.path, &file.tokens);
            cases.extend(read);
            violations.extend(refused);
        }
    }
    violations.extend(cases::twins(&cases));
    violations.extend(compare(&clauses, &cases));
    Links { contracts, cases: cases.len(), violations }
}

fn compare(clauses: &[Clause], cases: &[Case]) -> Vec<Violation> {
    let known: BTreeSet<&str> =
        cases.iter().flat_map(|case| &case.ids).map(String::as_str).collect();
    let named: BTreeSet<&str> = clauses.iter().flat_map(Clause::ids).collect();
    let mut found = Vec::new();
    if cases.is_empty() {
        found.push(Violation::new(
            SUITE,
            1,
            RULE,
            "there is no suite: no `checks!` table was found",
        ));
    }
    if clauses.is_empty() {
        found.push(Violation::new(CORE, 1, RULE, "nothing is promised: no `# Contract` was found"));
    }
    for clause in clauses {
        let mut refuse =
            |what: String| found.push(Violation::new(&clause.path, clause.line, RULE, what));
        let ids = clause.ids();
        if ids.is_empty() {
            refuse(format!("a promise without a case: {}", shortened(&clause.text)));
        }
        for id in ids.into_iter().filter(|id| !known.contains(id)) {
            refuse(format!("no case is called `{id}`"));
        }
    }
    for case in cases.iter().filter(|case| !case.ids.iter().any(|id| named.contains(id.as_str()))) {
        let what = format!("a case that no contract names: `{}`", case.ids.join(" "));
        found.push(Violation::new(&case.path, case.line, RULE, what));
    }
    found
}

/// The methods of the traits that adapters implement, where they promise nothing.
fn missing(file: &Rust) -> Vec<Violation> {
    let traits = file.items.items.iter().filter_map(|item| match item {
        syn::Item::Trait(item) if item.ident.to_string().ends_with("Store") => Some(item),
        _ => None,
    });
    let methods = traits.filter(|_| file.path.starts_with(CORE)).flat_map(|item| &item.items);
    methods
        .filter_map(|item| match item {
            syn::TraitItem::Fn(method) if !method.attrs.iter().any(opens_contract) => Some(method),
            _ => None,
        })
        .map(|method| {
            let line = method.sig.fn_token.span.start().line;
            Violation::new(
                &file.path,
                line,
                RULE,
                format!("`{}` has no `# Contract`", method.sig.ident),
            )
        })
        .collect()
}

fn opens_contract(attribute: &syn::Attribute) -> bool {
    let Ok(pair) = attribute.meta.require_name_value() else {
        return false;
    };
    match &pair.value {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. })
            if pair.path.is_ident("doc") =>
        {
            text.value().lines().any(is_heading)
        }
        _ => false,
    }
}

fn is_heading(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('#') && line.trim_start_matches('#').trim() == "Contract"
}

/// The lines under the block's `# Contract`, up to the next heading and without code.
fn section(block: &Block) -> Option<Vec<Line>> {
    let start = block.lines.iter().position(|line| is_heading(&line.text))?;
    let mut code = false;
    let mut lines = vec![Line { text: String::new(), ..block.lines[start].clone() }];
    for line in &block.lines[start + 1..] {
        let text = line.text.trim();
        let fence = text.starts_with("```");
        code ^= fence;
        if fence || code {
            continue;
        }
        if text.starts_with('#') {
            break;
        }
        lines.push(Line { number: line.number, text: text.to_owned() });
    }
    Some(lines)
}

/// Cuts a section into bullets and, where there are none, sentences. An empty section is one empty clause.
fn clauses(path: &str, section: &[Line]) -> Vec<Clause> {
    let clause = |line: usize, text: &str| Clause {
        path: path.to_owned(),
        line,
        text: text.trim().to_owned(),
    };
    let mut pieces: Vec<(bool, Clause)> = Vec::new();
    let mut open = false;
    for line in section {
        let bullet = line.text.strip_prefix("- ").or_else(|| line.text.strip_prefix("* "));
        match (bullet, pieces.last_mut()) {
            (Some(text), _) => pieces.push((true, clause(line.number, text))),
            (None, _) if line.text.is_empty() => {}
            (None, Some((_, last))) if open => last.text = format!("{} {}", last.text, line.text),
            (None, _) => pieces.push((false, clause(line.number, &line.text))),
        }
        open = !line.text.is_empty();
    }
    if pieces.is_empty() {
        let at = section.first().map_or(1, |line| line.number);
        return vec![clause(at, "the section is empty")];
    }
    let split = |(bullet, piece): (bool, Clause)| {
        if bullet {
            vec![piece]
        } else {
            sentences(&piece.text).into_iter().map(|text| clause(piece.line, text)).collect()
        }
    };
    pieces.into_iter().flat_map(split).collect()
}

/// Cuts where a full stop is followed by a capital; a sentence that ends with `:` leads in and promises nothing.
fn sentences(paragraph: &str) -> Vec<&str> {
    let mut cuts = vec![0];
    for (at, _) in paragraph.match_indices(". ") {
        if paragraph[at + 2..].starts_with(char::is_uppercase) {
            cuts.push(at + 2);
        }
    }
    let ends = cuts.iter().skip(1).copied().chain([paragraph.len()]);
    let pieces = cuts.iter().zip(ends).map(|(start, end)| paragraph[*start..end].trim());
    pieces.filter(|sentence| !sentence.ends_with(':')).collect()
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push_str("..");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUITE_TEXT: &str = "//! S.\nchecks! { \"P-04\" a \"..\", \"P-05 X8-P-01\" b \"..\", }\n";

    fn found(docs: &str, suite: &str) -> Vec<String> {
        let parse = |path: &str, text: &str| {
            Rust::parse(path, text.into()).unwrap_or_else(|violation| panic!("{violation}"))
        };
        let docs: String = docs.lines().flat_map(|line| ["    /// ", line, "\n"]).collect();
        let contract = format!("//! C.\npub trait PrimaryStore {{\n{docs}    fn f(&self);\n}}\n");
        let rust = vec![
            parse("session-store-core/src/primary.rs", &contract),
            parse("session-store-core/src/conformance/mod.rs", suite),
        ];
        let tree = Tree { paths: Vec::new(), texts: Vec::new(), rust, unreadable: Vec::new() };
        links(&tree)
            .violations
            .into_iter()
            .map(|violation| format!("{}: {}", violation.line, violation.what))
            .collect()
    }

    #[test]
    fn promises_and_cases_that_name_each_other_are_clean() {
        let docs = "Does it.\n\n# Contract\n- A taken id\n  is `Conflict` \\[P-04\\].\n- Both \\[P-04 P-05\\].\n\n# Errors\nNo id.";
        assert_eq!(found(docs, SUITE_TEXT), [""; 0]);
        let prose = "# Contract\n\nIt is so:\n\nA taken id is refused \\[P-04\\]. A free one is not. \\[X8-P-01\\]\n```\nf();\n```";
        assert_eq!(found(prose, SUITE_TEXT), [""; 0]);
    }

    #[test]
    fn a_promise_without_a_case_is_refused() {
        let docs = "# Contract\n- A taken id \\[P-04 P-05\\].\n- Nothing\n  else.";
        assert_eq!(found(docs, SUITE_TEXT), ["5: a promise without a case: Nothing else."]);
        let prose = "# Contract\nA taken id \\[P-04 P-05\\]. Nothing else.";
        assert_eq!(found(prose, SUITE_TEXT), ["4: a promise without a case: Nothing else."]);
    }

    #[test]
    fn an_unknown_case_is_refused() {
        let docs = "# Contract\n- A \\[P-04\\].\n- B \\[P-05, P-99\\].";
        assert_eq!(found(docs, SUITE_TEXT), ["5: no case is called `P-99`"]);
    }

    #[test]
    fn a_case_that_no_contract_names_is_refused() {
        assert_eq!(
            found("# Contract\n- A \\[P-04\\].", SUITE_TEXT),
            ["2: a case that no contract names: `P-05 X8-P-01`"]
        );
        let outside = "Text \\[P-05\\].\n\n# Contract\n- A \\[P-04\\].\n# More\n- B \\[P-05\\].";
        assert_eq!(found(outside, SUITE_TEXT).len(), 1);
    }

    #[test]
    fn a_method_of_a_store_without_contract_is_refused() {
        let all = found("Does it.", SUITE_TEXT);
        assert!(all.contains(&"4: `f` has no `# Contract`".to_owned()), "{all:?}");
        assert!(
            all.contains(&"1: nothing is promised: no `# Contract` was found".to_owned()),
            "{all:?}"
        );
    }

    #[test]
    fn an_empty_contract_is_refused() {
        let all = found("# Contract", SUITE_TEXT);
        assert_eq!(all[0], "3: a promise without a case: the section is empty");
    }

    #[test]
    fn no_suite_is_a_violation() {
        let all = found("# Contract\n- A \\[P-04\\].", "//! S.\n");
        assert_eq!(all[0], "1: there is no suite: no `checks!` table was found");
    }
}
