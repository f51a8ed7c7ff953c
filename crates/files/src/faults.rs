//! Faults that tests put between a program and its disk. Only builds with debug assertions have them, on Unix.
//!
//! `WEGEFT_FAULT=N:KIND` makes the N-th operation (from 1) of the process fail, `N+:KIND` that one and all after it:
//!
//! | kind | what happens |
//! | --- | --- |
//! | `ENOSPC`, `EDQUOT`, `EIO`, `EROFS` | the operation fails; half of what a write was to write is in the file |
//! | `EINTR` | a signal interrupts the operation, which then works |
//! | `SHORT` | a write takes one byte |
//! | `TERM`, `HUP` | the process gets SIGTERM or SIGHUP and goes on |
//! | `KILL` | the process gets SIGKILL; half of what a write was to write is in the file |
//! | `POWER` | as `KILL`, and everything that was not brought to the disk is as it was before |
//!
//! `WEGEFT_FAULT_COUNT=FILE` counts the operations of all processes that have the same FILE together, one byte of it each: with
//! `N:KIND` one of them fails, and with `N+:POWER` the machine that they run on.
//!
//! `WEGEFT_FAULT_LOG=FILE` appends a line to FILE for every operation: its kind and its path.

pub(crate) mod journal;

use std::fs::OpenOptions;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::operation::Operation;

/// What the environment asks for.
struct Plan {
    fault: Option<Fault>,
    log: Option<PathBuf>,
    count: Option<PathBuf>,
}

struct Fault {
    at: usize,
    onwards: bool,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Error(i32),
    Interrupted,
    Short,
    /// The signal that is sent.
    Signal(&'static str),
    Kill,
    Power,
}

/// Operations so far.
static DONE: AtomicUsize = AtomicUsize::new(0);

fn plan() -> &'static Plan {
    static PLAN: OnceLock<Plan> = OnceLock::new();
    PLAN.get_or_init(|| Plan {
        fault: std::env::var("WEGEFT_FAULT").ok().map(|text| {
            Fault::read(&text).unwrap_or_else(|| panic!("WEGEFT_FAULT={text}: expected N:KIND or N+:KIND"))
        }),
        log: std::env::var_os("WEGEFT_FAULT_LOG").map(PathBuf::from),
        count: std::env::var_os("WEGEFT_FAULT_COUNT").map(PathBuf::from),
    })
}

impl Fault {
    fn read(text: &str) -> Option<Self> {
        let (at, kind) = text.split_once(':')?;
        let (at, onwards) = match at.strip_suffix('+') {
            Some(at) => (at, true),
            None => (at, false),
        };
        let kind = match kind {
            "ENOSPC" => Kind::Error(28),
            "EDQUOT" => Kind::Error(122),
            "EIO" => Kind::Error(5),
            "EROFS" => Kind::Error(30),
            "EINTR" => Kind::Interrupted,
            "SHORT" => Kind::Short,
            "TERM" => Kind::Signal("-TERM"),
            "HUP" => Kind::Signal("-HUP"),
            "KILL" => Kind::Kill,
            "POWER" => Kind::Power,
            _ => return None,
        };
        let at = at.parse().ok()?;
        Some(Self { at, onwards, kind })
    }
}

/// Counts one operation in the file that several processes share. Where it ends after an append is the operation's number.
fn counted(path: &Path) -> io::Result<usize> {
    let mut count = OpenOptions::new().create(true).append(true).open(path)?;
    count.write_all(b".")?;
    count.stream_position().map(|end| end as usize)
}

/// The fault of the next operation, if it has one.
fn next(operation: Operation, path: &Path) -> Option<Kind> {
    let plan = plan();
    let number = match &plan.count {
        None => DONE.fetch_add(1, Ordering::SeqCst) + 1,
        Some(count) => counted(count).unwrap_or_else(|error| panic!("{}: {error}", count.display())),
    };
    if let Some(log) = &plan.log {
        let line = format!("{operation:?} {}\n", path.display());
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .and_then(|mut log| log.write_all(line.as_bytes()));
        assert!(written.is_ok(), "{} cannot be written", log.display());
    }
    let fault = plan.fault.as_ref()?;
    let hit = number == fault.at || fault.onwards && number > fault.at;
    // What makes room works on a full disk too.
    let spared = matches!(fault.kind, Kind::Error(28 | 122)) && operation == Operation::Remove;
    (hit && !spared).then_some(fault.kind)
}

pub(crate) fn gate(operation: Operation, path: &Path) -> io::Result<()> {
    match next(operation, path) {
        None | Some(Kind::Short) => Ok(()),
        Some(Kind::Error(code)) => Err(io::Error::from_raw_os_error(code)),
        Some(Kind::Interrupted) => Err(io::ErrorKind::Interrupted.into()),
        Some(Kind::Signal(name)) => signal(name),
        Some(Kind::Kill) => die(),
        Some(Kind::Power) => lose_power(),
    }
}

/// Writes some of `bytes` by `act`, as much as the fault of this operation lets through.
pub(crate) fn write(path: &Path, bytes: &[u8], act: &mut dyn FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
    let half = &bytes[..bytes.len() / 2];
    match next(Operation::Write, path) {
        None => act(bytes),
        Some(Kind::Short) => act(&bytes[..bytes.len().min(1)]),
        Some(Kind::Interrupted) => Err(io::ErrorKind::Interrupted.into()),
        Some(Kind::Signal(name)) => signal(name).and_then(|()| act(bytes)),
        Some(Kind::Error(code)) => {
            act(half)?;
            Err(io::Error::from_raw_os_error(code))
        }
        Some(Kind::Kill) => {
            act(half)?;
            die()
        }
        Some(Kind::Power) => {
            act(half)?;
            lose_power()
        }
    }
}

/// A signal to this process, sent by another one.
fn signal(name: &str) -> io::Result<()> {
    let id = std::process::id().to_string();
    Command::new("kill").args([name, &id]).status().map(drop)
}

fn die() -> ! {
    let _ = signal("-KILL");
    // The signal is on its way.
    std::thread::sleep(Duration::from_secs(60));
    std::process::abort()
}

fn lose_power() -> ! {
    // Held until the end: other threads wait for it before they change anything else.
    let _held = journal::undo();
    die()
}
