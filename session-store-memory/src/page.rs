//! Pages of an index ordered by time and key.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::ops::Bound;

use session_store_core::{Cursor, Listing};

/// The part of `index` behind `after`.
pub(crate) fn behind<K: Ord>(index: &BTreeSet<K>, after: Option<K>) -> impl Iterator<Item = &K> {
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    index.range((start, Bound::Unbounded))
}

/// The first `limit` of `items`, and where the next page starts if there are more.
pub(crate) fn cut<T>(
    mut items: impl Iterator<Item = T>,
    limit: NonZeroU32,
    cursor: impl Fn(&T) -> Cursor,
) -> Listing<T> {
    let limit = usize::try_from(limit.get()).unwrap_or(usize::MAX);
    let page: Vec<T> = items.by_ref().take(limit).collect();
    let next = match items.next() {
        Some(_) => page.last().map(cursor),
        None => None,
    };
    Listing { items: page, next }
}
