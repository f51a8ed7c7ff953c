//! Progress in a terminal: burn-train's dashboard. On its own, it ignores Ctrl-C, forgets that a training was stopped, and
//! panics when the terminal is closed.

use std::any::Any;
use std::error::Error;
use std::io::IsTerminal;
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
    /// None once its terminal was closed.
    inner: Option<TuiMetricsRendererWrapper>,
    /// The dashboard's own interrupter, which it resets when the training ends, before the learner reads the reason.
    own: Interrupter,
    /// The training's.
    training: Interrupter,
}

/// True if standard output is a terminal that the dashboard can fill: it holds every cell twice, and a terminal may claim
/// any size.
pub fn is_possible() -> bool {
    const MOST_CELLS: u32 = 1_000_000;
    let cells = || crossterm::terminal::size().map(|(columns, rows)| u32::from(columns) * u32::from(rows));
    std::io::stdout().is_terminal() && cells().is_ok_and(|cells| cells <= MOST_CELLS)
}

impl Dashboard {
    /// Opens the dashboard for a training that `training` can stop and that resumes after epoch `checkpoint`.
    pub fn open(training: &Interrupter, checkpoint: Option<usize>) -> Self {
        #[cfg(unix)]
        expect_closing();
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
            inner: Some(inner),
            own,
            training: training.clone(),
        }
    }

    /// burn-train's dashboard, unless its terminal was closed. Its thread may then read that terminal without end, and is not
    /// waited for: it ends with the program.
    fn live(&mut self) -> Option<&mut TuiMetricsRendererWrapper> {
        #[cfg(unix)]
        if is_closed(std::io::stdout()) {
            std::mem::forget(self.inner.take());
        }
        self.inner.as_mut()
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
        self.live();
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

/// From now on, says nothing of the panic of burn-train's thread when the terminal is closed under it: the training ends
/// by the signal that a closed terminal sends, or goes on.
#[cfg(unix)]
fn expect_closing() {
    use std::panic::{set_hook, take_hook};
    use std::sync::Once;

    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            let drawing = std::thread::current().name() == Some("train-renderer");
            match drawing && is_closed(std::io::stdout()) {
                true => leave_closed_errors(),
                false => usual(panic),
            }
        }));
    });
}

/// While that panic unwinds, ratatui prints to standard error. If that is the closed terminal as well, printing would panic
/// again and abort the program before it has kept what it has.
#[cfg(unix)]
fn leave_closed_errors() {
    let nowhere = std::fs::File::open("/dev/null");
    if let (true, Ok(nowhere)) = (is_closed(std::io::stderr()), nowhere) {
        // Opened for reading: what is written there fails in a way that Rust takes for success.
        let _ = rustix::stdio::dup2_stderr(nowhere);
    }
}

/// True of a terminal that was closed.
#[cfg(unix)]
fn is_closed(stream: impl std::os::fd::AsFd) -> bool {
    matches!(rustix::termios::tcgetattr(stream), Err(rustix::io::Errno::IO))
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
        if let Some(inner) = self.live() {
            inner.update_train(state);
        }
    }
    fn update_valid(&mut self, state: MetricState) {
        if let Some(inner) = self.live() {
            inner.update_valid(state);
        }
    }
    fn on_train_end(&mut self, summary: Option<LearnerSummary>) -> Result<(), Box<dyn Error>> {
        self.hand_on();
        self.live().map_or(Ok(()), |inner| inner.on_train_end(summary))
    }
}

impl MetricsRendererEvaluation for Dashboard {
    fn update_test(&mut self, name: EvaluationName, state: MetricState) {
        if let Some(inner) = self.live() {
            inner.update_test(name, state);
        }
    }
    fn on_test_end(&mut self, summary: Option<LearnerSummary>) -> Result<(), Box<dyn Error>> {
        self.live().map_or(Ok(()), |inner| inner.on_test_end(summary))
    }
}

impl TrainingProgressLogger for Dashboard {
    fn start(&mut self, epochs: usize, from: usize, items: Option<usize>, label: Option<&str>) {
        if let Some(inner) = self.live() {
            inner.start(epochs, from, items, label);
        }
    }
    fn update_epoch(&mut self, epoch: usize) {
        if let Some(inner) = self.live() {
            inner.update_epoch(epoch);
        }
    }
    fn start_split(&mut self, split: &str, items: usize) {
        if let Some(inner) = self.live() {
            inner.start_split(split, items);
        }
    }
    fn update_split(&mut self, items: usize) {
        self.hand_on();
        signals_again();
        if let Some(inner) = self.live() {
            inner.update_split(items);
        }
    }
    fn end_split(&mut self) {
        if let Some(inner) = self.live() {
            inner.end_split();
        }
    }
    fn end(&mut self) {
        if let Some(inner) = self.live() {
            inner.end();
        }
    }
    fn log_event_training(&mut self, event: String) {
        if let Some(inner) = self.live() {
            inner.log_event_training(event);
        }
    }
}

impl EvaluationProgressLogger for Dashboard {
    fn start_global_progress(&mut self, tests: usize) {
        if let Some(inner) = self.live() {
            inner.start_global_progress(tests);
        }
    }
    fn start_test(&mut self, name: &str, items: usize) {
        if let Some(inner) = self.live() {
            inner.start_test(name, items);
        }
    }
    fn update_test_progress(&mut self, items: usize) {
        if let Some(inner) = self.live() {
            inner.update_test_progress(items);
        }
    }
    fn end_test(&mut self) {
        if let Some(inner) = self.live() {
            inner.end_test();
        }
    }
    fn end_global_progress(&mut self) {
        if let Some(inner) = self.live() {
            inner.end_global_progress();
        }
    }
    fn log_event_evaluation(&mut self, event: String) {
        if let Some(inner) = self.live() {
            inner.log_event_evaluation(event);
        }
    }
}

impl MetricsRenderer for Dashboard {
    fn manual_close(&mut self) {
        if let Some(inner) = self.live() {
            inner.manual_close();
        }
    }
    fn register_metric(&mut self, definition: MetricDefinition) {
        if let Some(inner) = self.live() {
            inner.register_metric(definition);
        }
    }
}
