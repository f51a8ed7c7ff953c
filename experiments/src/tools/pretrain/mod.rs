//! Makes the two small models that ship with the repository.

pub mod checks;
pub mod formulas;
pub mod language;
pub mod session;
pub mod vision;
