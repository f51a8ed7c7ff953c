//! Thread pools for many small operations in a row.

use burn::tensor::Device;

/// Runs `work` on a thread of the pool that flex's operations share, if `device` is flex. Called from outside the pool,
/// every operation would wait for a thread to wake up, hundreds of times per token of a language model. For other devices
/// `work` simply runs here: a GPU has one queue per thread, and queues that change from call to call would wait for each
/// other.
pub fn with_pool<R: Send>(device: &Device, work: impl FnOnce() -> R + Send) -> R {
    #[cfg(feature = "flex")]
    if crate::flex::is_flex(device) {
        return rayon::scope(|_| work());
    }
    let _ = device;
    work()
}

/// As [`with_pool`], and on flex the pool's other threads spin (wait for tasks without sleeping) until `work` is done: for
/// operations so short that waking a thread takes as long as its share of one.
///
/// Returns only after every thread of the pool has stopped spinning. It deadlocks if a task in the pool waits for
/// something that the caller holds, such as a lock.
pub fn with_spinning_pool<R: Send>(device: &Device, work: impl FnOnce() -> R + Send) -> R {
    #[cfg(feature = "flex")]
    if crate::flex::is_flex(device) {
        return spinning::with_pool(work);
    }
    let _ = device;
    work()
}

#[cfg(feature = "flex")]
mod spinning {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use rayon::Yield;

    /// Longest spin without finding work: more than the time between two operations. It is bounded because a thread may be
    /// asked to spin while it waits inside a task of the very work it would spin for.
    const IDLE: Duration = Duration::from_micros(300);

    thread_local! {
        /// This thread spins already, or runs the work that others spin for.
        static BUSY: Cell<bool> = const { Cell::new(false) };
    }

    pub fn with_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
        rayon::scope(|_| {
            if BUSY.replace(true) {
                return work();
            }
            let _restores = Restore;
            let done = AtomicBool::new(false);
            rayon::scope(|scope| {
                let _sets = SetWhenDropped(&done);
                scope.spawn_broadcast(|_, _| spin(&done));
                work()
            })
        })
    }

    fn spin(done: &AtomicBool) {
        if BUSY.replace(true) {
            return;
        }
        let _restores = Restore;
        let mut found = Instant::now();
        while !done.load(Ordering::Relaxed) && found.elapsed() < IDLE {
            match rayon::yield_now() {
                Some(Yield::Executed) => found = Instant::now(),
                _ => thread::yield_now(),
            }
        }
    }

    /// Runs even if the work panics.
    struct SetWhenDropped<'a>(&'a AtomicBool);

    impl Drop for SetWhenDropped<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    struct Restore;

    impl Drop for Restore {
        fn drop(&mut self) {
            BUSY.set(false);
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Device;
    use rayon::prelude::*;

    use super::with_spinning_pool;

    #[test]
    fn sections_within_and_beside_each_other_all_end() {
        let flex = Device::flex();
        let sum = || {
            with_spinning_pool(&flex, || {
                let inner = with_spinning_pool(&flex, || (0..1000u32).into_par_iter().sum::<u32>());
                inner + (0..1000u32).into_par_iter().with_max_len(1).sum::<u32>()
            })
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..200).map(|_| sum()).sum::<u32>()))
                .collect();
            for thread in threads {
                assert_eq!(thread.join().unwrap(), 200 * 999_000);
            }
        });
    }

    #[test]
    fn a_panic_passes_through() {
        let flex = Device::flex();
        let result = std::panic::catch_unwind(|| with_spinning_pool(&flex, || panic!("on purpose")));
        assert!(result.is_err());
        assert_eq!(with_spinning_pool(&flex, || 1), 1);
    }
}
