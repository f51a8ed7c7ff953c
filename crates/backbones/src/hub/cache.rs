//! The cache folder that Hugging Face's own tools use:
//!
//! ```text
//! models--org--name/refs/main                       the commit that the branch was at
//! models--org--name/snapshots/COMMIT/config.json    a link to
//! models--org--name/blobs/ETAG                      the file
//! models--org--name/.no_exist/COMMIT/config.json    empty: the server said that there is none
//! .locks/models--org--name/ETAG.lock                held while the file is fetched
//! ```
//!
//! Commits and ETags are what a server says: each is checked to be a plain name before it becomes part of a path.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use files::File;

use super::error::FetchError;

/// Longest ETag or commit that is taken for a name.
const LONGEST: usize = 128;

/// The part of the cache that belongs to one model.
#[derive(Debug, Clone)]
pub(super) struct ModelCache {
    folder: PathBuf,
    locks: PathBuf,
}

impl ModelCache {
    /// Of the model `org/name`, both of which are plain names.
    pub fn new(cache: &Path, name: &str) -> Self {
        let folder = format!("models--{}", name.replace('/', "--"));
        Self {
            locks: cache.join(".locks").join(&folder),
            folder: cache.join(folder),
        }
    }

    /// The commit that the cache has for a branch, tag or commit.
    pub fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_string());
        }
        let commit = fs::read_to_string(self.reference(revision)).ok()?;
        let commit = commit.trim();
        is_name(commit).then(|| commit.to_string())
    }

    /// `file` of that commit, if it is there.
    pub fn file(&self, commit: &str, file: &str) -> Option<PathBuf> {
        let path = self.snapshot(commit, file);
        path.is_file().then_some(path)
    }

    /// True if the server said once that the commit has no such file.
    pub fn has_no(&self, commit: &str, file: &str) -> bool {
        self.absent(commit, file).is_file()
    }

    /// Notes that the commit has no such file, so that the server is not asked again. A failure is ignored.
    pub fn note_absence(&self, commit: &str, file: &str) {
        let path = self.absent(commit, file);
        let _ = files::create_folder(path.parent().unwrap_or(&path)).and_then(|()| files::write(&path, b""));
    }

    fn absent(&self, commit: &str, file: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit).join(file)
    }

    /// Where `file` of that commit is or will be.
    pub fn snapshot(&self, commit: &str, file: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit).join(file)
    }

    /// Where the bytes of that ETag are or will be.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Waits until no other process fetches that ETag; until the result is dropped, none does.
    pub fn lock(&self, etag: &str) -> Result<File, FetchError> {
        let path = self.locks.join(format!("{etag}.lock"));
        let lock = || {
            files::create_folder(&self.locks)?;
            let file = File::append(&path)?;
            file.system().lock()?;
            Ok(file)
        };
        lock().map_err(|error| failed(&path, &error))
    }

    /// Links `file` of that commit to the blob, and the revision to the commit. Both appear whole or not at all.
    pub fn publish(&self, revision: &str, commit: &str, file: &str, etag: &str) -> Result<PathBuf, FetchError> {
        let path = self.snapshot(commit, file);
        link(&self.blob(etag), &path, file).map_err(|error| failed(&path, &error))?;
        if !is_commit(revision) {
            let reference = self.reference(revision);
            write(&reference, commit).map_err(|error| failed(&reference, &error))?;
        }
        Ok(path)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }
}

pub(super) fn failed(path: &Path, error: &io::Error) -> FetchError {
    FetchError::Cache {
        path: path.display().to_string(),
        message: error.to_string(),
    }
}

/// True for an ETag or commit that may be the name of a file.
pub(super) fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !text.is_empty() && text.len() <= LONGEST && !text.starts_with('.') && text.chars().all(plain)
}

/// True for the hash of a git commit, which stands for the same files for ever.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// True for a path that stays below the folder that it is joined to, on any system.
pub(super) fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\\', ':', '\0'])
        && !path.ends_with('/')
        && !path.contains("//")
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

/// Makes `path` stand for `blob`: a relative link, or a copy where there are none.
fn link(blob: &Path, path: &Path, file: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    files::create_folder(folder)?;
    let temporary = tempfile::Builder::new().prefix(".link-").make_in(folder, |temporary| {
        #[cfg(unix)]
        {
            // From snapshots/COMMIT/FILE up to the model's folder.
            let up = "../".repeat(2 + file.matches('/').count());
            let name = blob.file_name().unwrap_or_default();
            std::os::unix::fs::symlink(Path::new(&up).join("blobs").join(name), temporary)
        }
        #[cfg(not(unix))]
        {
            let _ = file;
            fs::hard_link(blob, temporary).or_else(|_| fs::copy(blob, temporary).map(|_| ()))
        }
    })?;
    temporary.into_temp_path().persist(path).map_err(io::Error::from)
}

/// Writes a small file so that it appears whole.
fn write(path: &Path, text: &str) -> io::Result<()> {
    files::create_folder(path.parent().unwrap_or(path))?;
    files::replace(path, text.as_bytes())
}
