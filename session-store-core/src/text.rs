//! The one check that every text given by a caller passes: a size limit and no NUL.

use crate::error::{Error, ErrorKind, Result};

/// Refuses text that some back end could not store: NUL characters and more than `limit` bytes.
pub(crate) fn check(what: &'static str, text: &str, limit: usize) -> Result<()> {
    if text.len() > limit {
        return Err(Error::new(ErrorKind::TooLarge { what, limit }, "core"));
    }
    if text.contains('\0') {
        return Err(Error::invalid("core", format!("{what} contains a NUL character")));
    }
    Ok(())
}

/// The longest prefix of `text` of at most `limit` bytes that ends on a character boundary.
pub(crate) fn truncate(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(truncate("aé", 2), "a");
        assert_eq!(truncate("aé", 3), "aé");
        assert_eq!(truncate("a", 9), "a");
    }
}
