//! A worker that is lost ends the run in one sentence. Burn tells of it by whatever operation comes next, as an error or a
//! panic in any thread; what the relay saw is the reason.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::exit;
use std::sync::{Once, OnceLock};
use std::thread::{sleep, spawn};
use std::time::Duration;

use crate::cli::output::note;

/// What becomes of a run whose worker is lost.
const KEPT: &str = "what was finished is kept: start the worker again, and the same command goes on from there";

/// Within this time after a worker is lost, the run should have noticed.
const UNTIL_EXIT: Duration = Duration::from_secs(30);

static LOST: OnceLock<String> = OnceLock::new();
static TAKEN_OVER: Once = Once::new();

/// Notes that a worker is lost; `why` names its address. The first one counts.
pub fn set(why: &str) {
    if LOST.set(format!("{why}; {KEPT}")).is_err() {
        return;
    }
    spawn(|| {
        sleep(UNTIL_EXIT);
        // A thread that waits for one that has panicked may wait for ever. Files are complete at any time.
        note(sentence().unwrap_or_default());
        exit(1);
    });
}

/// The sentence about a worker that is lost.
pub fn sentence() -> Option<String> {
    LOST.get().cloned()
}

/// As [`sentence`], after a moment if need be: a worker may say goodbye before its connection ends.
fn settled() -> Option<String> {
    let moments = if TAKEN_OVER.is_completed() { 10 } else { 0 };
    for _ in 0..moments {
        if LOST.get().is_some() {
            break;
        }
        sleep(Duration::from_millis(20));
    }
    sentence()
}

/// Panics that a lost worker causes are not shown: the sentence says it. For a process that uses workers.
pub fn take_over_panics() {
    TAKEN_OVER.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if settled().is_none() {
                before(panic);
            }
        }));
    });
}

/// Does `work`. If it fails and a worker was lost, that is the reason, whatever else came of it.
///
/// # Errors
/// Those of `work`, or the sentence about the worker.
pub fn watched<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let done = catch_unwind(AssertUnwindSafe(work));
    if let Ok(Ok(done)) = done {
        return Ok(done);
    }
    match (settled(), done) {
        (Some(sentence), _) => Err(sentence),
        (None, Ok(failed)) => failed,
        (None, Err(panic)) => resume_unwind(panic),
    }
}
