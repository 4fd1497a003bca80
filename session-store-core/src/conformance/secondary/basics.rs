//! Values come back, keys are apart, removal removes.

use futures_util::future::join_all;

use super::super::checks;
use super::super::report::{TOO_LARGE, ensure, expect, refused};
use super::super::runner::Outcome;
use super::{SecondaryBench, seconds, value};
use crate::secondary::{CacheKey, Record, Reservation, SwapTtl};

checks! { ($) secondary_basics: SecondaryBench;
    "S-01 S-05" bytes_come_back "What was put is returned byte for byte, whatever it contains.",
    "S-02" nothing_is_none "A missing key is None, until something is there.",
    "S-06" the_largest_record_fits "A record at the declared size fits, one byte more is TooLarge.",
    "S-07" keys_are_literal "Keys with odd characters are kept apart; impossible ones are refused.",
    "S-08 S-09" removal_is_idempotent "After a removal every key is absent, absent ones too.",
    "S-33" more_keys_than_a_batch_are_removed "A removal of many keys removes all of them.",
    "S-34 S-35" prefixes_are_apart "A prefix sees nothing of another one, not even of a longer one.",
    "S-40" one_writer_wins_whole "Of concurrent writers one wins, and its record is whole.",
    "S-44" a_lost_entry_is_a_miss "An evicted entry is None, and its key is free.",
    "S-50" a_dropped_call_disturbs_nobody "A dropped call leaves key and store usable.",
    "X8-S-01" the_epoch_stands_still "The epoch does not change while nothing happens.",
}

async fn bytes_come_back(on: &SecondaryBench) -> Outcome {
    let all: Vec<u8> = (0..=255).collect();
    let long = vec![0; on.store.promise().max_record_bytes.min(100_001) - 1];
    for (name, bytes) in [("all", all), ("empty", vec![]), ("long", long)] {
        let record = Record::new([b"V".as_slice(), &bytes].concat());
        on.put(&on.key(name)?, &record, seconds(60)).await?;
        expect(on.store.get(&on.key(name)?).await?, Some(record))?;
    }
    Ok(())
}

async fn nothing_is_none(on: &SecondaryBench) -> Outcome {
    let key = on.key("nothing")?;
    expect(on.store.get(&key).await?, None)?;
    on.put(&key, &value("1"), seconds(60)).await?;
    expect(on.store.get(&key).await?, Some(value("1")))
}

async fn the_largest_record_fits(on: &SecondaryBench) -> Outcome {
    let limit = on.store.promise().max_record_bytes;
    if limit > 64 * 1024 * 1024 {
        return Ok(());
    }
    let key = on.key("large")?;
    let fits = Record::new(vec![b'V'; limit]);
    on.put(&key, &fits, seconds(60)).await?;
    expect(on.store.get(&key).await?, Some(fits.clone()))?;
    let large = Record::new(vec![b'V'; limit + 1]);
    let result = on.store.swap(&key, &fits, Some(&large), SwapTtl::Keep).await;
    refused(result, &TOO_LARGE)?;
    expect(on.store.get(&key).await?, Some(fits))
}

async fn keys_are_literal(on: &SecondaryBench) -> Outcome {
    let names = ["a", "A", "a ", "*", "a*", "{a}", "a:b", "a\r\n", "é", "e\u{301}", "x[1]?\\"];
    for name in names {
        on.put(&on.key(name)?, &value(name), seconds(60)).await?;
    }
    for name in names {
        expect(on.store.get(&on.key(name)?).await?, Some(value(name)))?;
    }
    // The longest keys, which differ at their very end.
    let longest = "k".repeat(CacheKey::MAX_BYTES - on.namespace.len() - 2);
    for end in ["1", "2"] {
        on.put(&on.key(&format!("{longest}{end}"))?, &value(end), seconds(60)).await?;
    }
    for end in ["1", "2"] {
        let key = on.key(&format!("{longest}{end}"))?;
        expect(on.store.get(&key).await?, Some(value(end)))?;
    }
    for wrong in ["", ".", "..", "a\0", &"k".repeat(CacheKey::MAX_BYTES + 1)] {
        ensure(CacheKey::new(wrong).is_err(), "an impossible key is accepted")?;
    }
    Ok(())
}

async fn removal_is_idempotent(on: &SecondaryBench) -> Outcome {
    let keys = [on.key("a")?, on.key("b")?, on.key("missing")?];
    on.put(&keys[0], &value("1"), seconds(60)).await?;
    on.store.reserve(&keys[1], seconds(3)).await?;
    for _ in 0..2 {
        on.store.remove(&keys).await?;
        for key in &keys {
            expect(on.store.get(key).await?, None)?;
        }
    }
    on.store.remove(&[]).await?;
    Ok(())
}

async fn more_keys_than_a_batch_are_removed(on: &SecondaryBench) -> Outcome {
    let mut keys = Vec::new();
    for number in 0..250 {
        let key = on.key(&format!("many{number}"))?;
        on.put(&key, &value("1"), seconds(60)).await?;
        keys.push(key);
    }
    on.store.remove(&keys).await?;
    for key in &keys {
        expect(on.store.get(key).await?, None)?;
    }
    Ok(())
}

async fn prefixes_are_apart(on: &SecondaryBench) -> Outcome {
    on.put(&on.key("a:b:c")?, &value("long"), seconds(60)).await?;
    on.put(&on.key("a:b*")?, &value("star"), seconds(60)).await?;
    expect(on.store.get(&on.key("a:b")?).await?, None)?;
    expect(on.store.get(&on.key("a")?).await?, None)?;
    // The same name under another prefix.
    expect(on.store.get(&on.key("x:c")?).await?, None)?;
    on.store.remove(&[on.key("x:c")?, on.key("a:b")?, on.key("a")?, on.key("a:*")?]).await?;
    expect(on.store.get(&on.key("a:b:c")?).await?, Some(value("long")))?;
    expect(on.store.get(&on.key("a:b*")?).await?, Some(value("star")))
}

async fn one_writer_wins_whole(on: &SecondaryBench) -> Outcome {
    let key = on.key("race")?;
    let first = value("first");
    on.put(&key, &first, seconds(60)).await?;
    let records: Vec<_> = (0..32).map(|n| value(&n.to_string().repeat(500))).collect();
    let swaps = records.iter().map(|new| on.store.swap(&key, &first, Some(new), SwapTtl::Keep));
    let mut winners = Vec::new();
    for (result, record) in join_all(swaps).await.into_iter().zip(&records) {
        if result? {
            winners.push(record.clone());
        }
    }
    expect(winners.len(), 1)?;
    expect(on.store.get(&key).await?, winners.pop())
}

async fn a_lost_entry_is_a_miss(on: &SecondaryBench) -> Outcome {
    let key = on.key("lost")?;
    on.put(&key, &value("1"), seconds(60)).await?;
    on.put(&on.key("kept")?, &value("2"), seconds(60)).await?;
    if !on.evict(&key).await? {
        on.store.remove(std::slice::from_ref(&key)).await?;
    }
    expect(on.store.get(&key).await?, None)?;
    expect(on.store.get(&on.key("kept")?).await?, Some(value("2")))?;
    on.put(&key, &value("3"), seconds(60)).await
}

async fn a_dropped_call_disturbs_nobody(on: &SecondaryBench) -> Outcome {
    let key = on.key("dropped")?;
    for _ in 0..20 {
        let mut reserve = on.store.reserve(&key, seconds(3));
        let _ = futures_util::poll!(&mut reserve);
        drop(reserve);
        on.store.remove(std::slice::from_ref(&key)).await?;
    }
    expect(on.store.get(&on.key("other")?).await?, None)?;
    let granted = on.store.reserve(&on.key("other")?, seconds(3)).await?;
    ensure(matches!(granted, Reservation::Granted(_)), "another key is occupied")
}

async fn the_epoch_stands_still(on: &SecondaryBench) -> Outcome {
    let before = on.store.epoch();
    on.put(&on.key("epoch")?, &value("1"), seconds(60)).await?;
    expect(on.store.epoch(), before)
}
