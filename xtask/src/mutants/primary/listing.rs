//! Broken lists.

use std::num::NonZeroU32;
use std::time::Duration;

use session_store_core::{
    Cursor, ErrorKind, Listing, Page, Result, Session, Timestamp, User, UserId, Which,
};

use super::{Broken, Defect};

/// Everything there is, as far as the suite goes.
fn whole() -> Page {
    Page::first(100_000)
}

impl Broken {
    pub(super) async fn page_of(
        &self,
        user: &UserId,
        which: Which,
        page: &Page,
    ) -> Result<Listing<Session>> {
        let which = match (self.defect, which) {
            (Defect::ListsTheDead, _) => Which::All,
            (Defect::TheEndIsAlive, Which::Live(now)) => {
                Which::Live(now.minus(Duration::from_millis(1)))
            }
            _ => which,
        };
        if self.defect == Defect::PagesByOffset {
            let all = self.inner.list(user, which, &whole()).await?;
            return Ok(offset(all.items, page));
        }
        let page = self.bent(page, &[0xff; 16]);
        let listing = match self.inner.list(user, which, &page).await {
            Err(error)
                if self.defect == Defect::TrustsCursors
                    && matches!(error.kind(), ErrorKind::InvalidInput { .. }) =>
            {
                self.inner.list(user, which, &Page { after: None, ..page }).await?
            }
            other => other?,
        };
        let mut listing = self.cut(listing);
        if self.defect == Defect::IndexRaces {
            let index = self.state().index.get(user).cloned().unwrap_or_default();
            listing.items.retain(|session| index.contains(&session.id));
        }
        Ok(listing)
    }

    pub(super) async fn page_of_users(&self, page: &Page) -> Result<Listing<User>> {
        if self.defect == Defect::PagesByOffset {
            return Ok(offset(self.inner.list_users(&whole()).await?.items, page));
        }
        let page = self.bent(page, "\u{10ffff}".as_bytes());
        Ok(self.cut(self.inner.list_users(&page).await?))
    }

    fn bent(&self, page: &Page, last: &[u8]) -> Page {
        let mut page = page.clone();
        if let (Defect::SkipsTies, Some(cursor)) = (self.defect, &mut page.after) {
            cursor.key = last.to_vec();
        }
        page
    }

    fn cut<T>(&self, mut listing: Listing<T>) -> Listing<T> {
        match self.defect {
            Defect::ListsOnePage => listing.next = None,
            Defect::ListsBackwards => listing.items.reverse(),
            _ => {}
        }
        listing
    }
}

/// A page that begins after so many items.
fn offset<T>(items: Vec<T>, page: &Page) -> Listing<T> {
    let limit = usize::try_from(NonZeroU32::get(page.limit)).unwrap_or(usize::MAX);
    let begin = page.after.as_ref().map_or(0, |cursor| cursor.at.as_millis());
    let begin = usize::try_from(begin).unwrap_or(0);
    let has_more = items.len() > begin + limit;
    let end = i64::try_from(begin + limit).unwrap_or(i64::MAX);
    let next = Cursor { at: Timestamp::from_millis(end), key: vec![b'0'; 16] };
    let items = items.into_iter().skip(begin).take(limit).collect();
    Listing { items, next: has_more.then_some(next) }
}
