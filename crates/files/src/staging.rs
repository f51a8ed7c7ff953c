//! Several files of a folder that belong together, replaced as one.
//!
//! They are made in a folder of their own among the old ones. Once all are on the disk, a list of them appears beside
//! them: from then on the new files count, and whoever is killed before each has its place has lost nothing. A reader that
//! looks its files up by [`current`](crate::current) finds the new ones wherever they are; whoever writes there next calls
//! [`finish`] first, as [`Staging::new`] does.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::folder::{create_folder, remove_file};
use crate::gate::{pass, power};
use crate::made_by::{MARK, Made, refuse_others};
use crate::operation::Operation;
use crate::path::folder_of;
use crate::read::read_limited;
use crate::replace::{plain, replace};
use crate::replacing::{LIST, above, finish, finish_held, hold, text};
use crate::sync::sync_folder;
use crate::tree::move_file;

/// Bytes of a file at most that is compared with the one that it replaces.
const SMALL: u64 = 1 << 20;

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
        self.commit(None, last)
    }

    /// [`Staging::put`] of a whole result of the program `maker`, which a mark in the folder names: files of its
    /// earlier result there that are not part of this one are removed, so that the folder is as if this were the first. Other files
    /// stay.
    ///
    /// # Errors
    /// As [`Staging::put`]; a file in the place of one of these that is not of an earlier result of `maker`.
    pub fn put_as(self, maker: &str, last: Option<&str>) -> io::Result<()> {
        self.commit(Some(maker), last)
    }

    fn commit(self, maker: Option<&str>, last: Option<&str>) -> io::Result<()> {
        let _held = hold(&self.out);
        // Another process may have been killed there while these files were made.
        finish_held(&self.out)?;
        let mut names = Vec::new();
        list(self.made.path(), "", &mut names)?;
        self.check_places(&names)?;
        let earlier = Made::of(&self.out);
        let mut gone = Vec::new();
        if let Some(maker) = maker {
            refuse_others(&self.out, maker, names.iter().map(String::as_str))?;
            names.sort();
            replace(&self.made.path().join(MARK), Made::text(maker, &names).as_bytes())?;
            gone = earlier.map_or(Vec::new(), |earlier| earlier.without(&names));
            names.push(MARK.to_string());
        } else if earlier.is_some_and(|earlier| names.iter().any(|name| earlier.lists(name))) {
            // They are no longer that program's, which may not replace them now.
            gone.push(MARK.to_string());
        }
        names.sort_by_key(|name| (last == Some(name.as_str()), name.clone()));
        let changed: Vec<&String> = names.iter().filter(|name| !self.is_unchanged(name)).collect();
        if gone.is_empty() && changed.len() < 2 {
            // Those that are as they were may have been renamed just before a power loss.
            sync_folder(&self.out)?;
            return changed.first().map_or(Ok(()), |name| {
                let target = self.out.join(name);
                create_folder(folder_of(&target))?;
                move_file(&self.made.path().join(name), &target)
            });
        }
        let made = self.made.path().file_name().unwrap_or_default().to_string_lossy();
        let text = text(&made, &names, last, &gone);
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
        finish_held(&self.out)
    }

    /// Refuses what stands in the way of these files: after the list was written, it would be too late.
    fn check_places(&self, names: &[String]) -> io::Result<()> {
        let refused = |kind, message: String| Err(io::Error::new(kind, message));
        for name in names {
            for part in above(name) {
                let part_name = part.display();
                match fs::symlink_metadata(self.out.join(part)) {
                    Ok(data) if data.is_symlink() => {
                        let message = format!("{part_name} is a link there, which is not followed; remove it");
                        return refused(ErrorKind::NotADirectory, message);
                    }
                    Ok(data) if !data.is_dir() => {
                        let message = format!("{part_name} is a file there, in the place of a folder; remove it");
                        return refused(ErrorKind::NotADirectory, message);
                    }
                    // There is none yet, or making it will say what is wrong.
                    _ => {}
                }
            }
            if self.out.join(name).is_dir() {
                return refused(ErrorKind::IsADirectory, format!("{name} is a folder there; remove it"));
            }
        }
        Ok(())
    }

    /// True if the small file `name` has the content of the one that it is to replace.
    fn is_unchanged(&self, name: &str) -> bool {
        let (new, old) = (self.made.path().join(name), self.out.join(name));
        fs::symlink_metadata(&old).is_ok_and(|data| data.is_file())
            && read_limited(&old, SMALL).is_ok_and(|old| read_limited(&new, SMALL).is_ok_and(|new| new == old))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replacing::current;
    use crate::replacing::tests::names;

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
        for name in ["a", "b", "config"] {
            fs::write(out.join(name), format!("{name} old")).unwrap();
        }
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
    fn a_result_leaves_nothing_of_the_one_before_and_all_that_is_not_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (out, fresh) = (dir.path().join("out"), dir.path().join("fresh"));
        let old = ["a", "b", "config", "inner/c", "inner/deep/d", "other/e"];
        staged(&out, &old, "old").put_as("x", Some("config")).unwrap();
        fs::write(out.join("notes"), "mine").unwrap();
        fs::write(out.join("other/notes"), "mine").unwrap();
        for place in [&out, &fresh] {
            staged(place, &["b", "config"], "new")
                .put_as("x", Some("config"))
                .unwrap();
        }
        assert_eq!(names(&fresh), [".made-by", "b", "config"]);
        assert_eq!(names(&out), [".made-by", "b", "config", "notes", "other"]);
        assert_eq!(names(&out.join("other")), ["notes"]);
        for name in names(&fresh) {
            assert_eq!(fs::read(out.join(&name)).unwrap(), fs::read(fresh.join(&name)).unwrap());
        }
        // The same once more changes nothing, and one file alone needs no list.
        staged(&out, &["b", "config"], "new").put_as("x", None).unwrap();
        assert_eq!(names(&out), [".made-by", "b", "config", "notes", "other"]);
        // What others put there, or another program made, is not replaced.
        for (maker, files, part) in [
            (
                "x",
                ["notes", "config"],
                "notes there is not of an earlier result of `x`",
            ),
            ("y", ["b", "z"], "a result of `x`, and not of `y`"),
        ] {
            let message = staged(&out, &files, "x").put_as(maker, None).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(fs::read(out.join("notes")).unwrap(), b"mine");
        // Files that somebody else replaced are no longer the program's.
        staged(&out, &["b"], "else").put(None).unwrap();
        assert!(staged(&out, &["b"], "x").put_as("x", None).is_err());
        assert_eq!(fs::read(out.join("b")).unwrap(), b"b else");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_in_the_way_is_named_before_anything_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        staged(&out, &["a"], "old").put(None).unwrap();
        let new = || staged(&out, &["a", "inner/b"], "new").put(None);
        fs::write(out.join("inner"), "mine").unwrap();
        let message = new().unwrap_err().to_string();
        assert!(message.contains("inner is a file there"), "{message}");
        fs::remove_file(out.join("inner")).unwrap();
        std::os::unix::fs::symlink(dir.path(), out.join("inner")).unwrap();
        let message = new().unwrap_err().to_string();
        assert!(message.contains("inner is a link there"), "{message}");
        assert_eq!(names(&out), ["a", "inner"]);
        assert_eq!(fs::read(out.join("a")).unwrap(), b"a old");
        fs::remove_file(out.join("inner")).unwrap();
        new().unwrap();
    }

    #[test]
    fn what_another_process_left_meanwhile_is_finished_before_its_list_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        let second = staged(out, &["b", "config"], "second");
        left(out, 1);
        second.put(Some("config")).unwrap();
        assert_eq!(names(out), ["a", "b", "config"]);
        assert_eq!(fs::read(out.join("a")).unwrap(), b"a new");
        assert_eq!(fs::read(out.join("b")).unwrap(), b"b second");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_list_of_a_living_process_is_left_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        left(out, 1);
        let held = hold(out).unwrap();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| finish(out).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!other.is_finished());
            drop(held);
            other.join().unwrap();
        });
        assert_eq!(names(out), ["a", "b", "config"]);
    }
}
