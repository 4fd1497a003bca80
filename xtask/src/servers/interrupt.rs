//! What is done when somebody ends this process by ctrl-C or by a signal.

use futures_util::future::select_all;
use tokio::signal::unix::{SignalKind, signal};

use super::books;
use crate::cli::{Failure, complain};

/// Undoes what this process started, for whatever book, when it is told to end, and then ends it.
pub(super) fn undoes() -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io("signals", &error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed)?;
    // The handlers are there when this returns, and not some time later.
    let inside = runtime.enter();
    let ignored = ignored();
    let mut ends = Vec::new();
    for number in [1, 2, 15] {
        // Whoever started this under `nohup` does not want it to end then.
        if ignored & 1 << (number - 1) == 0 {
            ends.push((number, signal(SignalKind::from_raw(number)).map_err(failed)?));
        }
    }
    drop(inside);
    if ends.is_empty() {
        return Ok(());
    }
    std::thread::spawn(move || {
        let first = ends.iter_mut().map(|(number, end)| {
            Box::pin(async move {
                end.recv().await;
                *number
            })
        });
        let (number, ..) = runtime.block_on(select_all(first));
        if let Err(failure) = books::undo() {
            complain(&format!("servers: {failure}"));
        }
        std::process::exit(128 + number);
    });
    Ok(())
}

/// The signals that this process ignores, a bit for each.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    u64::from_str_radix(mask.unwrap_or_default().trim(), 16).unwrap_or_default()
}
