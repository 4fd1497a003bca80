//! A server that can be read and takes no writes.

use std::sync::Arc;

use session_store_core::{PrimaryStore, Reason, RotationOutcome, Visibility};
use session_store_memory::MemoryStore;

use super::again::{Phoenix, app, log_in_warm};
use super::*;

#[tokio::test]
async fn nobody_is_kept_out_by_a_server_that_takes_no_writes() {
    for client in CLIENTS {
        let server = Phoenix::start(&[]).await;
        let truth: Arc<dyn PrimaryStore> = Arc::new(MemoryStore::new());
        let config = config(&server.url(), client);
        let app = app(&truth, &config, Duration::from_mins(5));
        let old = log_in_warm(&app).await;
        // Its replica is down.
        let mut shell = shell(&server.url()).await;
        let () = say(&mut shell, "CONFIG SET min-replicas-to-write 1").await;
        let RotationOutcome::Rotated { token: new, .. } = app.rotate(&old).await.unwrap() else {
            panic!("not rotated");
        };
        for number in 0..50 {
            let live = app.authenticate(&new).await.live();
            assert!(live.is_some(), "{client:?}, {number}");
        }
        let stats = app.store().stats();
        assert!(stats.cache_errors > 0, "the server took writes");
        let keys: Vec<String> = say(&mut shell, "KEYS ss:*").await;
        assert_eq!(keys.len(), 1, "the old entry is gone, so nothing is shown");
        let done = app.admin_revoke(new.id(), Reason::Admin).await.unwrap();
        assert_ne!(done.visibility, Visibility::Immediate);
    }
}
