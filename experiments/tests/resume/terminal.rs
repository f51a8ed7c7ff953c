//! In a terminal, where burn-train's dashboard is open, a run ends as it does elsewhere, and the terminal is given back.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rexpect::process::{PtyProcess, WaitStatus};
use rustix::termios::{LocalModes, tcgetattr};

use super::{command, wait_for};

/// A run of many epochs in a pseudo-terminal.
struct Terminal {
    process: PtyProcess,
    keys: File,
    screen: JoinHandle<String>,
}

impl Terminal {
    fn open(out: &Path) -> Self {
        let program = command(out, "200");
        let mut shell = Command::new("sh");
        // A pseudo-terminal has no size of its own.
        shell.args(["-c", "stty rows 40 cols 120 && exec \"$0\" \"$@\""]);
        shell
            .arg(program.get_program())
            .args(program.get_args())
            .env("TERM", "xterm-256color");
        let process = PtyProcess::new(shell).unwrap();
        let keys = process.get_file_handle().unwrap();
        let mut output = keys.try_clone().unwrap();
        let screen = std::thread::spawn(move || {
            let (mut all, mut part) = (Vec::new(), [0; 4096]);
            // The last program's end is an error of the pseudo-terminal.
            while let Ok(count @ 1..) = output.read(&mut part) {
                all.extend_from_slice(&part[..count]);
            }
            String::from_utf8_lossy(&all).into_owned()
        });
        wait_for(&out.join("digits/wegeft/checkpoints/scheduler-2.bpk"));
        Self { process, keys, screen }
    }

    fn press(&mut self, key: u8) {
        self.keys.write_all(&[key]).unwrap();
        // The dashboard looks for keys ten times a second.
        std::thread::sleep(Duration::from_millis(300));
    }

    /// Exit code and everything that was written, once the run has ended.
    fn end(self) -> (i32, String) {
        let start = Instant::now();
        let code = loop {
            match self.process.status() {
                Some(WaitStatus::StillAlive) if start.elapsed() < Duration::from_secs(60) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Some(WaitStatus::Exited(_, code)) => break code,
                other => panic!("the run has not ended by itself: {other:?}"),
            }
        };
        let modes = tcgetattr(&self.keys).unwrap().local_modes;
        assert!(
            modes.contains(LocalModes::ICANON | LocalModes::ISIG),
            "still in raw mode"
        );
        (code, self.screen.join().unwrap())
    }
}

const CTRL_C: u8 = 3;

/// What was written after the dashboard was left for the last time.
fn after_the_dashboard(screen: &str) -> &str {
    let (opened, left) = ("\x1b[?1049h", "\x1b[?1049l");
    let (opened, left) = (screen.rfind(opened), screen.rfind(left));
    assert!(opened.is_some() && opened < left, "{screen}");
    &screen[left.unwrap()..]
}

fn interrupted(out: &Path, (code, screen): (i32, String)) {
    assert_eq!(code, 1, "{screen}");
    assert!(
        after_the_dashboard(&screen).contains("continues from there"),
        "{screen}"
    );
    assert!(!out.join("summary.json").exists() && !out.join("digits/wegeft/outcome.json").exists());
}

#[test]
fn ctrl_c_stops_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::open(dir.path());
    terminal.press(CTRL_C);
    interrupted(dir.path(), terminal.end());
}

/// What a scheduler, a shutdown or a terminal that is closed sends.
#[test]
fn the_signals_that_end_programs_stop_a_run_and_give_the_terminal_back() {
    for signal in ["-TERM", "-HUP"] {
        let dir = tempfile::tempdir().unwrap();
        let terminal = Terminal::open(dir.path());
        let id = std::fs::read_to_string(dir.path().join(".lock")).unwrap();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        interrupted(dir.path(), terminal.end());
    }
}

#[test]
fn the_second_ctrl_c_gives_the_terminal_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::open(dir.path());
    terminal.keys.write_all(&[CTRL_C]).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    terminal.keys.write_all(&[CTRL_C]).unwrap();
    let (code, screen) = terminal.end();
    after_the_dashboard(&screen);
    // Either the second one came in time (130) or the first had already ended the step.
    assert!(matches!(code, 130 | 1), "{code}: {screen}");
}

#[test]
fn the_dashboard_s_own_keys_stop_a_run() {
    for choice in [b's', b'k'] {
        let dir = tempfile::tempdir().unwrap();
        let mut terminal = Terminal::open(dir.path());
        terminal.press(b'q');
        terminal.press(choice);
        interrupted(dir.path(), terminal.end());
    }
}
