//! A server that sends, but too slowly to ever end.

use std::time::{Duration, Instant};

use super::error::FetchError;

/// The least that a server has to send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rate {
    /// Bytes a second; 0 for any.
    pub bytes: u64,
    /// The time over which they are counted.
    pub window: Duration,
}

impl Rate {
    /// What a slow line still has: no file takes too long, only a server that hardly sends.
    pub const USUAL: Self = Self {
        bytes: 1000,
        window: Duration::from_secs(60),
    };
}

/// Bytes that came and the time that was waited for them, in the window that is open. Time spent on the disk does not count,
/// nor does it start over with a new connection.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Rate,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// `work`, whose time is counted: it waits for the server.
    pub fn wait<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = work();
        self.waited += start.elapsed();
        result
    }

    /// Counts bytes that came. Whether the window that ends with them has had enough.
    pub fn came(&mut self, bytes: u64) -> Window {
        self.bytes += bytes;
        if self.waited < self.rate.window {
            return Window::Open;
        }
        let (bytes, waited) = (self.bytes, self.waited);
        *self = Self::new(self.rate);
        match (bytes as f64) < self.rate.bytes as f64 * waited.as_secs_f64() {
            true => Window::Slow(FetchError::Slow {
                bytes,
                time: waited,
                least: self.rate.bytes,
            }),
            false => Window::Enough,
        }
    }
}

/// How the time of counting is going.
#[derive(Debug)]
pub(super) enum Window {
    /// It goes on.
    Open,
    /// It is over, and enough came.
    Enough,
    /// It is over, and too little came.
    Slow(FetchError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_of_waiting_counts() {
        let mut pace = Pace::new(Rate {
            bytes: 1000,
            window: Duration::from_millis(20),
        });
        std::thread::sleep(Duration::from_millis(30));
        assert!(matches!(pace.came(1), Window::Open));
        pace.wait(|| std::thread::sleep(Duration::from_millis(30)));
        assert!(matches!(pace.came(1), Window::Slow(_)));
        assert!(matches!(pace.came(1_000_000), Window::Open));
        pace.wait(|| std::thread::sleep(Duration::from_millis(30)));
        assert!(matches!(pace.came(0), Window::Enough));
        let mut any = Pace::new(Rate {
            bytes: 0,
            window: Duration::ZERO,
        });
        assert!(matches!(any.came(0), Window::Enough));
    }
}
