//! Programs in Python.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use rand::Rng;
use serde::Deserialize;
use serde_json::json;

use super::launch::Launch;
use super::launcher::{FAILED, NAME};
use super::process::{End, MOST_FILES, run};
use super::protection::{Holds, Limits};

const HARNESS: &str = include_str!("harness.py");

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// True if it finished in time without raising an exception.
    pub passed: bool,
    /// In the words of HumanEval's checker: `passed`, `timed out`, or `failed: ` and the reason.
    pub result: String,
}

impl Ended {
    fn new(result: impl Into<String>) -> Self {
        let result = result.into();
        Self {
            passed: result == PASSED,
            result,
        }
    }
}

const PASSED: &str = "passed";

/// The installed interpreter, run in the sandbox.
#[derive(Debug, Clone)]
pub struct Python {
    launcher: PathBuf,
    interpreter: PathBuf,
    readable: Vec<PathBuf>,
    limits: Limits,
    holds: Holds,
}

/// Additional time for the interpreter to start.
const START: Duration = Duration::from_secs(5);

impl Python {
    /// Finds `python3` on the path and tries it once. `launcher` is this project's `wegeft` or another of its programs.
    ///
    /// # Errors
    /// There is no `python3`, or it does not run in the sandbox.
    pub fn find(launcher: &Path, limits: Limits) -> Result<Self, String> {
        let found = ["python3", "python"].iter().find_map(|name| locate(name));
        let (interpreter, mut readable) = found.ok_or(
            "programs are run by python3, which was not found on the PATH; install Python 3, or leave \
             --allow-code-execution out",
        )?;
        readable.push(interpreter.clone());
        let mut python = Self {
            launcher: launcher.to_path_buf(),
            interpreter,
            readable,
            limits,
            holds: Holds::default(),
        };
        let (ended, holds) = python.launch("assert 1 + 1 == 2")?;
        if !ended.passed {
            return Err(format!(
                "{} does not run in the sandbox: {}",
                python.interpreter.display(),
                ended.result
            ));
        }
        python.holds = holds;
        Ok(python)
    }

    /// Same as [`Python::find`], with this program as the launcher.
    ///
    /// # Errors
    /// As [`Python::find`].
    pub fn of_this_program(limits: Limits) -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|e| format!("cannot find the path of this program: {e}"))?;
        Self::find(&own, limits)
    }

    /// Which protections hold.
    pub fn holds(&self) -> Holds {
        self.holds
    }

    /// The interpreter, the limits, and which protections hold, in one sentence.
    pub fn describe(&self) -> String {
        format!("{}: {}", self.interpreter.display(), self.holds.describe(&self.limits))
    }

    /// Runs `program`.
    ///
    /// # Errors
    /// The sandbox cannot be set up, which says nothing about the program.
    pub fn run(&self, program: &str) -> Result<Ended, String> {
        let (ended, holds) = self.launch(program)?;
        match holds == self.holds || ended.result == LATE {
            true => Ok(ended),
            false => Err("the sandbox lacks a protection that it had at the start; no further program is run".into()),
        }
    }

    fn launch(&self, program: &str) -> Result<(Ended, Holds), String> {
        let failed = |error: std::io::Error| format!("cannot start the sandbox: {error}");
        let folder = tempfile::Builder::new()
            .prefix("wegeft-program-")
            .tempdir()
            .map_err(failed)?;
        let inside = folder.path().canonicalize().map_err(failed)?;
        let launch = Launch {
            program: self.interpreter.clone(),
            args: ["-s", "-B", "-c", HARNESS].map(String::from).to_vec(),
            readable: self.readable.clone(),
            folder: inside.clone(),
            limits: self.limits,
        };
        let launch = serde_json::to_string(&launch).map_err(|e| e.to_string())?;
        // What a program prints is not taken for the report, because the report has this number. A program that searches its
        // interpreter's memory for it can fake a verdict, as it can in the benchmark's own checker.
        let token = rand::rng().random::<u64>().to_string();
        let job = json!({ "token": token, "program": program, "seconds": self.limits.seconds }).to_string();
        let mut command = Command::new(&self.launcher);
        command.args([NAME, &launch]).current_dir(&inside).env_clear().envs([
            ("PYTHONHASHSEED", "0"),
            ("OMP_NUM_THREADS", "1"),
            ("OPENBLAS_NUM_THREADS", "1"),
            ("LANG", "C.UTF-8"),
        ]);
        command.env("HOME", &inside).env("TMPDIR", &inside);
        let wall = Duration::from_secs_f64(self.limits.seconds + 1.0) + START;
        let start = Instant::now();
        let (end, [said, errors]) =
            run(&mut command, job.into_bytes(), &inside, wall, self.limits.disk_mb << 20).map_err(failed)?;
        let took = start.elapsed().as_secs_f64();
        let mut lines = said.splitn(2, |byte| *byte == b'\n');
        let holds = lines.next().and_then(|line| serde_json::from_slice(line).ok());
        let report = lines
            .next()
            .and_then(|line| serde_json::from_slice::<Report>(line).ok());
        if let End::Exited(status) = &end
            && status.code() == Some(i32::from(FAILED))
            && holds.is_none()
        {
            return Err(format!(
                "cannot start the sandbox: {}",
                String::from_utf8_lossy(&errors).trim()
            ));
        }
        let ended = match (report.filter(|report| report.token == token), end) {
            (_, End::Full) => {
                let most = self.limits.disk_mb;
                Ended::new(format!("failed: more than {most} MB or {MOST_FILES} files"))
            }
            (Some(report), _) => Ended::new(report.result),
            (None, End::Late) => Ended::new(LATE),
            (None, End::Exited(status)) if out_of_time(status, took >= self.limits.seconds) => Ended::new(LATE),
            (None, End::Exited(status)) => Ended::new(format!("failed: the process ended by itself ({status})")),
        };
        Ok((ended, holds.unwrap_or_default()))
    }
}

const LATE: &str = "timed out";

/// True if the CPU time limit ended it: a program that ignores its signal is killed a second later, which is `late`.
/// (Where memory runs out, the system kills a program too.)
#[cfg(unix)]
fn out_of_time(status: ExitStatus, late: bool) -> bool {
    use nix::sys::signal::Signal;
    use std::os::unix::process::ExitStatusExt;
    let by = |signal: Signal| status.signal() == Some(signal as i32);
    by(Signal::SIGXCPU) || (late && by(Signal::SIGKILL))
}

#[cfg(not(unix))]
fn out_of_time(_status: ExitStatus, _late: bool) -> bool {
    false
}

#[derive(Deserialize)]
struct Report {
    token: String,
    result: String,
}

/// The interpreter that `name` starts, with any wrapper resolved, and the folders of its library.
fn locate(name: &str) -> Option<(PathBuf, Vec<PathBuf>)> {
    let ask = "import json, sys; print(json.dumps([getattr(sys, '_base_executable', None) or sys.executable, \
               sys.base_prefix, sys.base_exec_prefix, sys.version_info[0]]))";
    let output = Command::new(name).args(["-I", "-c", ask]).output().ok()?;
    let (interpreter, prefix, exec_prefix, version): (PathBuf, PathBuf, PathBuf, u32) =
        serde_json::from_slice(&output.stdout).ok()?;
    let interpreter = interpreter.canonicalize().ok()?;
    (version >= 3).then(|| (interpreter, vec![prefix, exec_prefix]))
}
