//! Text files from any editor: a byte order mark is skipped, and UTF-16 is read if the mark indicates it.

use std::path::Path;

const UTF8_MARK: &[u8] = &[0xEF, 0xBB, 0xBF];

/// The text of the file at `path`, without a byte order mark.
///
/// # Errors
/// A file that cannot be read, is a pipe or a device, is not UTF-8 (with the line), or is a pointer of Git LFS.
pub fn read(path: &Path) -> Result<String, String> {
    decoded(files::read_regular(path).map_err(|e| e.to_string())?)
}

/// Same as [`read`]; `None` if there is no such file.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>, String> {
    match files::read_regular(path) {
        Ok(bytes) => decoded(bytes).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn decoded(bytes: Vec<u8>) -> Result<String, String> {
    if let Some(advice) = files::pointer(&bytes) {
        return Err(advice.into());
    }
    let bytes = utf8(bytes);
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        format!("line {line} is not UTF-8; save the file as UTF-8")
    })
}

/// `bytes` without a byte order mark; UTF-16, recognized by its mark, is converted to UTF-8.
pub(crate) fn utf8(mut bytes: Vec<u8>) -> Vec<u8> {
    let units = |from: fn([u8; 2]) -> u16| {
        let units = bytes[2..].chunks_exact(2).map(|pair| from([pair[0], pair[1]]));
        String::from_utf16_lossy(&units.collect::<Vec<_>>()).into_bytes()
    };
    match bytes {
        _ if bytes.starts_with(UTF8_MARK) => {
            bytes.drain(..UTF8_MARK.len());
            bytes
        }
        _ if bytes.starts_with(&[0xFF, 0xFE]) => units(u16::from_le_bytes),
        _ if bytes.starts_with(&[0xFE, 0xFF]) => units(u16::from_be_bytes),
        _ => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_skipped_and_other_encodings_named() {
        for bytes in [&b"a\n"[..], b"\xEF\xBB\xBFa\n", b"\xFF\xFEa\0\n\0", b"\xFE\xFF\0a\0\n"] {
            assert_eq!(decoded(bytes.to_vec()).unwrap(), "a\n");
        }
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 12\n";
        assert!(decoded(pointer.to_vec()).unwrap_err().contains("git lfs pull"));
        let latin = decoded(b"a\nb\nM\xFCller\n".to_vec()).unwrap_err();
        assert!(latin.contains("line 3 is not UTF-8"), "{latin}");
    }
}
