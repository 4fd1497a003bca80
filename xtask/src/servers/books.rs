//! Every book of this process: a signal undoes them all, and the next command what a killed one left.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::book::Book;
use super::process::Process;
use super::state::{GENTLY, State};
use crate::cli::Failure;

#[derive(Default)]
struct Books {
    all: Vec<Weak<Book>>,
    /// This process is being ended.
    is_closed: bool,
}

static BOOKS: Mutex<Books> = Mutex::new(Books { all: Vec::new(), is_closed: false });

pub(super) fn add(book: Book) -> Arc<Book> {
    let book = Arc::new(book);
    let mut books = BOOKS.lock();
    books.all.retain(|book| book.strong_count() > 0);
    books.all.push(Arc::downgrade(&book));
    if books.is_closed {
        book.close();
    }
    book
}

/// Stops what this process started, whatever it is for, and starts nothing more.
pub(super) fn undo() -> Result<(), Failure> {
    let all: Vec<_> = {
        let mut books = BOOKS.lock();
        books.is_closed = true;
        books.all.iter().filter_map(Weak::upgrade).collect()
    };
    // All of them, also after one that fails.
    all.iter().map(|book| book.undo()).fold(Ok(()), Result::and)
}

/// Whether this process is being ended by a signal.
pub(super) fn is_closed() -> bool {
    BOOKS.lock().is_closed
}

/// The file of what ends with this process, beside the one at `path`; the two have one beginning.
pub(super) fn own(path: &Path) -> Result<PathBuf, Failure> {
    let unknown = || Failure::new("/proc does not know this process");
    let label = Process::own().ok_or_else(unknown)?.label();
    Ok(path.with_file_name(format!("{}{label}.json", beginning(path))))
}

/// Stops what other processes started, and have not stopped before they ended.
pub(super) fn clear(path: &Path) -> Result<(), Failure> {
    let beginning = beginning(path);
    let files = path.parent().map(fs::read_dir).into_iter().flatten().flatten().flatten();
    let mut outcome = Ok(());
    for file in files {
        let name = file.file_name().to_string_lossy().into_owned();
        let label = name.strip_prefix(&beginning).and_then(|rest| rest.strip_suffix(".json"));
        let owner = label.and_then(Process::labelled);
        if owner.is_some_and(|owner| !owner.is_alive()) {
            outcome = outcome.and(clear_one(&file.path()));
        }
    }
    outcome
}

fn clear_one(path: &Path) -> Result<(), Failure> {
    let mut state = State::read(path)?;
    let stopped = state.stop(|_| true, &GENTLY);
    if state == State::default() {
        remove(path)?;
    }
    stopped.map(drop)
}

/// Removes a file of servers, and what was to become it.
pub(super) fn remove(path: &Path) -> Result<(), Failure> {
    for path in [path, &path.with_extension("draft")] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::io(&path.display().to_string(), &error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn beginning(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    format!("{}-", stem.to_string_lossy())
}
