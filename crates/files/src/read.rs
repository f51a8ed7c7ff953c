//! Reading of files that others made: a pipe or device in place of a file would keep the reader waiting, or never end.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

/// Opens `path` to read, if it is a regular file or a link to one. It does not wait for the other end of a pipe.
///
/// # Errors
/// A file that cannot be opened; a folder, pipe, socket or device.
pub fn open_regular(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    }
    let file = options.open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    match kind.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is a pipe or a device; put a regular file there")),
    }
}

/// What is at `path` instead of a regular file or a link to one, such as "a folder"; `None` if one is there, or nothing.
pub fn kind_of_other(path: &Path) -> Option<&'static str> {
    let there = fs::symlink_metadata(path).ok()?;
    let Ok(data) = fs::metadata(path) else {
        return there.is_symlink().then_some("a link that leads nowhere");
    };
    match (data.is_dir(), data.is_file()) {
        (true, _) => Some("a folder"),
        (_, true) => None,
        _ => Some("a pipe, a socket or a device"),
    }
}

/// The content of a regular file.
///
/// # Errors
/// As [`open_regular`], and a file that cannot be read.
pub fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The content of a regular file of at most `limit` bytes.
///
/// # Errors
/// As [`read_regular`], and a larger file.
pub fn read_limited(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_limited(path, limit)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text in a regular file of at most `limit` bytes.
///
/// # Errors
/// As [`read_limited`], and a file that is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    io::read_to_string(open_limited(path, limit)?)
}

fn open_limited(path: &Path, limit: u64) -> io::Result<impl Read> {
    let file = open_regular(path)?;
    let size = file.metadata()?.len();
    match size > limit {
        true => Err(io::Error::other(format!(
            "it has {size} bytes; a file of its kind has at most {limit}"
        ))),
        // It may grow while it is read.
        false => Ok(file.take(limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "four").unwrap();
        assert_eq!(read_regular(&path).unwrap(), b"four");
        assert_eq!(read_limited(&path, 4).unwrap(), b"four");
        assert_eq!(read_text(&path, 4).unwrap(), "four");
        for message in [
            read_limited(&path, 3).unwrap_err().to_string(),
            read_text(&path, 3).unwrap_err().to_string(),
        ] {
            assert_eq!(message, "it has 4 bytes; a file of its kind has at most 3");
        }
        let missing = read_regular(&dir.path().join("none")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn pipes_devices_and_folders_are_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let made = std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap();
        assert!(made.success());
        std::os::unix::fs::symlink("/dev/zero", path("link")).unwrap();
        for name in ["pipe", "link"] {
            let message = read_regular(&path(name)).unwrap_err().to_string();
            assert!(message.contains("a pipe or a device"), "{name}: {message}");
        }
        let folder = read_regular(dir.path()).unwrap_err();
        assert_eq!(folder.kind(), io::ErrorKind::IsADirectory);
        assert_eq!(kind_of_other(&path("good")), None);
        // A link to a file is followed.
        std::os::unix::fs::symlink("file", path("good")).unwrap();
        assert_eq!(kind_of_other(&path("good")), Some("a link that leads nowhere"));
        fs::write(path("file"), "x").unwrap();
        assert_eq!(read_regular(&path("good")).unwrap(), b"x");
        assert_eq!(kind_of_other(&path("good")), None);
        assert_eq!(kind_of_other(&path("pipe")), Some("a pipe, a socket or a device"));
        assert_eq!(kind_of_other(dir.path()), Some("a folder"));
    }
}
