//! Wall time of a trial over all its sessions: `seconds.json` in its folder.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::run::files::write_json;

/// A clock that starts when it is opened.
#[derive(Debug, Clone)]
pub struct Clock {
    path: PathBuf,
    before: f64,
    start: Instant,
    first_step: Arc<OnceLock<f64>>,
}

impl Clock {
    /// A clock for the trial in `folder`; if `resumed`, it includes the time of earlier sessions.
    pub fn open(folder: &Path, resumed: bool) -> Self {
        let path = folder.join("seconds.json");
        // A number.
        let text = files::read_text(&path, 100).ok().filter(|_| resumed);
        Self {
            before: text.and_then(|text| text.trim().parse().ok()).unwrap_or(0.0),
            path,
            start: Instant::now(),
            first_step: Arc::default(),
        }
    }

    /// Notes that a step of the training is done. Seconds of this session until then, if it is the first.
    pub fn stepped(&self) -> Option<f64> {
        let seconds = self.session();
        self.first_step.set(seconds).is_ok().then_some(seconds)
    }

    /// Steps per second of this session, evaluation included, of which `steps` were done. The first step is not counted if
    /// there are others: a GPU compiles and tunes its kernels in it.
    pub fn steps_per_second(&self, steps: usize) -> Option<f64> {
        let (steps, seconds) = match self.first_step.get() {
            Some(first) if steps > 1 => (steps - 1, self.session() - first),
            _ => (steps, self.session()),
        };
        (steps > 0).then(|| steps as f64 / seconds)
    }

    /// Seconds of this session.
    pub fn session(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Seconds of all sessions.
    pub fn total(&self) -> f64 {
        self.before + self.session()
    }

    /// Saves the time for the next session. A write error is ignored: a lost time is no reason to end a training.
    pub fn save(&self) {
        let _ = write_json(&self.path, &self.total());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_trial_counts_all_its_sessions() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("seconds.json"), "100.5").unwrap();
        let resumed = Clock::open(dir.path(), true);
        assert!(resumed.total() >= 100.5 && resumed.session() < 100.0);
        resumed.save();
        assert!(Clock::open(dir.path(), true).total() >= 100.5);
        assert!(Clock::open(dir.path(), false).total() < 100.0);
    }

    #[test]
    fn the_first_step_does_not_count_among_others() {
        let dir = tempfile::tempdir().unwrap();
        let mut clock = Clock::open(dir.path(), false);
        assert_eq!(clock.steps_per_second(0), None);
        let before = Instant::now().checked_sub(std::time::Duration::from_secs(10));
        clock.start = before.unwrap_or(clock.start);
        let slow = clock.steps_per_second(5).unwrap();
        assert!(clock.stepped().is_some() && clock.stepped().is_none());
        let fast = clock.steps_per_second(5).unwrap();
        assert!(fast > slow, "{fast} {slow}");
        assert!(clock.steps_per_second(1).unwrap() < fast);
    }
}
