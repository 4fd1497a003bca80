//! How many calls a page of a list takes.

use session_store_core::{Page, PrimaryStore, Which};

use crate::lab::{Lab, NOW, ada, id, later};

#[tokio::test]
async fn a_small_page_behind_ten_thousand_dead_sessions_takes_few_calls() {
    let lab = Lab::new("manydead").await;
    lab.log_in(1).await;
    lab.copy((2, 10_000), later(5)).await;
    lab.copy((10_001, 10_005), later(90_000)).await;
    lab.wire.reset();
    let (now, page) = (later(80_000), Page::first(2));
    let first = PrimaryStore::list(&lab.store, &ada(), Which::Live(now), &page).await.unwrap();
    let ids: Vec<_> = first.items.iter().map(|session| session.id).collect();
    assert_eq!(ids, [id(10_001), id(10_002)]);
    let (queries, reads) = (lab.wire.calls("Query").len(), lab.wire.calls("BatchGetItem").len());
    // 10 000 sessions are 100 batches.
    assert!(queries <= 20 && reads <= 125, "{queries} queries and {reads} batches");
    lab.wire.reset();
    let page = page.behind(first.next.unwrap());
    let next = PrimaryStore::list(&lab.store, &ada(), Which::Live(now), &page).await.unwrap();
    assert_eq!(next.items.len(), 2);
    // A page of the living takes what it shows.
    assert_eq!((lab.wire.calls("Query").len(), lab.wire.calls("BatchGetItem").len()), (1, 1));
    let page = page.behind(next.next.unwrap());
    let last = PrimaryStore::list(&lab.store, &ada(), Which::Live(now), &page).await.unwrap();
    assert_eq!((last.items.len(), last.next), (1, None));
}

#[tokio::test]
async fn pages_have_no_gap_whatever_lies_between() {
    let lab = Lab::new("between").await;
    lab.log_in(1).await;
    for first in [2, 52, 102, 152] {
        lab.copy((first, first + 39), later(5)).await;
        lab.copy((first + 40, first + 49), later(90_000)).await;
    }
    let (now, mut page) = (later(80_000), Page::first(7));
    let mut listed = Vec::new();
    loop {
        let part = PrimaryStore::list(&lab.store, &ada(), Which::Live(now), &page).await.unwrap();
        listed.extend(part.items.iter().map(|session| session.id));
        match part.next {
            None => break,
            Some(next) => page = page.behind(next),
        }
    }
    let live = [2_u32, 52, 102, 152].into_iter().flat_map(|first| first + 40..first + 50);
    assert_eq!(listed, live.map(id).collect::<Vec<_>>());
    let census = PrimaryStore::census(&lab.store, now, Some(&ada())).await.unwrap();
    assert_eq!((census.active, census.expired), (40, 161));
    assert_eq!(PrimaryStore::census(&lab.store, NOW, None).await.unwrap().active, 201);
}
