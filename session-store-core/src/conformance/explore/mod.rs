//! Every schedule of the shipped [`Layered`](crate::Layered): no model, no copy.
//!
//! Each store operation is a scheduling point, and so are a task that was woken, a timer that may
//! fire and a caller that may go away. A depth-first search over "what happens next" replays a
//! scenario from scratch for every schedule; scenarios too large for that are sampled with a seed.

mod schedule;
mod world;
mod actors;
mod stepped;
mod scenario;
mod quirk;

pub use quirk::Quirk;
pub use scenario::{MUTANTS, Mutant, SCENARIOS, Scenario, Search};
pub use schedule::{Explored, explore};
pub use world::{MakePair, Pair};
