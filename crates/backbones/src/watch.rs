//! Programs in third-party files (templates, regular expressions) run on a thread of their own, which is given up when it
//! works too long or takes too much memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use wegeft::guard::guarded;

/// Bytes of stack of the thread; only what is used is ever in memory.
const STACK: usize = 256 << 20;
/// Work that is done by then is not looked at.
const AT_FIRST: Duration = Duration::from_millis(50);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// Works that were given up and go on, at most: no more are begun.
const MOST_LEFT: isize = 4;
/// Those of this process.
static LEFT: AtomicIsize = AtomicIsize::new(0);
/// Works that are waited for: all of them make the process grow.
static RUNNING: AtomicU64 = AtomicU64::new(0);

/// What is allowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes by which the process may grow meanwhile, on systems that say so in /proc.
    pub memory: u64,
    pub time: Duration,
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfinished {
    #[error("it works for more than {} s", (.0.as_secs_f64() * 10.0).round() / 10.0)]
    Time(Duration),
    #[error("it takes more than {} MB of memory", .0 >> 20)]
    Memory(u64),
    #[error("earlier work that was given up still goes on; start the program again")]
    Left,
    #[error("{0}")]
    Panicked(String),
}

/// Runs `work` where deep recursion has room. What takes too long or too much cannot be stopped: its thread goes on until
/// the program ends, which it is not to wait for.
///
/// # Errors
/// Work that exceeds the limits or panics.
pub(crate) fn watched<T: Send + 'static>(
    limits: Limits,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unfinished> {
    if LEFT.load(Ordering::SeqCst) >= MOST_LEFT {
        return Err(Unfinished::Left);
    }
    let before = resident();
    let (send, receive) = sync_channel(1);
    // Set by whoever comes first, the end of the work or the end of the waiting.
    let over = Arc::new(AtomicBool::new(false));
    let ended = over.clone();
    let run = move || {
        // Nobody may be waiting any more.
        let _ = send.send(guarded(work));
        if ended.swap(true, Ordering::SeqCst) {
            LEFT.fetch_sub(1, Ordering::SeqCst);
        }
    };
    let thread = thread::Builder::new()
        .stack_size(STACK)
        .spawn(run)
        .map_err(|error| Unfinished::Panicked(error.to_string()))?;
    RUNNING.fetch_add(1, Ordering::SeqCst);
    let result = wait(&receive, before, limits);
    RUNNING.fetch_sub(1, Ordering::SeqCst);
    if result.is_err() && !over.swap(true, Ordering::SeqCst) {
        LEFT.fetch_add(1, Ordering::SeqCst);
    }
    let result = result?;
    let _ = thread.join();
    match result {
        Some(result) => result.map_err(|panic| Unfinished::Panicked(panic.message)),
        None => Err(Unfinished::Panicked("no reason given".into())),
    }
}

/// What the thread sends; nothing if it ended without.
fn wait<T>(receive: &Receiver<T>, before: Option<u64>, limits: Limits) -> Result<Option<T>, Unfinished> {
    let start = Instant::now();
    let mut pause = AT_FIRST.min(limits.time);
    loop {
        match receive.recv_timeout(pause) {
            Ok(result) => return Ok(Some(result)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) => pause = LOOK,
        }
        if start.elapsed() > limits.time {
            return Err(Unfinished::Time(limits.time));
        }
        let grown = resident().zip(before).map(|(now, before)| now.saturating_sub(before));
        let running = RUNNING.load(Ordering::SeqCst).max(1);
        if grown.is_some_and(|grown| grown > limits.memory.saturating_mul(running)) {
            return Err(Unfinished::Memory(limits.memory));
        }
    }
}

/// Bytes of this process that are in memory.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOSE: Limits = Limits {
        memory: 1 << 40,
        time: Duration::from_secs(60),
    };

    #[test]
    fn work_that_ends_has_its_result() {
        assert_eq!(watched(LOOSE, || 3), Ok(3));
        let panicked = watched(LOOSE, || -> i32 { panic!("on purpose") });
        assert_eq!(panicked, Err(Unfinished::Panicked("on purpose".into())));
    }

    #[test]
    fn work_that_takes_long_is_given_up() {
        let time = Duration::from_millis(100);
        let start = Instant::now();
        let slow = || thread::sleep(Duration::from_secs(3));
        assert_eq!(watched(Limits { time, ..LOOSE }, slow), Err(Unfinished::Time(time)));
        assert!(start.elapsed() < Duration::from_secs(2));
        assert_eq!(Unfinished::Time(time).to_string(), "it works for more than 0.1 s");
        let time = Duration::from_micros(15_297_512);
        assert_eq!(Unfinished::Time(time).to_string(), "it works for more than 15.3 s");
    }

    #[test]
    fn work_that_takes_memory_is_given_up() {
        if resident().is_none() {
            return;
        }
        let greedy = || {
            let mut kept = Vec::new();
            for _ in 0..200 {
                kept.push(vec![1_u8; 1 << 20]);
                thread::sleep(Duration::from_millis(2));
            }
            kept.len()
        };
        let memory = 64 << 20;
        assert_eq!(
            watched(Limits { memory, ..LOOSE }, greedy),
            Err(Unfinished::Memory(memory))
        );
    }
}
