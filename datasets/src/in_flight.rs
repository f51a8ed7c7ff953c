//! A limit on the bytes of images that are decoded at the same time, over all threads of the process.

use std::sync::{Condvar, Mutex, PoisonError};

/// Bytes that may be decoded at the same time; an image that needs more is decoded alone.
const MOST: u64 = 256 << 20;

static GATE: Gate = Gate {
    used: Mutex::new(0),
    freed: Condvar::new(),
};

struct Gate {
    used: Mutex<u64>,
    freed: Condvar,
}

/// A permit to hold some bytes, released when it is dropped. Its holder must not wait for work in a thread pool, whose
/// thread might itself wait for a permit.
#[derive(Debug)]
pub(crate) struct Permit(u64);

/// Waits until another `bytes` bytes may be decoded.
pub(crate) fn acquire(bytes: u64) -> Permit {
    let mut used = GATE.used.lock().unwrap_or_else(PoisonError::into_inner);
    while *used > 0 && used.saturating_add(bytes) > MOST {
        used = GATE.freed.wait(used).unwrap_or_else(PoisonError::into_inner);
    }
    *used = used.saturating_add(bytes);
    Permit(bytes)
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut used = GATE.used.lock().unwrap_or_else(PoisonError::into_inner);
        *used = used.saturating_sub(self.0);
        GATE.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn the_bound_holds_and_what_is_greater_goes_alone() {
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for index in 0..12_u64 {
                let (now, most) = (&now, &most);
                scope.spawn(move || {
                    for turn in 0..20 {
                        let bytes = if (index + turn) % 7 == 0 { MOST * 3 } else { MOST / 3 };
                        let permit = acquire(bytes);
                        let held = now.fetch_add(bytes, Ordering::SeqCst) + bytes;
                        assert!(held <= MOST || held == MOST * 3, "{held}");
                        most.fetch_max(held, Ordering::SeqCst);
                        now.fetch_sub(bytes, Ordering::SeqCst);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), MOST * 3);
    }
}
