//! Progress in a terminal: burn-train's dashboard. On its own, it ignores Ctrl-C and forgets that a training was
//! stopped.

use std::any::Any;
use std::error::Error;
use std::time::Duration;

use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::MetricDefinition;
use burn::train::renderer::tui::TuiMetricsRendererWrapper;
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation, MetricsRendererTraining,
};
use burn::train::{Interrupter, LearnerSummary};

use crate::cli::terminal;

/// burn-train's dashboard for one training.
pub struct Dashboard {
    inner: TuiMetricsRendererWrapper,
    /// The dashboard's own interrupter, which it resets when the training ends, before the learner reads the reason.
    own: Interrupter,
    /// The training's.
    training: Interrupter,
}

impl Dashboard {
    /// Opens the dashboard for a training that `training` can stop and that resumes after epoch `checkpoint`.
    pub fn open(training: &Interrupter, checkpoint: Option<usize>) -> Self {
        let own = Interrupter::new();
        let inner = TuiMetricsRendererWrapper::new(own.clone(), checkpoint);
        terminal::set_open(true);
        // Another thread sets up the terminal within milliseconds; if it is late, the first step tries again.
        for _ in 0..100 {
            if signals_again() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Self {
            inner,
            own,
            training: training.clone(),
        }
    }

    /// Passes on the choice that was made in the dashboard.
    fn hand_on(&self) {
        if self.own.should_stop() {
            self.training.stop(Some("stopped in the dashboard"));
        }
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        terminal::set_open(false);
    }
}

/// True if a training panicked because the user chose to stop it immediately. burn-train has closed the dashboard by
/// then.
pub fn was_killed(panic: &(dyn Any + Send)) -> bool {
    let killed = panic.downcast_ref::<&str>() == Some(&"Killing training from user input.");
    if killed {
        terminal::show_cursor();
    }
    killed
}

/// Makes Ctrl-C a signal again, which raw mode turns into a key; true if the terminal is in raw mode and the change
/// worked. Ctrl-Z and Ctrl-\ remain keys: as signals, they would leave the terminal in the dashboard's state.
#[cfg(unix)]
fn signals_again() -> bool {
    use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
    /// The code that disables a key (`_POSIX_VDISABLE`).
    const NO_KEY: u8 = if cfg!(target_os = "linux") { 0 } else { 0xff };
    let terminal = std::io::stdout();
    let Ok(mut modes) = tcgetattr(&terminal) else {
        return false;
    };
    if modes.local_modes.contains(LocalModes::ICANON) {
        return false;
    }
    if modes.local_modes.contains(LocalModes::ISIG) {
        return true;
    }
    modes.local_modes.insert(LocalModes::ISIG);
    modes.special_codes[SpecialCodeIndex::VSUSP] = NO_KEY;
    modes.special_codes[SpecialCodeIndex::VQUIT] = NO_KEY;
    tcsetattr(&terminal, OptionalActions::Now, &modes).is_ok()
}

/// On other systems, the dashboard's own keys stop a training.
#[cfg(not(unix))]
fn signals_again() -> bool {
    true
}

impl MetricsRendererTraining for Dashboard {
    fn update_train(&mut self, state: MetricState) {
        self.inner.update_train(state);
    }
    fn update_valid(&mut self, state: MetricState) {
        self.inner.update_valid(state);
    }
    fn on_train_end(&mut self, summary: Option<LearnerSummary>) -> Result<(), Box<dyn Error>> {
        self.hand_on();
        self.inner.on_train_end(summary)
    }
}

impl MetricsRendererEvaluation for Dashboard {
    fn update_test(&mut self, name: EvaluationName, state: MetricState) {
        self.inner.update_test(name, state);
    }
    fn on_test_end(&mut self, summary: Option<LearnerSummary>) -> Result<(), Box<dyn Error>> {
        self.inner.on_test_end(summary)
    }
}

impl TrainingProgressLogger for Dashboard {
    fn start(&mut self, epochs: usize, from: usize, items: Option<usize>, label: Option<&str>) {
        self.inner.start(epochs, from, items, label);
    }
    fn update_epoch(&mut self, epoch: usize) {
        self.inner.update_epoch(epoch);
    }
    fn start_split(&mut self, split: &str, items: usize) {
        self.inner.start_split(split, items);
    }
    fn update_split(&mut self, items: usize) {
        self.hand_on();
        signals_again();
        self.inner.update_split(items);
    }
    fn end_split(&mut self) {
        self.inner.end_split();
    }
    fn end(&mut self) {
        self.inner.end();
    }
    fn log_event_training(&mut self, event: String) {
        self.inner.log_event_training(event);
    }
}

impl EvaluationProgressLogger for Dashboard {
    fn start_global_progress(&mut self, tests: usize) {
        self.inner.start_global_progress(tests);
    }
    fn start_test(&mut self, name: &str, items: usize) {
        self.inner.start_test(name, items);
    }
    fn update_test_progress(&mut self, items: usize) {
        self.inner.update_test_progress(items);
    }
    fn end_test(&mut self) {
        self.inner.end_test();
    }
    fn end_global_progress(&mut self) {
        self.inner.end_global_progress();
    }
    fn log_event_evaluation(&mut self, event: String) {
        self.inner.log_event_evaluation(event);
    }
}

impl MetricsRenderer for Dashboard {
    fn manual_close(&mut self) {
        self.inner.manual_close();
    }
    fn register_metric(&mut self, definition: MetricDefinition) {
        self.inner.register_metric(definition);
    }
}
