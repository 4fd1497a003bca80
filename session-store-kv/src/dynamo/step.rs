//! The steps of transactions, and how many of them fit into one.
//!
//! Attributes are written `#name` in every expression, so that none is taken for a reserved word.

use std::collections::HashMap;
use std::ops::Range;

use aws_sdk_dynamodb::types::{
    AttributeValue, ConditionCheck, Delete, Put, TransactWriteItem, Update,
};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use session_store_core::Result;

use super::call::{Calls, Outcome, unbuilt};
use super::error::uncertain;
use super::key::Key;
use super::row::Item;

/// How many steps one transaction has at most.
pub(super) const MAX_STEPS: usize = 100;
/// How much one transaction may touch: less than the 4 MB that DynamoDB allows, since sizes are
/// reckoned.
const MAX_BYTES: usize = 3_500_000;
/// The condition under which an item is new.
pub(super) const NEW: &str = "attribute_not_exists(#pk)";

/// A change, a condition, or both, with the values they name.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    change: Option<String>,
    condition: Option<String>,
    values: Item,
}

impl Terms {
    pub(super) fn when(condition: impl Into<String>) -> Self {
        Self { condition: Some(condition.into()), ..Self::default() }
    }

    pub(super) fn change(change: impl Into<String>, condition: impl Into<String>) -> Self {
        Self { change: Some(change.into()), ..Self::when(condition) }
    }

    /// The session is still as it was read.
    pub(super) fn unchanged(rev: u64) -> Self {
        Self::when("#rev = :rev").with(":rev", super::row::number(rev))
    }

    pub(super) fn and(self, other: &str) -> Self {
        let condition = self.condition.map_or(other.to_owned(), |own| format!("{own} AND {other}"));
        Self { condition: Some(condition), ..self }
    }

    pub(super) fn with(mut self, name: &str, value: AttributeValue) -> Self {
        self.values.insert(name.to_owned(), value);
        self
    }

    pub(super) fn change_text(&self) -> Option<String> {
        self.change.clone()
    }

    pub(super) fn condition_text(&self) -> Option<String> {
        self.condition.clone()
    }

    /// The names that the expressions mention.
    pub(super) fn names(&self) -> Option<HashMap<String, String>> {
        let texts = [&self.change, &self.condition].into_iter().flatten();
        let names: HashMap<_, _> = texts
            .flat_map(|text| text.split('#').skip(1))
            .map(|rest| {
                let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_');
                let name = &rest[..end.unwrap_or(rest.len())];
                (format!("#{name}"), name.to_owned())
            })
            .collect();
        (!names.is_empty()).then_some(names)
    }

    pub(super) fn values(&self) -> Option<Item> {
        (!self.values.is_empty()).then(|| self.values.clone())
    }
}

/// Steps that belong together; the conditions decide about all of them.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) steps: Vec<TransactWriteItem>,
    /// About what the items take that they touch.
    pub(super) bytes: usize,
}

impl Calls {
    pub(super) fn put(&self, item: Item) -> Result<TransactWriteItem> {
        self.put_if(item, &Terms::default())
    }

    pub(super) fn put_if(&self, item: Item, terms: &Terms) -> Result<TransactWriteItem> {
        let put = Put::builder()
            .table_name(&*self.table)
            .set_item(Some(item))
            .set_condition_expression(terms.condition_text())
            .set_expression_attribute_names(terms.names())
            .set_expression_attribute_values(terms.values());
        Ok(TransactWriteItem::builder().put(put.build().map_err(unbuilt)?).build())
    }

    pub(super) fn update(&self, key: Key, terms: &Terms) -> Result<TransactWriteItem> {
        let update = Update::builder()
            .table_name(&*self.table)
            .set_key(Some(key.into_item()))
            .set_update_expression(terms.change_text())
            .set_condition_expression(terms.condition_text())
            .set_expression_attribute_names(terms.names())
            .set_expression_attribute_values(terms.values());
        Ok(TransactWriteItem::builder().update(update.build().map_err(unbuilt)?).build())
    }

    pub(super) fn delete(&self, key: Key) -> Result<TransactWriteItem> {
        self.delete_if(key, &Terms::default())
    }

    pub(super) fn delete_if(&self, key: Key, terms: &Terms) -> Result<TransactWriteItem> {
        let delete = Delete::builder()
            .table_name(&*self.table)
            .set_key(Some(key.into_item()))
            .set_condition_expression(terms.condition_text())
            .set_expression_attribute_names(terms.names())
            .set_expression_attribute_values(terms.values());
        Ok(TransactWriteItem::builder().delete(delete.build().map_err(unbuilt)?).build())
    }

    pub(super) fn check(&self, key: Key, terms: &Terms) -> Result<TransactWriteItem> {
        let check = ConditionCheck::builder()
            .table_name(&*self.table)
            .set_key(Some(key.into_item()))
            .set_condition_expression(terms.condition_text())
            .set_expression_attribute_names(terms.names())
            .set_expression_attribute_values(terms.values());
        Ok(TransactWriteItem::builder().condition_check(check.build().map_err(unbuilt)?).build())
    }

    /// Each group whole or not at all, as many as fit in one transaction; which of them were done.
    pub(super) async fn transact_groups(&self, groups: &[Group]) -> Result<Vec<bool>> {
        let packs = packs(groups).into_iter().map(|pack| self.transact_pack(&groups[pack]));
        let packs = packs.collect::<Vec<_>>();
        let is_one = packs.len() <= 1;
        let done = stream::iter(packs).buffered(self.parallel()).try_collect::<Vec<_>>().await;
        match done {
            Ok(done) => Ok(done.concat()),
            Err(failed) if is_one => Err(failed),
            Err(failed) => Err(uncertain(failed)),
        }
    }

    /// One transaction, and again without those whose conditions do not hold.
    async fn transact_pack(&self, groups: &[Group]) -> Result<Vec<bool>> {
        let mut is_open = vec![true; groups.len()];
        while is_open.contains(&true) {
            let open = groups.iter().zip(&is_open).filter(|(_, is_open)| **is_open);
            let steps: Vec<_> = open.flat_map(|(group, _)| group.steps.clone()).collect();
            let Outcome::Refused(refused) = self.transact(&steps).await? else { break };
            let mut refused = refused.into_iter();
            for (group, is_open) in groups.iter().zip(&mut is_open).filter(|(_, open)| **open) {
                let mut own = refused.by_ref().take(group.steps.len());
                *is_open = !own.any(|refused| refused);
                own.for_each(drop);
            }
        }
        Ok(is_open)
    }
}

/// The groups in order, cut where the limits of a transaction are reached.
fn packs(groups: &[Group]) -> Vec<Range<usize>> {
    let mut packs: Vec<Range<usize>> = Vec::new();
    let (mut steps, mut bytes) = (0, 0);
    for (at, group) in groups.iter().enumerate() {
        steps += group.steps.len();
        bytes += group.bytes;
        match packs.last_mut() {
            Some(pack) if steps <= MAX_STEPS && bytes <= MAX_BYTES => pack.end = at + 1,
            _ => {
                packs.push(at..at + 1);
                (steps, bytes) = (group.steps.len(), group.bytes);
            }
        }
    }
    packs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(steps: usize, bytes: usize) -> Group {
        Group { steps: vec![TransactWriteItem::builder().build(); steps], bytes }
    }

    #[test]
    fn transactions_are_filled_and_never_overfilled() {
        assert_eq!(packs(&[]), []);
        let small: Vec<_> = (0..60).map(|_| group(4, 900)).collect();
        assert_eq!(packs(&small), [0..25, 25..50, 50..60]);
        let large: Vec<_> = (0..7).map(|_| group(4, 1_000_000)).collect();
        assert_eq!(packs(&large), [0..3, 3..6, 6..7]);
        // One that is too large alone is for DynamoDB to refuse.
        assert_eq!(packs(&[group(1, 9_000_000), group(1, 1)]), [0..1, 1..2]);
    }

    #[test]
    fn every_mentioned_name_is_given() {
        let terms = Terms::change("SET #rev = #rev + :one", "attribute_exists(#last_login_at)");
        let names = terms.names().unwrap();
        assert_eq!((names.len(), names["#last_login_at"].as_str()), (2, "last_login_at"));
        assert_eq!(Terms::default().names(), None);
    }
}
