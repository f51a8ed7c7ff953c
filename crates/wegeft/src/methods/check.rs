//! Checks of settings that several methods have.

use crate::error::AdapterError;

/// A scale must be finite.
pub(crate) fn check_alpha(field: &str, alpha: f64) -> Result<(), AdapterError> {
    match alpha.is_finite() {
        true => Ok(()),
        false => Err(AdapterError::bad_field(
            field,
            format!("{alpha} is not a finite number"),
        )),
    }
}

/// A dropout probability must be in [0, 1).
pub(crate) fn check_probability(field: &str, p: f64) -> Result<(), AdapterError> {
    match (0.0..1.0).contains(&p) {
        true => Ok(()),
        false => Err(AdapterError::bad_field(
            field,
            format!("{p} is not a probability in [0, 1)"),
        )),
    }
}
