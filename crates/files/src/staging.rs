//! Several files of a folder that belong together, replaced as one.
//!
//! They are made in a folder of their own among the old ones. Once all are on the disk, a list of them appears beside
//! them: from then on the new files count, and whoever is killed before each has its place has lost nothing. A reader that
//! looks its files up by [`current`] finds the new ones wherever they are; whoever writes there next calls [`finish`] first,
//! as [`Staging::new`] does.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use tempfile::TempDir;

use crate::folder::{create_folder, remove_file, remove_folder};
use crate::gate::{pass, power};
use crate::operation::Operation;
use crate::path::folder_of;
use crate::read::read_text;
use crate::replace::{plain, replace};
use crate::sync::sync_folder;
use crate::tree::move_file;

/// Name of the list: the folder of the new files, then one file a line, with a mark before the one that is put last.
const LIST: &str = ".replacing";
/// Bytes of a list at most.
const LONGEST: u64 = 1 << 20;
const MARK: &str = "last ";
const NO_MARK: &str = "file ";

/// A folder for new files, which then replace those of another folder together. Dropped, it and what is in it are removed.
#[derive(Debug)]
pub struct Staging {
    made: TempDir,
    out: PathBuf,
}

impl Staging {
    /// For files of `out`, which is made if absent. What an earlier process left unfinished there is finished.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn new(out: &Path) -> io::Result<Self> {
        create_folder(out)?;
        finish(out)?;
        let made = pass(Operation::MakeFolder, out, || tempfile::Builder::new().tempdir_in(out));
        let made = made.map_err(plain)?;
        power::folder_made(made.path());
        Ok(Self {
            made,
            out: out.to_path_buf(),
        })
    }

    /// Where the new files are made, by [`replace`] and its like, which bring them to the disk.
    pub fn path(&self) -> &Path {
        self.made.path()
    }

    /// Replaces the old files by the new ones. While some are old and some are new, there is no file `last`, the one that
    /// other programs read first: they do not take the two for one.
    ///
    /// # Errors
    /// A file that cannot be written. Either the old files are as they were, or the new ones count as soon as [`finish`]
    /// is called.
    pub fn put(self, last: Option<&str>) -> io::Result<()> {
        let mut names = Vec::new();
        list(self.made.path(), "", &mut names)?;
        names.sort_by_key(|name| (last == Some(name.as_str()), name.clone()));
        if let Some(name) = names.iter().find(|name| self.out.join(name).is_dir()) {
            let message = format!("{name} is a folder there; remove it");
            return Err(io::Error::new(ErrorKind::IsADirectory, message));
        }
        if let [name] = &names[..] {
            let target = self.out.join(name);
            create_folder(folder_of(&target))?;
            return move_file(&self.made.path().join(name), &target);
        }
        let folder = self.made.path().file_name().unwrap_or_default().to_string_lossy();
        let lines = names.iter().map(|name| match last == Some(name.as_str()) {
            true => format!("{MARK}{name}\n"),
            false => format!("{NO_MARK}{name}\n"),
        });
        let text = format!("{folder}\n{}", lines.collect::<String>());
        // A list never names a folder that is not there.
        sync_folder(&self.out)?;
        let path = self.out.join(LIST);
        if let Err(error) = replace(&path, text.as_bytes()) {
            // It may be there all the same. If it cannot be taken back, the new files stay.
            let taken_back = || remove_file(&path).and_then(|()| sync_folder(&self.out));
            if path.exists() && taken_back().is_err() {
                let _ = self.made.keep();
            }
            return Err(error);
        }
        let _ = self.made.keep();
        finish(&self.out)
    }
}

/// The files below `folder`, with `start` before their names.
fn list(folder: &Path, start: &str, names: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let own = entry.file_name().into_string();
        let own = own.ok().filter(|name| !name.contains(['\n', '\r']));
        let name = own.ok_or_else(|| {
            let message = format!(
                "{} has a name that no list can hold; rename it",
                entry.file_name().display()
            );
            io::Error::new(ErrorKind::InvalidInput, message)
        })?;
        let name = format!("{start}{name}");
        match entry.file_type()?.is_dir() {
            true => list(&entry.path(), &format!("{name}/"), names)?,
            false => names.push(name),
        }
    }
    Ok(())
}

/// Replaces the files in `folder` that a killed process, or one whose disk was full, still had to replace.
///
/// # Errors
/// A file that cannot be moved; a damaged list.
pub fn finish(folder: &Path) -> io::Result<()> {
    let Some(List { from, names, last }) = List::of(folder)? else {
        return Ok(());
    };
    if let Some(last) = last
        && is_file_of(&from, &last)
        && folder.join(&last).exists()
    {
        remove_file(&folder.join(last))?;
        sync_folder(folder)?;
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
    remove_folder(&from)?;
    remove_file(&folder.join(LIST))?;
    sync_folder(folder)
}

/// Where the content of the file `path` is: in its place, or, if new files have not all replaced the old ones yet, where
/// they were made.
pub fn current(path: &Path) -> PathBuf {
    let made = || {
        let List { from, names, .. } = List::of(folder_of(path)).ok()??;
        let name = path.file_name()?.to_str()?;
        let is_new = names.iter().any(|new| new == name) && is_file_of(&from, name);
        is_new.then(|| from.join(name))
    };
    made().unwrap_or_else(|| path.to_path_buf())
}

/// A list that was read.
struct List {
    /// The folder of the new files.
    from: PathBuf,
    names: Vec<String>,
    last: Option<String>,
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
        let (mut names, mut last) = (Vec::new(), None);
        for line in lines {
            let name = match line.strip_prefix(MARK) {
                Some(name) => last.insert(name.to_string()).as_str(),
                None => line.strip_prefix(NO_MARK)?,
            };
            names.push(Some(name).filter(|name| is_plain(name))?.to_string());
        }
        let from = folder.join(made);
        Some(Self { from, names, last })
    }
}

/// True for a name that leads nowhere else.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// True if `name` is a file below the folder `from`, without a link in between.
fn is_file_of(from: &Path, name: &str) -> bool {
    let is_folder = fs::symlink_metadata(from).is_ok_and(|data| data.is_dir());
    is_folder && is_below(from, name) && fs::symlink_metadata(from.join(name)).is_ok_and(|data| data.is_file())
}

/// True if no link stands between `root` and `name`.
fn is_below(root: &Path, name: &str) -> bool {
    let above = Path::new(name).ancestors().skip(1);
    let mut above = above.filter(|part| !part.as_os_str().is_empty());
    above.all(|part| !root.join(part).is_symlink())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A staging of `out` with some files, each with its name and `content`.
    fn staged(out: &Path, files: &[&str], content: &str) -> Staging {
        let staging = Staging::new(out).unwrap();
        for name in files {
            let path = staging.path().join(name);
            create_folder(folder_of(&path)).unwrap();
            replace(&path, format!("{name} {content}").as_bytes()).unwrap();
        }
        staging
    }

    #[test]
    fn files_replace_the_old_ones_together_and_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("made");
        staged(&out, &["a", "inner/b", "config"], "old")
            .put(Some("config"))
            .unwrap();
        assert_eq!(names(&out), ["a", "config", "inner"]);
        drop(staged(&out, &["a", "config"], "never"));
        assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "a old");
        staged(&out, &["a", "config"], "new").put(Some("config")).unwrap();
        staged(&out, &["inner/b"], "new").put(None).unwrap();
        assert_eq!(names(&out), ["a", "config", "inner"]);
        for name in ["a", "inner/b", "config"] {
            assert_eq!(fs::read_to_string(out.join(name)).unwrap(), format!("{name} new"));
            assert_eq!(current(&out.join(name)), out.join(name));
        }
        fs::create_dir(out.join("c")).unwrap();
        let message = staged(&out, &["a", "c"], "x").put(None).unwrap_err().to_string();
        assert!(message.contains("c is a folder"), "{message}");
        assert_eq!(names(&out), ["a", "c", "config", "inner"]);
    }

    /// As a process leaves it that was killed when it had moved so many of the files.
    fn left(out: &Path, moved: usize) {
        staged(out, &["a", "b", "config"], "old").put(Some("config")).unwrap();
        let staging = staged(out, &["a", "b", "config"], "new").made.keep();
        let folder = staging.file_name().unwrap().to_str().unwrap();
        let list = format!("{folder}\nfile a\nfile b\nlast config\n");
        fs::write(out.join(LIST), list).unwrap();
        for name in ["a", "b", "config"].iter().take(moved) {
            fs::rename(staging.join(name), out.join(name)).unwrap();
        }
    }

    #[test]
    fn what_was_cut_is_read_as_new_and_finished_by_the_next_process() {
        for moved in 0..=3 {
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path();
            left(out, moved);
            let read = |name: &str| fs::read_to_string(current(&out.join(name))).unwrap();
            let all = || ["a", "b", "config"].map(read);
            assert_eq!(all(), ["a new", "b new", "config new"], "{moved}");
            finish(out).unwrap();
            assert_eq!(all(), ["a new", "b new", "config new"], "{moved}");
            assert_eq!(names(out), ["a", "b", "config"], "{moved}");
            finish(out).unwrap();
        }
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
}
