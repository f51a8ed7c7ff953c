//! The list of the files that are to replace those of a folder: once it is there, they count, wherever they are.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use crate::folder::{create_folder, remove_empty_folder, remove_file, remove_folder};
use crate::path::folder_of;
use crate::read::read_text;
use crate::sync::sync_folder;
use crate::tree::move_file;

/// Name of the list: the folder of the new files, then one file a line, with a word before it.
pub(crate) const LIST: &str = ".replacing";
/// Bytes of a list at most.
const LONGEST: u64 = 1 << 20;
/// A new file.
const NEW: &str = "file ";
/// The new file that is put last.
const LAST: &str = "last ";
/// An old file, which is removed.
const GONE: &str = "gone ";

/// The text of a list: the folder `made` has the files `names`, which replace those of the folder above it; those of `gone` are
/// removed there.
pub(crate) fn text(made: &str, names: &[String], last: Option<&str>, gone: &[String]) -> String {
    let word = |name: &String| if last == Some(name.as_str()) { LAST } else { NEW };
    let new = names.iter().map(|name| format!("{}{name}\n", word(name)));
    let gone = gone.iter().map(|name| format!("{GONE}{name}\n"));
    format!("{made}\n{}", new.chain(gone).collect::<String>())
}

/// Locks `folder` until the result is dropped or the process ends. Only one process at a time replaces files there, so that an
/// unfinished list under the lock was left by a dead process. `None` where folders cannot be locked (Windows, some network
/// file systems): there, only one process may write into a folder.
pub(crate) fn hold(folder: &Path) -> Option<fs::File> {
    let folder = fs::File::open(folder_of(&folder.join(LIST))).ok()?;
    loop {
        match folder.lock() {
            Ok(()) => return Some(folder),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// Replaces the files in `folder` that a killed process, or one whose disk was full, still had to replace. Waits for a process
/// that is doing so.
///
/// # Errors
/// A file that cannot be moved; a damaged list.
pub fn finish(folder: &Path) -> io::Result<()> {
    if List::of(folder)?.is_none() {
        return Ok(());
    }
    let _held = hold(folder);
    finish_held(folder)
}

/// [`finish`] by whoever holds the folder.
pub(crate) fn finish_held(folder: &Path) -> io::Result<()> {
    let Some(List {
        from,
        names,
        last,
        gone,
    }) = List::of(folder)?
    else {
        return Ok(());
    };
    if let Some(last) = last
        && is_file_of(&from, &last)
        && folder.join(&last).exists()
    {
        remove_file(&folder.join(last))?;
        sync_folder(folder)?;
    }
    // Without the folder of the new files all is done: what has such a name now came later.
    if is_folder(&from) {
        gone.iter().try_for_each(|name| remove_old(folder, name))?;
    }
    // Those that are not there have been moved before.
    for name in names.iter().filter(|name| is_file_of(&from, name)) {
        let target = folder.join(name);
        if !is_below(folder, name) {
            return Err(io::Error::other(format!(
                "{name} is to be moved through a link, which is not followed; remove it"
            )));
        }
        create_folder(folder_of(&target))?;
        match move_file(&from.join(name), &target) {
            // By another process.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            moved => moved?,
        }
    }
    // Also those that were moved just before a power loss.
    let folders: BTreeSet<PathBuf> = names
        .iter()
        .map(|name| folder_of(&folder.join(name)).to_path_buf())
        .collect();
    for inner in folders.iter().filter(|inner| *inner != folder && inner.is_dir()) {
        sync_folder(inner)?;
    }
    remove_folder(&from)?;
    remove_file(&folder.join(LIST))?;
    sync_folder(folder)
}

/// Removes the file `name` of `folder`, not through a link, and the folders above it that are empty then.
fn remove_old(folder: &Path, name: &str) -> io::Result<()> {
    let path = folder.join(name);
    if !is_below(folder, name) {
        return Ok(());
    }
    match fs::symlink_metadata(&path) {
        Ok(data) if data.is_dir() => return Ok(()),
        Ok(_) => {
            remove_file(&path)?;
            sync_folder(folder_of(&path))?;
        }
        // A process that was killed had removed it, and may not have come to its folder.
        Err(_) => {}
    }
    for part in above(name) {
        if !remove_empty_folder(&folder.join(part))? {
            break;
        }
    }
    Ok(())
}

/// Where the content of the file `path` is: in its place, or, if new files have not all replaced the old ones yet, where
/// they were made. For a file that the new result does not have, this is a path
/// at which there is no file.
pub fn current(path: &Path) -> PathBuf {
    let made = || {
        let List { from, names, gone, .. } = List::of(folder_of(path)).ok()??;
        let name = path.file_name()?.to_str()?;
        let is = |known: &String| known == name;
        let is_new = names.iter().any(is) && is_file_of(&from, name);
        let is_gone = gone.iter().any(is) && is_folder(&from);
        (is_new || is_gone).then(|| from.join(name))
    };
    made().unwrap_or_else(|| path.to_path_buf())
}

/// Calls `read` with [`current`], and again, up to twice, if the file was moved before it could be opened.
///
/// # Errors
/// Those of `read`.
pub fn at_current<T>(path: &Path, read: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
    let mut done = read(&current(path));
    for _ in 0..2 {
        match done {
            Err(error) if error.kind() == ErrorKind::NotFound => done = read(&current(path)),
            _ => break,
        }
    }
    done
}

/// A list that was read.
struct List {
    /// The folder of the new files.
    from: PathBuf,
    names: Vec<String>,
    last: Option<String>,
    gone: Vec<String>,
}

impl List {
    /// The one in `folder`; `None` if nothing is unfinished there.
    fn of(folder: &Path) -> io::Result<Option<Self>> {
        let path = folder.join(LIST);
        let text = match read_text(&path, LONGEST) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io::Error::new(error.kind(), format!("{LIST}: {error}"))),
        };
        let read = Self::read(folder, &text);
        let damaged = || io::Error::other(format!("{LIST} is damaged; remove it, and write the files again"));
        read.map(Some).ok_or_else(damaged)
    }

    fn read(folder: &Path, text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let made = lines.next().filter(|name| name.starts_with(".tmp") && is_plain(name))?;
        let mut list = Self {
            from: folder.join(made),
            names: Vec::new(),
            last: None,
            gone: Vec::new(),
        };
        for line in lines {
            let (word, name) = line.split_at_checked(NEW.len())?;
            let name = Some(name).filter(|name| is_plain(name))?.to_string();
            match word {
                GONE => list.gone.push(name),
                NEW => list.names.push(name),
                LAST => list.names.push(list.last.insert(name).clone()),
                _ => return None,
            }
        }
        Some(list)
    }
}

/// True for a name that leads nowhere else.
pub(crate) fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// The folders above the file `name` of a folder, the nearest first, without that folder itself.
pub(crate) fn above(name: &str) -> impl Iterator<Item = &Path> {
    let parts = Path::new(name).ancestors().skip(1);
    parts.filter(|part| !part.as_os_str().is_empty())
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|data| data.is_dir())
}

/// True if `name` is a file below the folder `from`, without a link in between.
fn is_file_of(from: &Path, name: &str) -> bool {
    is_folder(from) && is_below(from, name) && fs::symlink_metadata(from.join(name)).is_ok_and(|data| data.is_file())
}

/// True if no link stands between `root` and `name`.
fn is_below(root: &Path, name: &str) -> bool {
    above(name).all(|part| !root.join(part).is_symlink())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_list_that_leads_elsewhere_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (out, other) = (dir.path().join("out"), dir.path().join("other"));
        fs::create_dir(&out).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("precious"), "old").unwrap();
        for list in [
            "../other\nfile precious\n",
            ".tmp1/../../other\nfile precious\n",
            ".tmp1\nfile ../../other/precious\n",
            ".tmp1\nfile /etc/passwd\n",
            ".tmp1\nprecious\n",
            "",
        ] {
            fs::write(out.join(LIST), list).unwrap();
            let message = finish(&out).unwrap_err().to_string();
            assert!(message.contains("is damaged; remove it"), "{list}: {message}");
        }
        assert_eq!(current(&out.join("precious")), out.join("precious"));
        assert!(other.join("precious").exists());
    }

    #[cfg(unix)]
    #[test]
    fn links_in_the_place_of_its_folders_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (out, other) = (dir.path().join("out"), dir.path().join("other"));
        fs::create_dir(&out).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("precious"), "old").unwrap();
        // The files would be taken from elsewhere.
        std::os::unix::fs::symlink(&other, out.join(".tmpAbC123")).unwrap();
        fs::write(out.join(LIST), ".tmpAbC123\nfile precious\n").unwrap();
        assert_eq!(current(&out.join("precious")), out.join("precious"));
        finish(&out).unwrap();
        assert!(other.join("precious").exists());
        assert!(names(&out).is_empty());
        // They would be put elsewhere.
        fs::create_dir_all(out.join(".tmpAbC123/inner")).unwrap();
        fs::write(out.join(".tmpAbC123/inner/precious"), "new").unwrap();
        fs::write(out.join(LIST), ".tmpAbC123\nfile inner/precious\n").unwrap();
        std::os::unix::fs::symlink(&other, out.join("inner")).unwrap();
        assert!(finish(&out).unwrap_err().to_string().contains("through a link"));
        assert_eq!(fs::read(other.join("precious")).unwrap(), b"old");
    }

    #[test]
    fn what_is_to_go_is_not_read_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        let made = out.join(".tmpAbC123");
        fs::create_dir(&made).unwrap();
        for inner in ["inner", "emptied"] {
            fs::create_dir(out.join(inner)).unwrap();
        }
        fs::write(made.join("a"), "new").unwrap();
        for name in ["a", "b", "inner/c"] {
            fs::write(out.join(name), "old").unwrap();
        }
        let list = ".tmpAbC123\nfile a\ngone b\ngone inner/c\ngone emptied/d\n";
        fs::write(out.join(LIST), list).unwrap();
        let read = |name: &str| at_current(&out.join(name), |path| fs::read_to_string(path)).ok();
        let check = || assert_eq!([read("a"), read("b")], [Some("new".to_string()), None]);
        check();
        finish(out).unwrap();
        check();
        assert_eq!(names(out), ["a"]);
        // A list whose new files are all in their places says nothing about files of now.
        fs::write(out.join("b"), "later").unwrap();
        fs::write(out.join(LIST), ".tmpAbC123\nfile a\ngone b\n").unwrap();
        finish(out).unwrap();
        assert_eq!(read("b").unwrap(), "later");
    }

    #[test]
    fn a_file_that_moves_before_it_is_opened_is_looked_up_again() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        let made = out.join(".tmpAbC123");
        fs::create_dir(&made).unwrap();
        fs::write(made.join("a"), "new").unwrap();
        fs::write(out.join(LIST), ".tmpAbC123\nfile a\n").unwrap();
        let read = at_current(&out.join("a"), |path| {
            // Another process is quicker.
            finish(out)?;
            fs::read_to_string(path)
        });
        assert_eq!(read.unwrap(), "new");
        let missing = at_current(&out.join("none"), |path| fs::read_to_string(path));
        assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    }
}
