//! The book of what runs: everything is written down the moment it is started, so that whatever
//! happens next can be undone.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::books;
use super::docker::{self, Container, Wish};
use super::process::{Process, Running};
use super::state::{self, GENTLY, Record, State};
use crate::cli::Failure;

/// Whether installed programs are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Way {
    /// Programs; a container of what can't be had otherwise.
    #[default]
    Programs,
    /// Containers of everything that there are images of.
    Containers,
}

/// What runs, in memory and in a file, which whoever comes after this process reads.
#[derive(Debug)]
pub(crate) struct Book {
    path: PathBuf,
    /// Whether nobody else writes it, so that it goes when nothing is in it.
    is_own: bool,
    way: Way,
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    state: State,
    /// Names of the servers that were started from here.
    own: Vec<String>,
    /// Held while servers are started or stopped: one command of a checkout at a time.
    turn: Option<File>,
    /// Nothing is started any more.
    is_closed: bool,
}

impl Pages {
    fn record(&mut self, name: &str) -> Result<&mut Record, Failure> {
        if self.is_closed {
            return Err(interrupted());
        }
        let record = self.state.0.iter_mut().find(|record| record.name == name);
        record.ok_or_else(|| Failure::new(format!("{name} was stopped while it started")))
    }
}

fn interrupted() -> Failure {
    Failure::new("interrupted")
}

/// Waits until no other command of this checkout starts or stops servers.
fn turn(path: &Path) -> Result<File, Failure> {
    let failed = |error: std::io::Error| Failure::io(&path.display().to_string(), &error);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let file = File::create(path.with_extension("lock")).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

impl Book {
    /// The book in the file at `path`, without what can't be used any more. Others wait until
    /// [`Book::release`].
    pub(super) fn open(path: &Path, way: Way) -> Result<Arc<Self>, Failure> {
        let turn = Some(turn(path)?);
        let mut state = State::read(path)?;
        let cleared = state.clear().and(books::clear(path));
        state.write(path)?;
        cleared?;
        let pages = Mutex::new(Pages { state, turn, ..Pages::default() });
        Ok(books::add(Self { path: path.to_owned(), is_own: false, way, pages }))
    }

    /// A book of what ends with this process, beside the one at `path`.
    pub(super) fn own(path: &Path) -> Result<Arc<Self>, Failure> {
        let path = books::own(path)?;
        Ok(books::add(Self { path, is_own: true, way: Way::Programs, pages: Mutex::default() }))
    }

    fn write(&self, pages: &Pages) -> Result<(), Failure> {
        if self.is_own && pages.state == State::default() {
            return books::remove(&self.path);
        }
        pages.state.write(&self.path)
    }

    /// Starts nothing more.
    pub(super) fn close(&self) {
        self.pages.lock().is_closed = true;
    }

    /// Lets other commands start and stop servers.
    pub(super) fn release(&self) {
        drop(self.pages.lock().turn.take());
    }

    /// Where a server is that can be used.
    pub(super) fn url(&self, name: &str) -> Option<String> {
        self.pages.lock().state.url(name)
    }

    /// An empty folder, and a page for what is going to run in it.
    pub(crate) fn home(self: &Arc<Self>, name: &str) -> Result<Home, Failure> {
        let mut pages = self.pages.lock();
        if pages.is_closed {
            return Err(interrupted());
        }
        let folder = state::empty_folder(name)?;
        let record = Record {
            name: name.to_owned(),
            url: None,
            running: Vec::new(),
            folder: folder.clone(),
        };
        pages.state.0.push(record);
        pages.own.push(name.to_owned());
        self.write(&pages)?;
        Ok(Home { book: Arc::clone(self), name: name.to_owned(), folder })
    }

    /// Stops what was started from here and starts nothing more. What others started is left alone.
    pub(super) fn undo(&self) -> Result<(), Failure> {
        let mut pages = self.pages.lock();
        pages.is_closed = true;
        let own = std::mem::take(&mut pages.own);
        let mine: Vec<Record> =
            pages.state.0.iter().filter(|record| own.contains(&record.name)).cloned().collect();
        if mine.is_empty() {
            return Ok(());
        }
        let stopped = pages.state.stop(|record| mine.contains(record), &GENTLY);
        self.write(&pages)?;
        stopped.map(drop)
    }

    /// Stops everything; how many servers that were.
    pub(super) fn stop_all(&self) -> Result<usize, Failure> {
        let mut pages = self.pages.lock();
        let stopped = pages.state.stop(|_| true, &GENTLY);
        self.write(&pages)?;
        stopped
    }
}

/// Where one server lives: its folder, and its page in the book.
#[derive(Debug)]
pub(crate) struct Home {
    book: Arc<Book>,
    name: String,
    pub(crate) folder: PathBuf,
}

impl Home {
    /// Whether containers are wanted even of what is installed.
    pub(super) fn wants_containers(&self) -> bool {
        self.book.way == Way::Containers
    }

    fn spawn(&self, mut command: Command) -> Result<(Child, Running), Failure> {
        let mut pages = self.book.pages.lock();
        let record = pages.record(&self.name)?;
        let child = command.spawn().map_err(|error| Failure::io(&self.name, &error))?;
        let ended = || Failure::new(format!("{} ended at once", self.name));
        let running = Running::Process(Process::of(child.id()).ok_or_else(ended)?);
        record.running.push(running.clone());
        self.book.write(&pages)?;
        Ok((child, running))
    }

    /// Runs a program that ends in time; `log` is what it says when it fails.
    pub(super) fn complete(
        &self,
        command: Command,
        log: &Path,
        patience: Duration,
    ) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::io(&self.name, &error);
        let (mut child, running) = self.spawn(command)?;
        let (end, mut status) = (Instant::now() + patience, None);
        while status.is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            status = child.try_wait().map_err(failed)?;
        }
        if status.is_none() {
            running.signal("-KILL");
            child.wait().map_err(failed)?;
        }
        let mut pages = self.book.pages.lock();
        pages.record(&self.name)?.running.retain(|one| *one != running);
        self.book.write(&pages)?;
        if status.is_some_and(|status| status.success()) {
            return Ok(());
        }
        let how = status.map_or_else(|| "too slow".to_owned(), |status| status.to_string());
        let said = fs::read_to_string(log).unwrap_or_default();
        Err(Failure::new(format!("{}: {how}:\n{said}", self.name)))
    }

    /// Starts a process, which is in the book before anything else happens, and waits until it is
    /// ready; `log` is what it says when it isn't.
    pub(crate) fn start(
        &self,
        command: Command,
        log: &Path,
        patience: Duration,
        mut is_ready: impl FnMut() -> bool,
    ) -> Result<Running, Failure> {
        let failed = |error: std::io::Error| Failure::io(&self.name, &error);
        let (mut child, running) = self.spawn(command)?;
        let end = Instant::now() + patience;
        let mut is_first = true;
        loop {
            // Whoever answers on its port may be another one, because of which it has ended.
            let is_up = !std::mem::take(&mut is_first) && is_ready();
            let has_ended = child.try_wait().map_err(failed)?.is_some();
            if is_up && !has_ended {
                break;
            }
            if has_ended || Instant::now() > end {
                let said = fs::read_to_string(log).unwrap_or_default();
                return Err(Failure::new(format!("{} does not start:\n{said}", self.name)));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // Whoever kills it must not leave a zombie that looks alive.
        std::thread::spawn(move || child.wait());
        Ok(running)
    }

    /// The same for a container.
    pub(super) fn contain(
        &self,
        wish: &Wish<'_>,
        patience: Duration,
        mut is_ready: impl FnMut() -> bool,
    ) -> Result<Container, Failure> {
        docker::fetch(wish.image)?;
        let container = {
            let mut pages = self.book.pages.lock();
            let record = pages.record(&self.name)?;
            let container = Container::create(wish)?;
            record.running.push(Running::Container(container.clone()));
            self.book.write(&pages)?;
            container
        };
        container.start()?;
        let end = Instant::now() + patience;
        let mut said = String::new();
        while !is_ready() {
            // One that has ended is gone, and its log with it.
            said = container.log().filter(|log| !log.is_empty()).unwrap_or(said);
            if !container.is_alive() || Instant::now() > end {
                return Err(Failure::new(format!(
                    "{} does not answer on 127.0.0.1; the daemon must run on this machine:\n{said}",
                    self.name
                )));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(container)
    }

    /// From now on it can be used.
    pub(super) fn ready(&self, url: String) -> Result<(), Failure> {
        let mut pages = self.book.pages.lock();
        pages.record(&self.name)?.url = Some(url);
        self.book.write(&pages)
    }

    /// Ends everything that was started here by these signals, one after the other.
    pub(crate) fn stop(&self, signals: &[&str]) -> Result<(), Failure> {
        let mut pages = self.book.pages.lock();
        let stopped = pages.state.stop(|record| record.name == self.name, signals);
        self.book.write(&pages)?;
        stopped.map(drop)
    }

    /// The same, gently.
    pub(crate) fn give_up(&self) -> Result<(), Failure> {
        self.stop(&GENTLY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Command {
        let mut command = Command::new("sleep");
        command.arg("600");
        command
    }

    /// A book in a folder that ends with the test, and the path of its file.
    fn book(folder: &tempfile::TempDir) -> (Arc<Book>, PathBuf) {
        let path = folder.path().join("target/servers.json");
        (Book::open(&path, Way::Programs).unwrap(), path)
    }

    fn start(home: &Home) -> Running {
        home.start(sleeper(), Path::new("/dev/null"), Duration::from_secs(5), || true).unwrap()
    }

    #[test]
    fn what_is_started_is_in_the_file_before_it_is_ready() {
        let folder = tempfile::tempdir().unwrap();
        let (book, path) = book(&folder);
        let home = book.home("test-early").unwrap();
        let mut found = Vec::new();
        let look = || {
            found = State::read(&path).unwrap().0;
            true
        };
        let running = home.start(sleeper(), &path, Duration::from_secs(5), look).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].running[..], &found[0].url), (&[running.clone()][..], &None));
        assert_eq!(book.url("test-early"), None);
        home.ready("nap://".to_owned()).unwrap();
        assert_eq!(State::read(&path).unwrap().url("test-early").as_deref(), Some("nap://"));
        assert_eq!(book.stop_all().unwrap(), 1);
        assert!(!running.is_alive() && !home.folder.exists());
        assert_eq!(State::read(&path).unwrap(), State::default());
    }

    #[test]
    fn a_command_that_was_killed_half_way_is_cleared_up_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let (killed, path) = book(&folder);
        let half = killed.home("test-half").unwrap();
        let dying = killed.home("test-dying").unwrap();
        let whole = killed.home("test-whole").unwrap();
        let all = [start(&half), start(&dying), start(&dying), start(&whole)];
        dying.ready("nap://".to_owned()).unwrap();
        whole.ready("nap://".to_owned()).unwrap();
        // One of two has ended by itself, and nothing was undone.
        all[1].signal("-KILL");
        while all[1].is_alive() {
            std::thread::sleep(Duration::from_millis(5));
        }
        killed.release();
        let next = Book::open(&path, Way::Programs).unwrap();
        assert_eq!(all.map(|one| one.is_alive()), [false, false, false, true]);
        assert!(!half.folder.exists() && !dying.folder.exists() && whole.folder.exists());
        assert_eq!(next.stop_all().unwrap(), 1);
    }

    #[test]
    fn one_that_has_ended_is_not_ready_though_another_answers() {
        let folder = tempfile::tempdir().unwrap();
        let (book, path) = book(&folder);
        let home = book.home("test-loser").unwrap();
        let mut looks = 0;
        let ready = || {
            looks += 1;
            // It ends between two looks.
            let it = State::read(&path).unwrap().0[0].running[0].clone();
            it.signal("-KILL");
            while it.is_alive() {}
            true
        };
        let started = home.start(sleeper(), Path::new("/dev/null"), Duration::from_secs(5), ready);
        assert!(started.unwrap_err().to_string().contains("test-loser does not start"));
        assert_eq!(looks, 1);
        book.undo().unwrap();
    }

    #[test]
    fn undoing_leaves_what_others_started() {
        let folder = tempfile::tempdir().unwrap();
        let (first, path) = book(&folder);
        let theirs = start(&first.home("test-theirs").unwrap());
        first.pages.lock().state.0[0].url = Some("nap://".to_owned());
        first.write(&first.pages.lock()).unwrap();
        first.release();
        let second = Book::open(&path, Way::Programs).unwrap();
        let home = second.home("test-ours").unwrap();
        let ours = start(&home);
        second.release();
        second.undo().unwrap();
        assert!(theirs.is_alive() && !ours.is_alive());
        // Nothing is started any more by a command that was interrupted.
        assert!(second.home("test-late").is_err());
        assert!(home.ready(String::new()).is_err());
        first.undo().unwrap();
        assert!(!theirs.is_alive());
    }
}
