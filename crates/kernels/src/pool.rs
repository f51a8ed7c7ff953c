//! Many small operations in a row.

use burn::tensor::Device;

/// Runs `work`, if `device` is flex on a thread of the pool that its operations share. From outside of it each operation
/// would wait for a thread to wake up, hundreds of times for one token of a language model. For another device it is just
/// run: a GPU has a queue for each thread, and one that changes from call to call would have them wait for each other.
pub fn in_pool<R: Send>(device: &Device, work: impl FnOnce() -> R + Send) -> R {
    #[cfg(feature = "flex")]
    if crate::flex::is_flex(device) {
        return rayon::scope(|_| work());
    }
    let _ = device;
    work()
}

/// As [`in_pool`], and if `device` is flex the pool's other threads look for work without pause until `work` is done: for
/// operations so short that waking a thread takes as long as its part of one.
///
/// It returns when every thread of the pool has looked up from what it was doing: nothing in the pool may wait for what
/// the caller holds.
pub fn in_awake_pool<R: Send>(device: &Device, work: impl FnOnce() -> R + Send) -> R {
    #[cfg(feature = "flex")]
    if crate::flex::is_flex(device) {
        return awake::in_pool(work);
    }
    let _ = device;
    work()
}

#[cfg(feature = "flex")]
mod awake {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use rayon::Yield;

    /// Longest search without finding anything: more than passes between two operations. It has an end since a thread may
    /// be asked to stay awake while it waits inside a part of the very work that it would stay awake for.
    const IDLE: Duration = Duration::from_micros(300);

    thread_local! {
        /// This thread stays awake already, or does the work that others stay awake for.
        static BUSY: Cell<bool> = const { Cell::new(false) };
    }

    pub fn in_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
        rayon::scope(|_| {
            if BUSY.replace(true) {
                return work();
            }
            let _restores = Restore;
            let done = AtomicBool::new(false);
            rayon::scope(|scope| {
                let _sets = SetWhenDropped(&done);
                scope.spawn_broadcast(|_, _| stay_awake(&done));
                work()
            })
        })
    }

    fn stay_awake(done: &AtomicBool) {
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

    /// Also if the work panics.
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

    use super::in_awake_pool;

    #[test]
    fn sections_within_and_beside_each_other_all_end() {
        let flex = Device::flex();
        let sum = || {
            in_awake_pool(&flex, || {
                let inner = in_awake_pool(&flex, || (0..1000u32).into_par_iter().sum::<u32>());
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
        let result = std::panic::catch_unwind(|| in_awake_pool(&flex, || panic!("on purpose")));
        assert!(result.is_err());
        assert_eq!(in_awake_pool(&flex, || 1), 1);
    }
}
