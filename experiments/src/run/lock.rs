//! Allows only one process per run folder: an advisory lock on its `.lock`, which ends with the process that holds it.
//! It works on network file systems with locks (NFS from version 4, SMB); without locks, a message says so and the run
//! continues.

use std::fs::TryLockError;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use files::File;

use crate::cli::output::{note, tell};
use crate::run::files::create_folder;
use crate::run::folder::is_for_a_run;
use crate::run::strays::remove_strays_in;

const FILE: &str = ".lock";

/// The lock of a run folder, which only this process uses until the lock is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    /// Its path, if it is removed in the end.
    removed: Option<PathBuf>,
    /// Whether its file was there before.
    was_there: bool,
}

impl Lock {
    fn held(file: File, was_there: bool) -> Self {
        Self {
            file,
            removed: None,
            was_there,
        }
    }

    /// Waits for the lock of the existing folder `out`: a child process of a killed run first finishes its step.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn wait(out: &Path) -> Result<Self, String> {
        let path = out.join(FILE);
        let was_there = path.exists();
        loop {
            let file = File::update(&path).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
            match file.system().try_lock() {
                Err(TryLockError::WouldBlock) => {
                    tell(format_args!("waiting for another process in {} to end", out.display()));
                    let locked = file.system().lock();
                    locked.map_err(|e| format!("cannot lock {}: {e}", path.display()))?;
                }
                // If there are no locks, the lock of the run folder has already said so.
                Ok(()) | Err(TryLockError::Error(_)) => {}
            }
            if is_there(&file, &path) {
                return Ok(Self::held(file, was_there));
            }
        }
    }

    /// [`Lock::take`] for a folder that is written once and then read by other programs: the lock leaves no file behind. The
    /// folder is made if there is none.
    ///
    /// # Errors
    /// As [`Lock::take`]; a folder of a run, whose files would be replaced.
    pub fn for_writing(out: &Path) -> Result<Self, String> {
        if is_for_a_run(out) {
            return Err(format!(
                "{} belongs to a run, whose files would be replaced; choose another --out",
                out.display()
            ));
        }
        create_folder(out).map_err(|e| format!("{e}; choose another --out"))?;
        let mut lock = Self::take(out)?;
        lock.removed = Some(out.join(FILE));
        files::finish(out)
            .map_err(|e| format!("cannot finish what a killed program began in {}: {e}", out.display()))?;
        // Only a process that was killed leaves its lock. Without one, such files may be those of any program.
        if lock.was_there {
            remove_strays_in(out);
        }
        Ok(lock)
    }

    /// True if another process has locked the folder before and left the file: a run, or one that was killed.
    pub fn was_there(&self) -> bool {
        self.was_there
    }

    /// Refuses to go on in `out`, whose lock this is, if the folder was removed since: another process may have started
    /// there.
    ///
    /// # Errors
    /// A lock that is no longer there.
    pub fn check(&self, out: &Path) -> Result<(), String> {
        match is_there(&self.file, &out.join(FILE)) {
            true => Ok(()),
            false => Err(format!(
                "{} was removed while this run went on, and another one may have started there; choose another --out",
                out.display()
            )),
        }
    }

    /// Locks the existing folder `out`.
    ///
    /// # Errors
    /// A folder that another process uses, or that cannot be written.
    pub fn take(out: &Path) -> Result<Self, String> {
        let path = out.join(FILE);
        let was_there = path.exists();
        loop {
            let mut file = File::update(&path)
                .map_err(|e| format!("cannot write {}: {e}; choose another --out", path.display()))?;
            match file.system().try_lock() {
                Ok(()) if !is_there(&file, &path) => {}
                Ok(()) if !holds_an_id(&mut file) => {
                    return Err(format!(
                        "{} was not written by this program, which locks folders with a file of that name; choose another --out, \
                         or remove it",
                        path.display()
                    ));
                }
                Ok(()) => {
                    // For the message in a second process; the lock does not depend on it.
                    let _ = file
                        .set_len(0)
                        .and_then(|()| file.rewind())
                        .and_then(|()| write!(file, "{}", std::process::id()));
                    return Ok(Self::held(file, was_there));
                }
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    let holder = match file.read_to_string(&mut holder) {
                        Ok(1..) => format!("process {}", holder.trim()),
                        _ => "another process".to_string(),
                    };
                    return Err(format!(
                        "{} is in use by {holder}; wait until it ends, or choose another --out",
                        out.display()
                    ));
                }
                Err(TryLockError::Error(error)) => {
                    note(format_args!(
                        "{} cannot be locked ({error}); start no other run in it",
                        out.display()
                    ));
                    return Ok(Self::held(file, was_there));
                }
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is held: what is at the path afterwards may be another process's. A file that stays does no harm.
        if let Some(path) = self.removed.take().filter(|path| is_there(&self.file, path)) {
            let _ = files::remove_file(&path);
        }
    }
}

/// True if `file` has the number of a process, or nothing; after a power loss, zeros in the place of digits.
fn holds_an_id(file: &mut File) -> bool {
    /// Digits of a number and more.
    const LONGEST: u64 = 32;
    let mut text = String::new();
    let read = file.take(LONGEST).read_to_string(&mut text);
    read.is_ok() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == 0)
}

/// True if `file` is still the one at `path`, and not one that the holder before has removed.
#[cfg(unix)]
fn is_there(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.system().metadata(), std::fs::symlink_metadata(path)) {
        // Some file systems count no links, others number a file anew.
        (Ok(ours), Ok(there)) => ours.nlink() > 0 || (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        (_, Err(error)) => error.kind() != std::io::ErrorKind::NotFound,
        (Err(_), _) => true,
    }
}

/// Other systems do not remove a file that is open.
#[cfg(not(unix))]
fn is_there(_file: &File, _path: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_until_its_holder_ends() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let message = Lock::take(dir.path()).unwrap_err();
        assert!(
            message.contains("in use by process") && message.contains("another --out"),
            "{message}"
        );
        drop(first);
        let second = Lock::take(dir.path()).unwrap();
        std::thread::scope(|scope| {
            let third = scope.spawn(|| Lock::wait(dir.path()).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!third.is_finished());
            drop(second);
            third.join().unwrap();
        });
    }

    #[test]
    fn a_folder_that_is_written_once_keeps_no_file_of_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("made/by/the/lock");
        let lock = Lock::for_writing(&out).unwrap();
        let message = Lock::for_writing(&out).unwrap_err();
        assert!(message.contains("in use by process"), "{message}");
        assert!(out.join(FILE).exists());
        drop(lock);
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("inner")).unwrap();
        for name in [".tmpAbC123", "inner/.tmpAbC123", "x.tmpAbC123"] {
            std::fs::write(path(name), "x").unwrap();
        }
        // Nobody was killed here: the file is another program's.
        drop(Lock::for_writing(dir.path()).unwrap());
        assert!(path(".tmpAbC123").exists());
        std::fs::write(path(FILE), "1").unwrap();
        drop(Lock::for_writing(dir.path()).unwrap());
        assert!(!path(".tmpAbC123").exists() && !path(FILE).exists());
        assert!(path("inner/.tmpAbC123").exists() && path("x.tmpAbC123").exists());
    }

    #[test]
    fn a_lock_of_another_program_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        std::fs::write(&path, "held by an editor").unwrap();
        for message in [
            Lock::take(dir.path()).unwrap_err(),
            Lock::for_writing(dir.path()).unwrap_err(),
        ] {
            assert!(message.contains(".lock was not written by this program"), "{message}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"held by an editor");
    }

    #[test]
    fn the_folders_of_a_run_are_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let adapter = run.join("digits/lora/adapter");
        std::fs::create_dir_all(&adapter).unwrap();
        drop(Lock::for_writing(&adapter).unwrap());
        for name in ["config.toml", "data.json", "digits/lora/metrics.jsonl"] {
            std::fs::write(run.join(name), "").unwrap();
        }
        for out in [&run, &run.join("digits/lora"), &adapter] {
            let message = Lock::for_writing(out).unwrap_err();
            assert!(message.contains("belongs to a run"), "{message}");
        }
        drop(Lock::for_writing(&run.join("report")).unwrap());
        drop(Lock::for_writing(&run.join("digits/lora/merged")).unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_was_made_anew_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("run");
        std::fs::create_dir(&out).unwrap();
        let first = Lock::take(&out).unwrap();
        first.check(&out).unwrap();
        std::fs::remove_dir_all(&out).unwrap();
        assert!(first.check(&out).unwrap_err().contains("was removed"));
        std::fs::create_dir(&out).unwrap();
        let second = Lock::take(&out).unwrap();
        assert!(first.check(&out).unwrap_err().contains("was removed"));
        second.check(&out).unwrap();
    }

    /// Whoever opened the file before the holder removed it holds the lock of a file that nobody else can open.
    #[cfg(unix)]
    #[test]
    fn a_lock_on_a_removed_file_is_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let lock = Lock::for_writing(dir.path()).unwrap();
        let opened = File::update(&path).unwrap();
        assert!(is_there(&opened, &path));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Lock::wait(dir.path()).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(20));
            drop(lock);
            let waited = waiting.join().unwrap();
            assert!(!is_there(&opened, &path) && is_there(&waited.file, &path));
            assert!(Lock::take(dir.path()).is_err());
        });
        // The file of another process is left alone.
        let lock = Lock::for_writing(dir.path()).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another's").unwrap();
        drop(lock);
        assert_eq!(std::fs::read(&path).unwrap(), b"another's");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_its_place_is_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        std::fs::write(&precious, "old").unwrap();
        std::os::unix::fs::symlink(&precious, dir.path().join(FILE)).unwrap();
        for message in [Lock::take(dir.path()).unwrap_err(), Lock::wait(dir.path()).unwrap_err()] {
            assert!(message.contains("is a link"), "{message}");
        }
        assert_eq!(std::fs::read(precious).unwrap(), b"old");
    }
}
