//! Progress display and end of a training.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use burn::train::Interrupter;
use burn::train::renderer::MetricsRenderer;

use crate::run::clock::Clock;
use crate::run::outcome::RunError;
use crate::train::dashboard::{Dashboard, was_killed};
use crate::train::plain::Plain;

/// The progress display of a training that starts after epoch `done` (0: from the beginning) and that `interrupter` can
/// stop: the dashboard in a terminal, plain lines elsewhere, which call a round `round`.
pub fn renderer(
    terminal: bool,
    interrupter: &Interrupter,
    done: usize,
    round: &'static str,
) -> Box<dyn MetricsRenderer> {
    match terminal {
        true => Box::new(Dashboard::open(interrupter, (done > 0).then_some(done))),
        false => Box::new(Plain { round }),
    }
}

/// Runs `training` and saves its time, however it ends.
///
/// # Errors
/// An immediate stop, chosen in the dashboard.
pub fn launch<T>(clock: &Clock, training: impl FnOnce() -> T) -> Result<T, RunError> {
    let launched = catch_unwind(AssertUnwindSafe(training));
    clock.save();
    match launched {
        Ok(result) => Ok(result),
        Err(panic) if was_killed(&*panic) => Err(RunError::Interrupted),
        Err(panic) => resume_unwind(panic),
    }
}
