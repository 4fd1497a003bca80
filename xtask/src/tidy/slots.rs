//! Where things lie in an adapter: the same few files in each, so that knowing one is knowing all.

use std::collections::BTreeSet;

use crate::violation::Violation;

const ADAPTERS: [&str; 5] = [
    "session-store-postgres",
    "session-store-redis",
    "session-store-kv",
    "session-store-sqlite",
    "session-store-memory",
];
const SLOTS: [&str; 7] =
    ["lib.rs", "config.rs", "store.rs", "cache.rs", "row.rs", "error.rs", "migrate.rs"];

/// What one adapter has beyond the slots, and why. A path that ends in `/` is a folder: it holds `mod.rs` and slots.
const EXTRA: &[(&str, &str, &str)] = &[
    ("session-store-postgres", "schema.rs", "the checked names that statements are made of"),
    ("session-store-postgres", "transaction.rs", "what is begun again after a deadlock"),
    ("session-store-postgres", "pooler.rs", "how poolers and standbys are noticed"),
    ("session-store-postgres", "read.rs", "statements that only read"),
    ("session-store-postgres", "write.rs", "statements that create and change sessions"),
    ("session-store-postgres", "touch.rs", "statements that record use, and wait for nobody long"),
    ("session-store-postgres", "ending.rs", "statements that end and remove sessions"),
    ("session-store-postgres", "users.rs", "the store's statements about users"),
    ("session-store-postgres", "log.rs", "the invalidation log, with its own statements"),
    ("session-store-postgres", "harness.rs", "how the suite gets at the store"),
    (
        "session-store-sqlite",
        "thread.rs",
        "rusqlite blocks, so statements run on threads of their own",
    ),
    ("session-store-sqlite", "schema.rs", "the checked names that statements are made of"),
    ("session-store-sqlite", "read.rs", "statements that run on reader threads"),
    ("session-store-sqlite", "write.rs", "statements that create and change sessions"),
    ("session-store-sqlite", "ending.rs", "statements that end and remove sessions"),
    ("session-store-sqlite", "users.rs", "the store's statements about users"),
    (
        "session-store-sqlite",
        "log.rs",
        "the invalidation log is a part of the store with its own statements",
    ),
    ("session-store-sqlite", "harness.rs", "how the suite gets at the store"),
    ("session-store-redis", "acl.rs", "what a Redis user must be allowed to do"),
    ("session-store-redis", "cluster.rs", "the nodes of a Cluster, and who is asked"),
    ("session-store-redis", "driver/mod.rs", "what a client library must do"),
    ("session-store-redis", "driver/fred.rs", "the library fred"),
    ("session-store-redis", "driver/redis.rs", "the library redis"),
    ("session-store-redis", "harness.rs", "how the suite gets at the cache"),
    ("session-store-redis", "identity.rs", "who answers, and whether it is still the same"),
    ("session-store-redis", "key.rs", "keys as Redis sees them"),
    (
        "session-store-redis",
        "line.rs",
        "an open connection, and whether it is still the same server",
    ),
    ("session-store-redis", "link.rs", "the connection to one server, opened and replaced"),
    ("session-store-redis", "route.rs", "which server a command goes to"),
    ("session-store-redis", "script.rs", "the scripts that make a key linearizable"),
    ("session-store-redis", "seal.rs", "authentication of records"),
    ("session-store-redis", "sentinel.rs", "who is master, by majority"),
    ("session-store-redis", "slots.rs", "which node owns which slot, as nodes say it"),
    ("session-store-redis", "tls.rs", "TLS, the same for both client libraries"),
    ("session-store-redis", "url.rs", "addresses, without secrets in their text"),
    ("session-store-redis", "wait.rs", "removals that wait for replicas"),
    ("session-store-kv", "dynamo/", "one back end of several in this crate"),
    ("session-store-kv", "dynamo/policy.rs", "what a role must be allowed to do"),
    ("session-store-kv", "dynamo/look.rs", "sessions read together with their users"),
    ("session-store-kv", "dynamo/write.rs", "how sessions are created and changed"),
    ("session-store-kv", "dynamo/touch.rs", "how touches are recorded"),
    ("session-store-kv", "dynamo/ending.rs", "how sessions end"),
    ("session-store-kv", "dynamo/job.rs", "what a crash leaves to be finished"),
    ("session-store-kv", "dynamo/sweep.rs", "how dead sessions are found and removed"),
    ("session-store-kv", "dynamo/census.rs", "how sessions are counted"),
    ("session-store-kv", "dynamo/users.rs", "the store's operations on users"),
    ("session-store-kv", "dynamo/registry.rs", "the caches over a table"),
    ("session-store-kv", "dynamo/owner.rs", "the item that decides about a user's sessions"),
    ("session-store-kv", "dynamo/mark.rs", "what a user's item remembers for a while"),
    ("session-store-kv", "dynamo/stored.rs", "sessions as items"),
    ("session-store-kv", "dynamo/underway.rs", "logins that are not visible everywhere yet"),
    ("session-store-kv", "dynamo/batch.rs", "many items in one call"),
    ("session-store-kv", "dynamo/key.rs", "the keys of the single table"),
    ("session-store-kv", "dynamo/step.rs", "the steps of transactions, and their limits"),
    ("session-store-kv", "dynamo/query.rs", "reading a partition in order"),
    ("session-store-kv", "dynamo/single.rs", "calls about one item"),
    ("session-store-kv", "dynamo/call.rs", "deadlines, repetitions and batches"),
    ("session-store-kv", "dynamo/harness.rs", "how the suite gets at store and cache"),
    ("session-store-kv", "said.rs", "the text of an error, which is all that a Worker is told"),
    ("session-store-kv", "workers/", "Workers KV"),
    ("session-store-kv", "workers/host.rs", "the clock of a Worker and what follows its answer"),
    ("session-store-kv", "workers/edge.rs", "the edge that no simulator imitates"),
    ("session-store-kv", "workers/locations.rs", "what must hold at that edge"),
    ("session-store-kv", "workers/bounds.rs", "what clocks add to a bound"),
    ("session-store-kv", "workers/harness.rs", "how the suite gets at a namespace"),
    ("session-store-kv", "d1/", "D1"),
    ("session-store-kv", "d1/database.rs", "statements, and a batch of them"),
    ("session-store-kv", "d1/read.rs", "statements that only read"),
    ("session-store-kv", "d1/write.rs", "statements that create and change sessions"),
    ("session-store-kv", "d1/ending.rs", "statements that end and remove sessions"),
    ("session-store-kv", "d1/users.rs", "the store's statements about users"),
    ("session-store-kv", "d1/log.rs", "the invalidation log, with its own statements"),
    ("session-store-kv", "d1/harness.rs", "how the suite gets at the store"),
    ("session-store-memory", "tables.rs", "the tables that a database would have"),
    ("session-store-memory", "log.rs", "the invalidation log that triggers would write"),
    ("session-store-memory", "users.rs", "the store's operations on users"),
    ("session-store-memory", "sessions.rs", "the store's operations on sessions"),
    ("session-store-memory", "ending.rs", "how sessions end"),
    ("session-store-memory", "page.rs", "keyset pages over ordered sets"),
    ("session-store-memory", "pool.rs", "the room of a cache, counted as a whole"),
    ("session-store-memory", "shard.rs", "one part of the cache's map"),
    ("session-store-memory", "host.rs", "a clock for the crate's own tests"),
    ("session-store-memory", "cache/tests.rs", "the cache's own tests"),
    ("session-store-memory", "store/tests.rs", "the store's own tests"),
    ("session-store-memory", "harness.rs", "how the suite gets at store and cache"),
];

/// Checks the files of every adapter, given all paths of the tree.
pub(super) fn check(paths: &[String]) -> Vec<Violation> {
    let mut found = Vec::new();
    for adapter in ADAPTERS {
        let inside = |folder: &str| -> BTreeSet<&str> {
            let prefix = format!("{adapter}/{folder}/");
            paths.iter().filter_map(|path| path.strip_prefix(&prefix)).collect()
        };
        let sources = inside("src");
        for slot in sources.iter().filter(|slot| !is_known(adapter, slot)) {
            let what = "no slot of an adapter; add it to the table in xtask/src/tidy/slots.rs with its reason";
            found.push(Violation::new(&format!("{adapter}/src/{slot}"), 1, "slots", what));
        }
        let implements = sources.iter().any(|slot| matches!(name(slot), "store.rs" | "cache.rs"));
        if implements && !inside("tests").iter().any(|test| test.contains("conformance")) {
            let what = "an adapter without tests/conformance.rs";
            found.push(Violation::new(&format!("{adapter}/src/lib.rs"), 1, "slots", what));
        }
    }
    found
}

fn is_known(adapter: &str, slot: &str) -> bool {
    let mut extra = EXTRA.iter().filter(|(owner, ..)| *owner == adapter).map(|(_, path, _)| *path);
    SLOTS.contains(&slot)
        || extra.any(|path| path == slot || (path.ends_with('/') && is_in_folder(slot, path)))
}

fn is_in_folder(slot: &str, folder: &str) -> bool {
    slot.strip_prefix(folder).is_some_and(|file| file == "mod.rs" || SLOTS[1..].contains(&file))
}

fn name(slot: &str) -> &str {
    slot.rsplit('/').next().unwrap_or(slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(paths: &[&str]) -> usize {
        check(&paths.iter().map(ToString::to_string).collect::<Vec<_>>()).len()
    }

    #[test]
    fn an_adapter_of_slots_is_clean() {
        let tests = "session-store-sqlite/tests/conformance.rs";
        assert_eq!(
            violations(&[
                "session-store-sqlite/src/store.rs",
                "session-store-sqlite/src/lib.rs",
                tests
            ]),
            0
        );
        assert_eq!(violations(&["session-store-sqlite/src/thread.rs"]), 0);
        assert_eq!(violations(&["session-store-core/src/anything.rs", "src/web/layer.rs"]), 0);
    }

    #[test]
    fn any_other_file_needs_a_reason() {
        assert_eq!(violations(&["session-store-redis/src/thread.rs"]), 1);
        assert_eq!(violations(&["session-store-redis/src/deep/config.rs"]), 1);
    }

    #[test]
    fn a_store_without_its_conformance_test_is_refused() {
        assert_eq!(violations(&["session-store-sqlite/src/store.rs"]), 1);
    }

    #[test]
    fn a_folder_holds_slots_and_mod_only() {
        assert!(is_in_folder("dynamodb/store.rs", "dynamodb/"));
        assert!(is_in_folder("dynamodb/mod.rs", "dynamodb/"));
        assert!(!is_in_folder("dynamodb/lib.rs", "dynamodb/"));
        assert!(!is_in_folder("dynamodb/table.rs", "dynamodb/"));
    }
}
