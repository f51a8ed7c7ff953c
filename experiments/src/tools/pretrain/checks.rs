//! Checks of the pretraining programs before they start, for problems that would otherwise show only after the
//! training, or as a panic.

use std::path::Path;

use crate::run::files::create_folder;

/// Refuses a flag whose value is 0, and names it.
///
/// # Errors
/// The first such field or flag.
pub fn check_positive(flags: &[(&str, usize)]) -> Result<(), String> {
    match flags.iter().find(|(_, value)| *value == 0) {
        Some((flag, _)) => Err(format!("--{flag} is 0; it must be at least 1")),
        None => Ok(()),
    }
}

/// Refuses a learning rate that is not a positive number.
///
/// # Errors
/// A learning rate that is not positive.
pub fn check_learning_rate(lr: f64) -> Result<(), String> {
    match lr.is_finite() && lr > 0.0 {
        true => Ok(()),
        false => Err(format!("--learning-rate {lr} is not above 0")),
    }
}

/// Makes the folder `out` and tries to write into it.
///
/// # Errors
/// A folder that cannot be made or written into.
pub fn check_out(out: &Path) -> Result<(), String> {
    let name = out.display();
    create_folder(out).map_err(|e| format!("{e}; choose another --out"))?;
    // Dropped at once: it only tests whether files can be written here.
    tempfile::tempfile_in(out).map_err(|e| format!("cannot write into {name}: {e}; choose another --out"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_pretrained_with_is_named() {
        assert!(check_positive(&[("steps", 1)]).is_ok());
        assert!(
            check_positive(&[("steps", 1), ("depth", 0)])
                .unwrap_err()
                .contains("--depth is 0")
        );
        for lr in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(check_learning_rate(lr).unwrap_err().contains("--learning-rate"));
        }
        let dir = tempfile::tempdir().unwrap();
        assert!(check_out(&dir.path().join("new")).is_ok());
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(check_out(&file).unwrap_err().contains("choose another --out"));
    }
}
