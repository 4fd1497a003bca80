//! The scheduler: which task runs next, and all the ways to decide it.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

use super::scenario::{Scenario, Search};
use super::world::{MakePair, World};
use crate::host::BoxFuture;

thread_local! {
    /// Whether the task that is being polled may pass one gate.
    static PERMIT: Cell<bool> = const { Cell::new(false) };
    /// Whether it stopped at a gate.
    static AT_GATE: Cell<bool> = const { Cell::new(false) };
}

/// Completes when the scheduler lets the task take one step.
#[derive(Debug)]
pub(super) struct Gate;

impl Future for Gate {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if PERMIT.with(|permit| permit.replace(false)) {
            return Poll::Ready(());
        }
        AT_GATE.with(|at| at.set(true));
        Poll::Pending
    }
}

/// Polls a future that never waits for a gate.
pub(super) fn run_now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    PERMIT.with(|permit| permit.set(true));
    let result = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    PERMIT.with(|permit| permit.set(false));
    match result {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

#[derive(Debug)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Task {
    future: Option<BoxFuture<'static, ()>>,
    woken: Arc<Flag>,
    at_gate: bool,
    /// Who spawned it, if the scenario ties children to their parents.
    parent: Option<usize>,
    /// Whether the caller may go away, and whether the task has started.
    droppable: bool,
    started: bool,
}

/// One thing that may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Run(usize),
    Drop(usize),
    Fire(usize),
}

/// A timer that fires only when the scheduler says so.
#[derive(Debug, Default)]
pub(super) struct Timers(Mutex<Vec<(bool, Option<Waker>)>>);

impl Timers {
    pub(super) fn start(self: &Arc<Self>) -> Timer {
        let mut all = self.0.lock();
        all.push((false, None));
        Timer { id: all.len() - 1, timers: Arc::clone(self) }
    }

    fn pending(&self) -> Vec<usize> {
        let all = self.0.lock();
        (0..all.len()).filter(|id| !all[*id].0 && all[*id].1.is_some()).collect()
    }

    fn fire(&self, id: usize) {
        let mut all = self.0.lock();
        all[id].0 = true;
        if let Some(waker) = all[id].1.take() {
            waker.wake();
        }
    }
}

#[derive(Debug)]
pub(super) struct Timer {
    id: usize,
    timers: Arc<Timers>,
}

impl Future for Timer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut all = self.timers.0.lock();
        if all[self.id].0 {
            return Poll::Ready(());
        }
        all[self.id].1 = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // A timer nobody waits for any more can't fire.
        self.timers.0.lock()[self.id].1 = None;
    }
}

/// What an exploration found.
#[derive(Clone, Debug, Default)]
pub struct Explored {
    /// How many schedules were run to their end.
    pub schedules: u64,
    /// How many of them broke a promise.
    pub violations: u64,
    /// How many ended with a task that waits for ever.
    pub deadlocks: u64,
    /// What went wrong first, and the steps that led there.
    pub first: Option<String>,
}

impl Explored {
    /// Whether every schedule kept every promise.
    pub fn is_clean(&self) -> bool {
        self.violations == 0 && self.deadlocks == 0 && self.schedules > 0
    }
}

/// Runs `scenario` under every schedule, or under as many random ones as it asks for.
pub fn explore(scenario: &Scenario, make: MakePair<'_>) -> Explored {
    let mut found = Explored::default();
    let mut choices = Choices::new(scenario.search);
    loop {
        let mut run = Run::new(scenario, make);
        let end = run.finish(&mut choices);
        found.schedules += 1;
        if end == End::Stuck {
            found.deadlocks += 1;
        }
        let broken = run.world.verdict(end == End::Stuck);
        if let Some(broken) = broken {
            found.violations += u64::from(end != End::Stuck);
            if found.first.is_none() {
                found.first = Some(format!("{broken}\n{}", run.world.trace()));
            }
            if scenario.stop_at_first {
                return found;
            }
        }
        if !choices.next(found.schedules) {
            return found;
        }
    }
}

/// The decisions of one schedule, and the way to the next schedule.
struct Choices {
    search: Search,
    stack: Vec<(usize, usize)>,
    depth: usize,
    random: u64,
}

impl Choices {
    fn new(search: Search) -> Self {
        let random = match search {
            Search::All { .. } => 0,
            Search::Random { seed, .. } => seed | 1,
        };
        Self { search, stack: Vec::new(), depth: 0, random }
    }

    fn pick(&mut self, options: usize) -> usize {
        if let Search::Random { .. } = self.search {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            return usize::try_from(self.random % options as u64).unwrap_or(0);
        }
        if self.depth == self.stack.len() {
            self.stack.push((0, options));
        }
        self.depth += 1;
        self.stack[self.depth - 1].0
    }

    /// Goes to the next schedule; `false` when there is none.
    fn next(&mut self, done: u64) -> bool {
        match self.search {
            Search::Random { count, .. } => done < count,
            Search::All { at_most } => {
                self.stack.truncate(self.depth);
                self.depth = 0;
                while let Some((choice, options)) = self.stack.last_mut() {
                    if *choice + 1 < *options {
                        *choice += 1;
                        return done < at_most;
                    }
                    self.stack.pop();
                }
                false
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    Stuck,
}

struct Run {
    world: Arc<World>,
    tasks: Vec<Task>,
    ties_children: bool,
    fires_left: u32,
}

impl Run {
    fn new(scenario: &Scenario, make: MakePair<'_>) -> Self {
        let world = World::new(scenario, make);
        let mut run = Self {
            tasks: Vec::new(),
            ties_children: world.ties_children(),
            fires_left: scenario.timers,
            world,
        };
        for (future, droppable) in run.world.clone().actors(scenario) {
            run.add(future, droppable, None);
        }
        run
    }

    fn add(&mut self, future: BoxFuture<'static, ()>, droppable: bool, parent: Option<usize>) {
        self.tasks.push(Task {
            future: Some(future),
            woken: Arc::new(Flag(AtomicBool::new(true))),
            at_gate: false,
            parent,
            droppable,
            started: false,
        });
    }

    fn options(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (id, task) in self.tasks.iter().enumerate() {
            if task.future.is_none() {
                continue;
            }
            if task.at_gate || task.woken.0.load(Ordering::Relaxed) {
                steps.push(Step::Run(id));
            }
            if task.droppable && task.started {
                steps.push(Step::Drop(id));
            }
        }
        if self.fires_left > 0 {
            steps.extend(self.world.timers.pending().into_iter().map(Step::Fire));
        }
        steps
    }

    fn finish(&mut self, choices: &mut Choices) -> End {
        loop {
            let options = self.options();
            if options.is_empty() {
                let is_done = self.tasks.iter().all(|task| task.future.is_none());
                return if is_done { End::Done } else { End::Stuck };
            }
            let step = options[choices.pick(options.len())];
            self.take(step);
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Fire(id) => {
                self.fires_left -= 1;
                self.world.log("a deadline fires");
                self.world.timers.fire(id);
            }
            Step::Drop(id) => {
                self.world.log(&format!("task {id} goes away"));
                self.discard(id);
            }
            Step::Run(id) => self.run(id),
        }
    }

    fn run(&mut self, id: usize) {
        let task = &mut self.tasks[id];
        task.started = true;
        task.woken.0.store(false, Ordering::Relaxed);
        PERMIT.with(|permit| permit.set(task.at_gate));
        AT_GATE.with(|at| at.set(false));
        self.world.set_actor(id);
        let waker = Waker::from(Arc::clone(&task.woken));
        let is_done = task
            .future
            .as_mut()
            .is_none_or(|future| future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
        PERMIT.with(|permit| permit.set(false));
        task.at_gate = AT_GATE.with(Cell::get);
        if is_done {
            task.future = None;
        }
        for future in self.world.take_spawned() {
            self.add(future, false, Some(id));
        }
    }

    fn discard(&mut self, id: usize) {
        self.tasks[id].future = None;
        if self.ties_children {
            let children: Vec<_> = (0..self.tasks.len())
                .filter(|child| self.tasks[*child].parent == Some(id))
                .filter(|child| self.tasks[*child].future.is_some())
                .collect();
            for child in children {
                self.discard(child);
            }
        }
    }
}
