//! What killed processes left behind in a folder: temporary files and folders of files that were not yet renamed. Files
//! that are all written are put in their places first.

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
    if files::finish(folder).is_err() {
        // Whoever writes there will tell.
        return;
    }
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        match (kind, is_stray(&entry.file_name().to_string_lossy())) {
            (Ok(kind), true) if kind.is_dir() => removed(&path, files::remove_folder(&path)),
            (Ok(kind), true) if kind.is_file() => removed(&path, files::remove_file(&path)),
            (Ok(kind), false) if kind.is_dir() && below => remove(&path, true),
            _ => {}
        }
    }
}

/// Tells of one. A failure is ignored, because the file does no harm.
fn removed(path: &Path, done: std::io::Result<()>) {
    if done.is_ok() {
        detail(format_args!(
            "removed files that a killed run left behind: {}",
            path.display()
        ));
    }
}

/// True for the name of a temporary file or folder.
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
        let made = inner.join(".tmpAbC123");
        std::fs::create_dir(&made).unwrap();
        std::fs::write(made.join("config.json"), "x").unwrap();
        remove_strays(dir.path());
        assert!(!stray.exists() && !made.exists() && stays.iter().all(|path| path.exists()));
    }

    #[test]
    fn files_that_are_all_written_are_put_in_their_places() {
        let dir = tempfile::tempdir().unwrap();
        let adapter = dir.path().join("run/adapter");
        let made = adapter.join(".tmpAbC123");
        std::fs::create_dir_all(&made).unwrap();
        for name in ["weights", "config"] {
            std::fs::write(made.join(name), "new").unwrap();
        }
        std::fs::write(adapter.join(".replacing"), ".tmpAbC123\nfile weights\nlast config\n").unwrap();
        remove_strays(dir.path());
        for name in ["weights", "config"] {
            assert_eq!(std::fs::read_to_string(adapter.join(name)).unwrap(), "new");
        }
        assert!(!made.exists() && !adapter.join(".replacing").exists());
    }
}
