//! The mark in a folder that says which program made the result there, and of which files it consists. Its next result
//! replaces these files and removes those that it no longer has; files that somebody else put there are neither replaced nor
//! removed.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use crate::read::read_text;
use crate::replace::replace;
use crate::replacing::{at_current, is_plain};

/// Name of the mark: the program, then one file a line.
pub(crate) const MARK: &str = ".made-by";
/// Bytes of a mark at most.
const LONGEST: u64 = 1 << 20;

/// A mark that was read.
#[derive(Debug)]
pub(crate) struct Made {
    maker: String,
    /// Empty in marks of earlier versions, which list no files; every file may then be one of them.
    names: BTreeSet<String>,
}

impl Made {
    /// The one in `folder`.
    pub(crate) fn of(folder: &Path) -> Option<Self> {
        let text = at_current(&folder.join(MARK), |path| read_text(path, LONGEST)).ok()?;
        let mut lines = text.lines();
        Some(Self {
            maker: lines.next()?.to_string(),
            names: lines.filter(|name| is_plain(name)).map(String::from).collect(),
        })
    }

    /// True if it names the file.
    pub(crate) fn lists(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// True if the file of that name is one of them.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.contains(name)
    }

    /// Its files that are not among `names`, in whatever case: some file systems do not tell them apart.
    pub(crate) fn without(self, names: &[String]) -> Vec<String> {
        let names: BTreeSet<String> = names.iter().map(|name| name.to_lowercase()).collect();
        let is_new = |name: &String| names.contains(&name.to_lowercase());
        self.names.into_iter().filter(|name| !is_new(name)).collect()
    }

    /// The content of a mark.
    pub(crate) fn text(maker: &str, names: &[String]) -> String {
        let lines = names.iter().map(|name| format!("{name}\n"));
        format!("{maker}\n{}", lines.collect::<String>())
    }
}

/// True if `folder` has a result of `maker`.
pub fn is_made_by(folder: &Path, maker: &str) -> bool {
    Made::of(folder).is_some_and(|made| made.maker == maker)
}

/// Refuses a file in `folder` with one of these names that is not of an earlier result of `maker`.
///
/// # Errors
/// The first such file; a mark that is not of `maker`.
pub fn refuse_others<'a>(folder: &Path, maker: &str, names: impl IntoIterator<Item = &'a str>) -> io::Result<()> {
    let made = Made::of(folder);
    if let Some(other) = made.as_ref().filter(|made| made.maker != maker) {
        return Err(io::Error::new(
            ErrorKind::AlreadyExists,
            format!(
                "the folder has a result of `{}`, and not of `{maker}`; choose another folder, or remove that result",
                other.maker
            ),
        ));
    }
    let is_own = |name: &str| made.as_ref().is_some_and(|made| name == MARK || made.has(name));
    let is_there = |name: &str| fs::symlink_metadata(folder.join(name)).is_ok();
    let mut all = [MARK].into_iter().chain(names);
    match all.find(|name| is_there(name) && !is_own(name)) {
        None => Ok(()),
        Some(name) => Err(io::Error::new(
            ErrorKind::AlreadyExists,
            format!(
                "{name} there is not of an earlier result of `{maker}` and would be replaced; remove it, or choose another folder"
            ),
        )),
    }
}

/// Marks a result that `maker` wrote into `folder` before there were marks: those of `names` that are there. A mark that is
/// there stays.
///
/// # Errors
/// A mark that cannot be written.
pub fn adopt<'a>(folder: &Path, maker: &str, names: impl IntoIterator<Item = &'a str>) -> io::Result<()> {
    let path = folder.join(MARK);
    let there = names.into_iter().filter(|name| folder.join(name).is_file());
    let there: Vec<String> = there.map(String::from).collect();
    match there.is_empty() || fs::symlink_metadata(&path).is_ok() {
        true => Ok(()),
        false => replace(&path, Made::text(maker, &there).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_mark_names_is_its_maker_s() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        let refused = |maker: &str| refuse_others(folder, maker, ["a", "b"]).map_err(|e| e.to_string());
        refused("x").unwrap();
        fs::write(folder.join("a"), "").unwrap();
        assert!(refused("x").unwrap_err().starts_with("a there is not"));
        fs::write(folder.join(MARK), "x\na\n").unwrap();
        refused("x").unwrap();
        assert!(is_made_by(folder, "x") && !is_made_by(folder, "y"));
        let message = refused("y").unwrap_err();
        assert!(message.contains("has a result of `x`, and not of `y`"), "{message}");
        fs::write(folder.join("b"), "").unwrap();
        assert!(refused("x").unwrap_err().starts_with("b there"));
        // A mark of before names no files.
        fs::write(folder.join(MARK), "x\n").unwrap();
        refused("x").unwrap();
    }

    #[test]
    fn what_was_made_before_there_were_marks_is_marked_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        adopt(folder, "x", ["a", "b"]).unwrap();
        assert!(!folder.join(MARK).exists());
        fs::write(folder.join("a"), "").unwrap();
        adopt(folder, "x", ["a", "b"]).unwrap();
        fs::write(folder.join("b"), "").unwrap();
        adopt(folder, "y", ["a", "b"]).unwrap();
        assert_eq!(fs::read_to_string(folder.join(MARK)).unwrap(), "x\na\n");
    }
}
