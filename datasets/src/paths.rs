//! Paths in lists and archives.

use std::path::{Component, Path, PathBuf};

/// `folder` joined with `relative`, which must stay within it.
///
/// # Errors
/// An absolute path, or one with `..` in it.
pub(crate) fn within(folder: &Path, relative: &str) -> Result<PathBuf, String> {
    let path = Path::new(relative);
    let stays = path
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    match stays && !relative.is_empty() {
        true => Ok(folder.join(path)),
        false => Err(format!(
            "the path '{}' leads out of its folder",
            relative.escape_debug()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_out_is_refused() {
        let folder = Path::new("data");
        assert_eq!(within(folder, "a/b.jpg").unwrap(), Path::new("data/a/b.jpg"));
        for out in ["../a", "a/../../b", "/etc/passwd", "", ".."] {
            assert!(within(folder, out).unwrap_err().contains("leads out"), "{out}");
        }
    }
}
