//! The methods by name: one line each, from settings to an adapter, for all wings.

pub mod build;
mod check;
mod places;
pub mod rates;
pub mod settings;
mod table;

pub use build::{adapter, fitted, scheduled, virtual_tokens};
pub use rates::{grid, rates};
pub use settings::{Adapter, MethodSettings, NONE, OwnSettings, Wing, ZeroFactor};
pub use table::{FLAGS, Listed, fields_help, flags_of, help, listed, names, reads_flag};
