//! Wall time of a trial over all its sessions: `seconds.json` in its folder.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::run::files::write_json;

/// A clock that starts when it is opened.
#[derive(Debug, Clone)]
pub struct Clock {
    path: PathBuf,
    before: f64,
    start: Instant,
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
        }
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
}
