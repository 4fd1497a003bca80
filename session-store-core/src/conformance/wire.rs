//! The wire between a store and whoever uses it: calls are counted, held, lost and refused.

use std::cell::Cell;
use std::sync::Arc;

use futures_channel::oneshot;
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::time::Timestamp;

/// An operation of either store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "they are the methods of the traits")]
pub enum Op {
    Get,
    Reserve,
    Swap,
    Remove,
    Find,
    Insert,
    Update,
    Touch,
    Revoke,
    UpdateUser,
    DeleteUser,
    SettleDeletion,
    Sweep,
    Drain,
    Acknowledge,
    Register,
    Other,
}

/// Where on the wire something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The request is on its way.
    Before,
    /// The operation is done and its reply on the way.
    After,
}

/// A call that is held.
#[derive(Debug)]
pub struct Hold {
    reached: oneshot::Receiver<()>,
    release: oneshot::Sender<()>,
}

impl Hold {
    /// Waits until the call has come to the point.
    pub async fn reached(&mut self) {
        let _ = (&mut self.reached).await;
    }

    /// Lets the call go on.
    pub fn release(self) {
        let _ = self.release.send(());
    }
}

#[derive(Debug)]
enum Trouble {
    Hold(oneshot::Sender<()>, oneshot::Receiver<()>),
    Fail,
    Refuse,
    Hang,
}

#[derive(Debug)]
struct Rule {
    op: Op,
    point: Point,
    trouble: Trouble,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<Op>,
    rules: Vec<Rule>,
    down: bool,
    read_only: bool,
    server_time: Option<Timestamp>,
    is_logless: bool,
}

thread_local! {
    /// Calls that a real server has not answered yet. A case runs on one thread.
    static BUSY: Cell<usize> = const { Cell::new(0) };
}

/// A call that is on its way to the store and back.
struct Busy;

impl Busy {
    fn begin() -> Self {
        BUSY.set(BUSY.get() + 1);
        Self
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.set(BUSY.get().saturating_sub(1));
    }
}

/// Whether a store works on a call of this thread. Calls that are held are not under way.
pub(super) fn is_busy() -> bool {
    BUSY.get() > 0
}

/// One store's wire.
#[derive(Clone, Debug, Default)]
pub struct Wire(Arc<Mutex<State>>);

impl Wire {
    /// Holds the next call of `op` at `point`.
    pub fn hold(&self, op: Op, point: Point) -> Hold {
        let (at_point, reached) = oneshot::channel();
        let (release, released) = oneshot::channel();
        self.add(op, point, Trouble::Hold(at_point, released));
        Hold { reached, release }
    }

    /// Refuses the next call of `op`: nothing happens.
    pub fn fail(&self, op: Op) {
        self.add(op, Point::Before, Trouble::Fail);
    }

    /// Refuses the next call of `op` in a way that no repetition helps: nothing happens.
    pub fn refuse(&self, op: Op) {
        self.add(op, Point::Before, Trouble::Refuse);
    }

    /// Loses the reply of the next call of `op`: it happens all the same.
    pub fn lose_reply(&self, op: Op) {
        self.add(op, Point::After, Trouble::Fail);
    }

    /// Never answers the next call of `op`.
    pub fn hang(&self, op: Op) {
        self.add(op, Point::Before, Trouble::Hang);
    }

    /// Refuses every call, or none any more.
    pub fn set_down(&self, down: bool) {
        self.0.lock().down = down;
    }

    /// Refuses every call that would change a cache, or none any more.
    pub fn set_read_only(&self, read_only: bool) {
        self.0.lock().read_only = read_only;
    }

    /// Makes the store on this wire one that keeps no log.
    pub fn set_logless(&self, is_logless: bool) {
        self.0.lock().is_logless = is_logless;
    }

    pub(super) fn is_logless(&self) -> bool {
        self.0.lock().is_logless
    }

    /// Makes the server on this wire say that it is `time`.
    pub fn set_server_time(&self, time: Timestamp) {
        self.0.lock().server_time = Some(time);
    }

    pub(super) fn server_time(&self) -> Option<Timestamp> {
        self.0.lock().server_time
    }

    /// How often `op` was called.
    pub fn count(&self, op: Op) -> usize {
        self.0.lock().calls.iter().filter(|call| **call == op).count()
    }

    /// How often anything was called.
    pub fn total(&self) -> usize {
        self.0.lock().calls.len()
    }

    /// Forgets what was counted.
    pub fn reset(&self) {
        self.0.lock().calls.clear();
    }

    fn add(&self, op: Op, point: Point, trouble: Trouble) {
        self.0.lock().rules.push(Rule { op, point, trouble });
    }

    fn take(&self, op: Op, point: Point) -> Option<Trouble> {
        let mut state = self.0.lock();
        let place = state.rules.iter().position(|rule| rule.op == op && rule.point == point)?;
        Some(state.rules.remove(place).trouble)
    }

    /// Runs `call` as this wire lets it.
    pub(super) async fn carry<T>(
        &self,
        op: Op,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let is_down = {
            let mut state = self.0.lock();
            state.calls.push(op);
            let is_write = matches!(op, Op::Reserve | Op::Swap | Op::Remove);
            state.down || state.read_only && is_write
        };
        if is_down {
            return Err(Error::new(ErrorKind::Unavailable, "wire"));
        }
        self.pass(op, Point::Before, ErrorKind::Unavailable).await?;
        let result = {
            let _busy = Busy::begin();
            call.await
        };
        self.pass(op, Point::After, ErrorKind::Timeout).await?;
        result
    }

    async fn pass(&self, op: Op, point: Point, kind: ErrorKind) -> Result<()> {
        match self.take(op, point) {
            None => Ok(()),
            Some(Trouble::Fail) => Err(Error::new(kind, "wire")),
            Some(Trouble::Refuse) => Err(Error::invalid("wire", "refused")),
            Some(Trouble::Hang) => std::future::pending().await,
            Some(Trouble::Hold(reached, released)) => {
                let _ = reached.send(());
                let _ = released.await;
                Ok(())
            }
        }
    }
}
