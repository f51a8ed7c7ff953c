//! Parallel trials. Each runs in its own process, because trainings in one process would share the device's random
//! numbers and their peak memory could not be told apart.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cli::interrupt::Interrupter;
use crate::cli::output::{is_verbose, note, tell};
use crate::cli::program::prefix;
use crate::cli::remote::token_file;
use crate::run::trial::Trial;

/// Exit code of a process in which a training diverged; the other processes continue.
pub const DIVERGED: i32 = 3;

/// The places of `items` things in at most `count` shares, whose sizes differ by one at most; no share is empty.
pub fn share_out(items: usize, count: usize) -> impl Iterator<Item = Range<usize>> {
    let count = count.clamp(1, items.max(1));
    (0..count).map(move |share| share * items / count..(share + 1) * items / count)
}

/// Where and how the processes run.
pub struct Jobs<'a> {
    /// The run folder, which holds the settings.
    pub out: &'a Path,
    /// Processes at a time.
    pub count: usize,
    /// Devices, assigned to the processes in turn.
    pub devices: &'a [String],
    /// Stops them all.
    pub interrupter: &'a Interrupter,
    /// Steps between lines of progress.
    pub log_steps: usize,
}

impl Jobs<'_> {
    /// Runs the `units`; each consists of trials that one process runs one after the other. `finished` is called for
    /// each finished unit. The first failure stops the other processes, which keep their checkpoints; a training that
    /// diverges stops nothing. Returns the messages of those that diverged.
    ///
    /// # Errors
    /// The message of the process that failed, or an interruption.
    pub fn run(&self, units: Vec<Vec<Trial>>, mut finished: impl FnMut(&[Trial])) -> Result<Vec<String>, String> {
        let count = self.count.min(units.len());
        let queue = Mutex::new(VecDeque::from(units));
        let failure = Mutex::new(None);
        let diverged = Mutex::new(Vec::new());
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            for worker in 0..count {
                let (queue, failure, diverged, sender) = (&queue, &failure, &diverged, sender.clone());
                scope.spawn(move || {
                    loop {
                        let next = locked(queue).pop_front();
                        let Some(unit) = next.filter(|_| !self.stops(failure)) else {
                            return;
                        };
                        match self.process(worker, &unit, failure) {
                            Ok(message) => {
                                let alone = unit.len() == 1;
                                let nothing = message.is_some() && alone;
                                locked(diverged).extend(message);
                                if !nothing {
                                    // The receiver outlives the workers.
                                    let _ = sender.send(unit);
                                }
                            }
                            Err(message) => {
                                locked(failure).get_or_insert(message);
                                return;
                            }
                        }
                    }
                });
            }
            drop(sender);
            for unit in receiver {
                finished(&unit);
            }
        });
        let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        let diverged = diverged.into_inner().unwrap_or_else(PoisonError::into_inner);
        failure.map_or(Ok(diverged), Err)
    }

    fn stops(&self, failure: &Mutex<Option<String>>) -> bool {
        self.interrupter.should_stop() || locked(failure).is_some()
    }

    /// Runs one process of this program to its end; returns its message if a training diverged.
    fn process(
        &self,
        worker: usize,
        unit: &[Trial],
        failure: &Mutex<Option<String>>,
    ) -> Result<Option<String>, String> {
        let program = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
        let mut command = Command::new(program);
        command.args(prefix());
        command.arg("--resume").arg("--out").arg(self.out);
        command.args(["--device", &self.devices[worker % self.devices.len()]]);
        command.arg(format!("--log-steps={}", self.log_steps));
        if is_verbose() {
            command.arg("--verbose");
        }
        if let Some(path) = token_file() {
            command.arg("--token-file").arg(path);
        }
        for trial in unit {
            command.arg("--internal-trial").arg(trial.folder());
        }
        // Each process gets its share of the cores, unless the user has set the number of threads.
        if std::env::var_os("RAYON_NUM_THREADS").is_none() {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            command.env("RAYON_NUM_THREADS", (cores / self.count).max(1).to_string());
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start a process for {}: {e}", unit[0].label()))?;
        let listener = listen(&mut child, unit[0].label());
        forward_steps(&mut child, unit[0].label());
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => std::thread::sleep(Duration::from_millis(50)),
                Err(error) => return Err(format!("lost the process of {}: {error}", unit[0].label())),
            }
            if self.stops(failure) {
                // Closing its standard input tells the process to stop after the current step.
                drop(child.stdin.take());
            }
        };
        let sentence = listener.and_then(|thread| thread.join().ok()).unwrap_or_default();
        let sentence = sentence.as_str();
        if status.success() {
            if !sentence.is_empty() {
                note(format_args!("{}: {sentence}", unit[0].label()));
            }
            return Ok(None);
        }
        if status.code() == Some(DIVERGED) {
            return Ok(Some(sentence.to_string()));
        }
        let sentence = sentence.split_once(": ").map_or(sentence, |(_, sentence)| sentence);
        match sentence {
            "" => Err(format!("{}: its process ended with {status}", unit[0].label())),
            sentence => Err(sentence.to_string()),
        }
    }
}

/// Prints what the process says on standard error, with `label` before it, but for the last line, which is the result: the
/// reason for a failure.
fn listen(child: &mut Child, label: String) -> Option<JoinHandle<String>> {
    let stderr = child.stderr.take()?;
    Some(std::thread::spawn(move || {
        let mut last = String::new();
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim().to_string();
            if line.is_empty() {
                continue;
            }
            if !last.is_empty() {
                note(format_args!("{label}: {last}"));
            }
            last = line;
        }
        last
    }))
}

/// Prints the lines of single steps that the process prints, each with the training that it belongs to; `label` is the
/// first one's. With -v everything is printed, under the first one's label.
fn forward_steps(child: &mut Child, mut label: String) {
    let Some(stdout) = child.stdout.take() else { return };
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let Ok(line) = line else { return };
            match line.strip_prefix("  step ") {
                // Everything, the adapter's groups and shapes among it.
                _ if is_verbose() => tell(format_args!("  {label}: {}", line.trim_end())),
                Some(step) => tell(format_args!("  {label}: step {step}")),
                // A training begins with its label.
                None if !line.starts_with(' ') => {
                    if let Some((own, _)) = line.split_once(": ") {
                        label = own.to_string();
                    }
                }
                None => {}
            }
        }
    });
}

/// In a process that [`Jobs`] started: stops when the parent closes this process's standard input or ends.
pub fn stop_with_the_starter(interrupter: &Interrupter) {
    let interrupter = interrupter.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        interrupter.stop(Some("the starting process ended"));
    });
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
