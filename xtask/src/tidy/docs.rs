//! Doc comments, found among tokens, so that those inside macros count and those inside strings don't.

use proc_macro2::{Group, TokenStream, TokenTree};

use super::tokens::{attributes, each_level, is_punct, line, string};

/// One line of a doc comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Its line in the file.
    pub(super) number: usize,
    /// Without the comment mark.
    pub(super) text: String,
}

/// The doc comment of one item or file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) lines: Vec<Line>,
}

/// Every doc comment, in no particular order.
pub(super) fn blocks(tokens: &TokenStream) -> Vec<Block> {
    let mut blocks = Vec::new();
    each_level(tokens, &mut |level| {
        let mut end = None;
        for (at, group) in attributes(level) {
            let Some(text) = doc(group) else { continue };
            // A comment of the file and one of its first item may touch, and are two.
            let is_inner = is_punct(level.get(at + 1), '!');
            if end != Some((at, is_inner)) {
                blocks.push(Block::default());
            }
            end = Some((at + if is_inner { 3 } else { 2 }, is_inner));
            let first = line(&level[at]);
            let lines = text
                .lines()
                .zip(first..)
                .map(|(text, number)| Line { number, text: text.to_owned() });
            // An empty doc line still separates paragraphs.
            let empty = text.is_empty().then(|| Line { number: first, text: String::new() });
            if let Some(block) = blocks.last_mut() {
                block.lines.extend(lines.chain(empty));
            }
        }
    });
    blocks
}

fn doc(attribute: &Group) -> Option<String> {
    let parts: Vec<TokenTree> = attribute.stream().into_iter().collect();
    match parts.as_slice() {
        [TokenTree::Ident(name), equals, text] if name == "doc" && is_punct(Some(equals), '=') => {
            string(text)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(content: &str) -> Vec<Vec<usize>> {
        let blocks = blocks(&content.parse().unwrap());
        blocks.iter().map(|block| block.lines.iter().map(|line| line.number).collect()).collect()
    }

    #[test]
    fn each_item_has_one_block_with_its_lines() {
        assert_eq!(
            numbers("//! A.\n\n/// B.\n///\n/// C.\nfn f() {}\n/// D.\nfn g() {}\n"),
            [vec![1], vec![3, 4, 5], vec![7]]
        );
    }

    #[test]
    fn a_long_comment_is_many_lines() {
        assert_eq!(numbers("/** A.\n B.\n*/\nfn f() {}"), [vec![1, 2]]);
    }

    #[test]
    fn comments_in_macros_count_and_strings_do_not() {
        assert_eq!(numbers("m! {\n/// A.\nx }"), [vec![2]]);
        assert_eq!(numbers("const A: &str = \"/// A.\";"), Vec::<Vec<usize>>::new());
    }
}
