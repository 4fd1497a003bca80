//! Reading a partition in the order of its sort keys, or the whole table in none.

use aws_sdk_dynamodb::types::{AttributeValue, Select};
use session_store_core::Result;

use super::call::Calls;
use super::error::Effect;
use super::row::Item;

/// A part of one partition, in the order of the sort key.
#[derive(Clone, Debug)]
pub(super) struct Query {
    pub(super) pk: String,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) limit: Option<u32>,
    /// From the greatest sort key down.
    pub(super) is_backward: bool,
    pub(super) select: Option<Select>,
    pub(super) start: Option<Item>,
}

/// What one query found, and where the next one starts.
#[derive(Debug)]
pub(super) struct QueryPage {
    pub(super) items: Vec<Item>,
    pub(super) count: u64,
    pub(super) next: Option<Item>,
}

impl Query {
    pub(super) fn all(pk: impl Into<String>) -> Self {
        Self {
            pk: pk.into(),
            from: None,
            to: None,
            limit: None,
            is_backward: false,
            select: None,
            start: None,
        }
    }

    /// From `from` to `to`, both included.
    pub(super) fn between(pk: impl Into<String>, from: String, to: String) -> Self {
        Self { from: Some(from), to: Some(to), ..Self::all(pk) }
    }

    fn condition(&self) -> &'static str {
        match (&self.from, &self.to) {
            (Some(_), Some(_)) => "pk = :pk AND sk BETWEEN :from AND :to",
            (Some(_), None) => "pk = :pk AND sk >= :from",
            (None, Some(_)) => "pk = :pk AND sk <= :to",
            (None, None) => "pk = :pk",
        }
    }

    fn values(&self) -> Item {
        let text = |text: &String| AttributeValue::S(text.clone());
        let mut values = Item::from([(":pk".to_owned(), text(&self.pk))]);
        for (name, bound) in [(":from", &self.from), (":to", &self.to)] {
            if let Some(bound) = bound {
                values.insert(name.to_owned(), text(bound));
            }
        }
        values
    }
}

impl Calls {
    /// One page of a partition, from the authority.
    pub(super) async fn query(&self, query: &Query) -> Result<QueryPage> {
        let answer = self
            .patiently(|| {
                let call = self.client.query().table_name(&*self.table).consistent_read(true);
                let call = call.key_condition_expression(query.condition());
                let call = call.set_expression_attribute_values(Some(query.values()));
                let call = call.set_limit(query.limit.map(u32::cast_signed));
                let call = call.scan_index_forward(!query.is_backward);
                let call = call.set_select(query.select.clone());
                let call = call.set_exclusive_start_key(query.start.clone());
                self.timed(
                    Effect::Reads,
                    call.customize().config_override(self.repeatable()).send(),
                )
            })
            .await?;
        Ok(QueryPage {
            items: answer.items.unwrap_or_default(),
            count: u64::from(answer.count.cast_unsigned()),
            next: answer.last_evaluated_key.filter(|key| !key.is_empty()),
        })
    }

    /// Every item of the part of a partition.
    pub(super) async fn query_all(&self, mut query: Query) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        loop {
            let page = self.query(&query).await?;
            items.extend(page.items);
            match page.next {
                None => return Ok(items),
                next => query.start = next,
            }
        }
    }

    /// One page of the whole table, from the authority, and where the next one starts.
    pub(super) async fn scan(&self, start: Option<Item>) -> Result<(Vec<Item>, Option<Item>)> {
        let answer = self
            .patiently(|| {
                let scan = self.client.scan().table_name(&*self.table).consistent_read(true);
                let scan = scan.set_exclusive_start_key(start.clone());
                let scan = scan.customize().config_override(self.repeatable());
                self.timed(Effect::Reads, scan.send())
            })
            .await?;
        let next = answer.last_evaluated_key.filter(|key| !key.is_empty());
        Ok((answer.items.unwrap_or_default(), next))
    }
}
