//! The cases of the suite, read from its `checks!` tables.

use std::collections::BTreeMap;

use proc_macro2::{TokenStream, TokenTree};

use super::tokens::{calls, each_level, is_punct, line, string};
use crate::violation::Violation;

const TABLE: &str = "checks";

/// One entry of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) path: String,
    pub(super) line: usize,
    /// At least one, as the catalogue spells them.
    pub(super) ids: Vec<String>,
}

/// Reads every `checks! { "P-04" name "sentence", .. }`; an entry without a proper id is a violation.
pub(super) fn scan(path: &str, tokens: &TokenStream) -> (Vec<Case>, Vec<Violation>) {
    let mut cases = Vec::new();
    let mut found = Vec::new();
    for entry in
        tables(tokens).iter().flat_map(|table| table.split(|token| is_punct(Some(token), ',')))
    {
        let Some(first) = entry.first() else { continue };
        match entry.iter().find_map(|token| Some((line(token), string(token)?))) {
            None => found.push(Violation::new(path, line(first), "case", "an entry without an id")),
            Some((line, text)) => {
                let ids: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
                let wrong = ids.iter().find(|id| !is_id(id)).or(if ids.is_empty() {
                    Some(&text)
                } else {
                    None
                });
                found.extend(wrong.map(|id| {
                    Violation::new(path, line, "case", format!("`{id}` is no id of a case"))
                }));
                cases.push(Case { path: path.to_owned(), line, ids });
            }
        }
    }
    (cases, found)
}

/// Ids that stand in more than one entry: a contract that names one would name either case.
pub(super) fn twins(cases: &[Case]) -> Vec<Violation> {
    let mut seen = BTreeMap::new();
    let mut found = Vec::new();
    for case in cases {
        for id in &case.ids {
            if let Some(first) = seen.insert(id, case) {
                let what = format!("`{id}` stands at {}:{} too", first.path, first.line);
                found.push(Violation::new(&case.path, case.line, "case", what));
            }
        }
    }
    found
}

/// Whether `text` looks like `P-04`, `A04`, `X8-L-01` or `K6-R01`.
pub(super) fn is_id(text: &str) -> bool {
    let upper = text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-');
    upper
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.ends_with(|c: char| c.is_ascii_digit())
}

fn tables(tokens: &TokenStream) -> Vec<Vec<TokenTree>> {
    let mut tables = Vec::new();
    each_level(tokens, &mut |level| {
        // The macro's own definition is `macro_rules! checks { .. }`: there no `!` follows the name.
        for (_, at) in calls(level).filter(|(name, _)| *name == TABLE) {
            if let Some(TokenTree::Group(group)) = level.get(at) {
                tables.push(group.stream().into_iter().collect());
            }
        }
    });
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(content: &str) -> (Vec<String>, usize) {
        let (cases, found) = scan("a.rs", &content.parse().unwrap());
        (cases.iter().map(|case| case.ids.join("+")).collect(), found.len())
    }

    #[test]
    fn entries_are_read_from_any_table() {
        let content = r#"
            macro_rules! checks { ($($id:literal $name:ident $text:literal,)*) => { "no case" } }
            crate::checks! {
                /// A doc comment is not an entry's id.
                "P-04" create_refuses_a_taken_id "A taken id, and a comma, in a sentence.",
                "P-05 X8-P-01" b "..",
            }
            mod inner { checks!("K6-R01" c ".."); }
        "#;
        assert_eq!(ids(content), (vec!["P-04".into(), "P-05+X8-P-01".into(), "K6-R01".into()], 0));
    }

    #[test]
    fn an_entry_without_a_proper_id_is_refused() {
        assert_eq!(ids("checks! { nameless, }").1, 1);
        assert_eq!(ids("checks! { \"a sentence\" name, }").1, 1);
        assert_eq!(ids("checks! { \"\" name, }").1, 1);
    }

    #[test]
    fn an_id_stands_once() {
        let content =
            r#"checks! { "P-04 P-05" a "..", } checks! { "P-06" b "..", "P-05" c "..", }"#;
        let (cases, found) = scan("a.rs", &content.parse().unwrap());
        assert!(found.is_empty());
        assert_eq!(twins(&cases).len(), 1);
        assert_eq!(twins(&cases[1..]).len(), 0);
    }

    #[test]
    fn ids_as_the_catalogue_spells_them() {
        for id in ["P-04", "S-12", "L-30", "T-01", "C-02", "X8-L-01", "K6-R01", "A04"] {
            assert!(is_id(id), "{id}");
        }
        for other in ["", "ran", "p-04", "P-", "04", "P_04", "`P-04`"] {
            assert!(!is_id(other), "{other}");
        }
    }
}
