//! Pointers of Git LFS: the small texts that a clone made without Git LFS has in place of large files.

use std::io::Read;
use std::path::Path;

use crate::read::open_regular;

/// How every pointer begins.
const START: &[u8] = b"version https://git-lfs.github.com/spec/";

/// What to do about one.
const ADVICE: &str = "it is a pointer of Git LFS and not the file itself; run `git lfs pull` in the repository, or download the \
                      file";

/// What is wrong with a file that cannot be read because it is a pointer of Git LFS; `start` is how it begins. `None` if
/// it is none.
pub fn pointer(start: &[u8]) -> Option<&'static str> {
    start.starts_with(START).then_some(ADVICE)
}

/// `message`, why the file at `path` cannot be read, or what is wrong with it if it is a pointer of Git LFS.
pub fn explained(path: &Path, message: impl ToString) -> String {
    let mut start = Vec::new();
    // What cannot be read is no pointer.
    let _ = open_regular(path).and_then(|file| file.take(START.len() as u64).read_to_end(&mut start));
    pointer(&start).map_or_else(|| message.to_string(), String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_named_instead_of_what_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        assert_eq!(explained(&path, "no such file"), "no such file");
        assert_eq!(explained(dir.path(), "a folder"), "a folder");
        std::fs::write(&path, "version 2").unwrap();
        assert_eq!(explained(&path, "cut off"), "cut off");
        std::fs::write(
            &path,
            "version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 12\n",
        )
        .unwrap();
        assert!(explained(&path, "cut off").contains("git lfs pull"));
    }
}
