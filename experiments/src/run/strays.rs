//! Files left behind in a folder by killed processes: temporary files that were not yet renamed.

use std::path::Path;

use crate::cli::output::detail;

/// Removes such files from `folder`, which no other process may be using, and from its subfolders.
pub fn remove_strays(folder: &Path) {
    remove(folder, true);
}

/// Removes such files from `folder`, which no other process may be using, and leaves its subfolders alone.
pub fn remove_strays_in(folder: &Path) {
    remove(folder, false);
}

fn remove(folder: &Path, below: bool) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && below => remove(&entry.path(), true),
            Ok(kind) if kind.is_file() && is_stray(&entry.file_name().to_string_lossy()) => removed(&entry.path()),
            _ => {}
        }
    }
}

/// Removes one. A failure is ignored, because the file does no harm.
fn removed(path: &Path) {
    if files::remove_file(path).is_ok() {
        detail(format_args!(
            "removed files that a killed run left behind: {}",
            path.display()
        ));
    }
}

/// True for the name of a temporary file.
pub fn is_stray(name: &str) -> bool {
    let end = name.strip_prefix(".tmp");
    end.is_some_and(|end| end.len() == 6 && end.chars().all(|c| c.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_temporary_files_go() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        let (stray, _) = tempfile::NamedTempFile::new_in(&inner)
            .unwrap()
            .keep()
            .map(|(_, path)| (path, ()))
            .unwrap();
        let stays = [
            inner.join(".tmpl"),
            inner.join("x.tmpAbc123"),
            dir.path().join("summary.json"),
        ];
        for path in &stays {
            std::fs::write(path, "x").unwrap();
        }
        remove_strays(dir.path());
        assert!(!stray.exists() && stays.iter().all(|path| path.exists()));
    }
}
