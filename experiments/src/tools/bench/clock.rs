//! Wall and processor time of repeated passes.

use std::time::{Duration, Instant};

/// Minimum number of timed passes.
const LEAST: usize = 3;

/// Times of repeated passes.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Passes timed.
    pub passes: usize,
    /// Seconds of the first untimed pass, if there is one.
    pub first: Option<f64>,
    /// Seconds.
    pub median: f64,
    /// Seconds.
    pub min: f64,
    /// Average processor time of a pass over all threads; `None` if the system does not report it.
    pub processor: Option<f64>,
    /// Processor time over wall time.
    pub cores_busy: Option<f64>,
}

impl Times {
    /// Runs `pass` for about `seconds`, after `warm_up` untimed passes, which fill caches and pools and let a GPU
    /// compile and choose its kernels.
    pub fn of(mut pass: impl FnMut(), warm_up: usize, seconds: f64) -> Self {
        let mut first = None;
        for _ in 0..warm_up {
            let start = Instant::now();
            pass();
            first.get_or_insert(start.elapsed().as_secs_f64());
        }
        let (start, processor) = (Instant::now(), processor_time());
        let mut passes: Vec<f64> = Vec::new();
        while passes.len() < LEAST || start.elapsed() < Duration::from_secs_f64(seconds) {
            let start = Instant::now();
            pass();
            passes.push(start.elapsed().as_secs_f64());
        }
        let wall = start.elapsed().as_secs_f64();
        let busy = processor.zip(processor_time()).map(|(before, after)| after - before);
        passes.sort_by(f64::total_cmp);
        let count = passes.len();
        Self {
            passes: count,
            first,
            median: passes[count / 2],
            min: passes[0],
            processor: busy.map(|busy| busy / count as f64),
            cores_busy: busy.map(|busy| busy / wall),
        }
    }
}

/// Processor time of the live threads of this process in seconds, from Linux's /proc.
fn processor_time() -> Option<f64> {
    let mut nanoseconds = 0.0;
    for thread in std::fs::read_dir("/proc/self/task").ok()? {
        let schedule = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += schedule.split_whitespace().next()?.parse::<f64>().ok()?;
    }
    Some(nanoseconds * 1e-9)
}
