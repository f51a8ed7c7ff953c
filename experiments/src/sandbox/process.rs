//! A process that ends by itself, by its time limit, or by its limit on disk space.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How a process ended.
pub enum End {
    /// By itself.
    Exited(ExitStatus),
    /// Its time limit was exceeded.
    Late,
    /// Its limit on disk space was exceeded.
    Full,
}

/// Bytes of an output that are kept; the rest is read and discarded.
const KEPT: usize = 1 << 16;

/// Interval at which the folder is checked.
const LOOK: Duration = Duration::from_millis(40);

/// Maximum number of files in the folder.
pub const MOST_FILES: usize = 2000;

/// Runs `command` in `folder` with `input`; returns how it ended and its standard output and error, as far as they are
/// kept.
///
/// # Errors
/// A process that cannot be started.
pub fn run(
    command: &mut Command,
    input: Vec<u8>,
    folder: &Path,
    wall: Duration,
    most_bytes: u64,
) -> std::io::Result<(End, [Vec<u8>; 2])> {
    own_group(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A process that ends before it has read everything is not a failure.
        std::thread::spawn(move || stdin.write_all(&input));
    }
    let outputs = [
        child.stdout.take().map(|pipe| kept(Box::new(pipe))),
        child.stderr.take().map(|pipe| kept(Box::new(pipe))),
    ];
    let end = watch(&mut child, folder, wall, most_bytes);
    stop(&mut child);
    // A leftover process may hold the pipe open; do not wait for it.
    let text = |output: Option<mpsc::Receiver<Vec<u8>>>| {
        output
            .and_then(|output| output.recv_timeout(Duration::from_secs(1)).ok())
            .unwrap_or_default()
    };
    Ok((end?, outputs.map(text)))
}

fn watch(child: &mut Child, folder: &Path, wall: Duration, most_bytes: u64) -> std::io::Result<End> {
    let start = Instant::now();
    let mut looked = start;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            // It may have written all of it since the last look.
            return Ok(match is_full(folder, most_bytes) {
                true => End::Full,
                false => End::Exited(status),
            });
        }
        if start.elapsed() > wall {
            return Ok(End::Late);
        }
        if looked.elapsed() > LOOK {
            looked = Instant::now();
            if is_full(folder, most_bytes) {
                return Ok(End::Full);
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// True if `folder` has more files, or more bytes in them, than it may.
fn is_full(folder: &Path, most_bytes: u64) -> bool {
    let (files, bytes) = taken(folder);
    files > MOST_FILES || bytes > most_bytes
}

/// Number of files below `folder`, and their total size in bytes. What cannot be looked at counts as too much: files could
/// be hidden there.
fn taken(folder: &Path) -> (usize, u64) {
    let (mut files, mut bytes, mut folders) = (0, 0, vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else {
            return (MOST_FILES + 1, bytes);
        };
        for entry in entries {
            files += 1;
            match entry.and_then(|entry| Ok((entry.metadata()?, entry))) {
                Ok((metadata, entry)) if metadata.is_dir() => folders.push(entry.path()),
                Ok((metadata, _)) => bytes += metadata.len(),
                Err(_) => return (MOST_FILES + 1, bytes),
            }
            if files > MOST_FILES {
                return (files, bytes);
            }
        }
    }
    (files, bytes)
}

fn kept(mut pipe: Box<dyn Read + Send>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut kept, mut buffer) = (Vec::new(), vec![0; KEPT]);
        while let Ok(count) = pipe.read(&mut buffer) {
            if count == 0 {
                break;
            }
            let room = KEPT - kept.len();
            kept.extend_from_slice(&buffer[..count.min(room)]);
        }
        // Nobody waits for it any more if the process was killed.
        let _ = sender.send(kept);
    });
    receiver
}

/// Its own process group: any children end with it, and Ctrl-C reaches only the parent.
#[cfg(unix)]
fn own_group(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
}

#[cfg(not(unix))]
fn own_group(_command: &mut Command) {}

/// Kills what is left of the process and its group.
fn stop(child: &mut Child) {
    #[cfg(unix)]
    {
        use nix::sys::signal::{Signal, killpg};
        use nix::unistd::Pid;
        // There may be nothing left.
        let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}
