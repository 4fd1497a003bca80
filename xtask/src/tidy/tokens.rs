//! Walking token trees: what a rule sees that must hold inside macros too.

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};

/// Shows `see` the tokens of each level, outermost first.
pub(super) fn each_level(stream: &TokenStream, see: &mut impl FnMut(&[TokenTree])) {
    let level: Vec<TokenTree> = stream.clone().into_iter().collect();
    see(&level);
    for token in &level {
        if let TokenTree::Group(group) = token {
            each_level(&group.stream(), see);
        }
    }
}

/// The attributes among the tokens of one level: the contents of `#[..]` and `#![..]`, with their position.
pub(super) fn attributes(level: &[TokenTree]) -> impl Iterator<Item = (usize, &Group)> {
    level.iter().enumerate().filter_map(|(at, token)| {
        if !is_punct(Some(token), '#') {
            return None;
        }
        let next = if is_punct(level.get(at + 1), '!') { at + 2 } else { at + 1 };
        match level.get(next) {
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Bracket => {
                Some((at, group))
            }
            _ => None,
        }
    })
}

/// The calls `name! ..` among the tokens of one level, with the position of what follows the `!`.
pub(super) fn calls(level: &[TokenTree]) -> impl Iterator<Item = (&Ident, usize)> {
    level.iter().enumerate().filter_map(|(at, token)| match token {
        TokenTree::Ident(name) if is_punct(level.get(at + 1), '!') => Some((name, at + 2)),
        _ => None,
    })
}

pub(super) fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

/// The value of a token that is a string literal.
pub(super) fn string(token: &TokenTree) -> Option<String> {
    let TokenTree::Literal(_) = token else {
        return None;
    };
    let literal: syn::LitStr = syn::parse2(TokenStream::from(token.clone())).ok()?;
    Some(literal.value())
}

/// The line on which a token starts.
pub(super) fn line(token: &TokenTree) -> usize {
    token.span().start().line
}
