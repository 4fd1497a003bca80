//! What is done when somebody ends this process by ctrl-C or by a signal.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::book::Book;
use crate::cli::{Failure, complain};

/// Undoes what was started from `book` when this process is told to end, and then ends it. A process
/// has one such book.
pub(super) fn undoes(book: &Arc<Book>) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io("signals", &error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed)?;
    // The handlers are there when this returns, and not some time later.
    let inside = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    drop(inside);
    let book = Arc::clone(book);
    std::thread::spawn(move || {
        let number = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => 2,
                _ = terminate.recv() => 15,
                _ = hangup.recv() => 1,
            }
        });
        if let Err(failure) = book.undo() {
            complain(&format!("servers: {failure}"));
        }
        std::process::exit(128 + number);
    });
    Ok(())
}
