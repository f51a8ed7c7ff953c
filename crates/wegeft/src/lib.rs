//! Parameter-efficient fine-tuning for any Burn module.

pub mod adapted;
pub mod bank;
pub mod config;
pub mod error;
mod linear;
pub mod methods;
pub mod site;

pub use adapted::Adapted;
pub use config::{AdapterConfig, Method, Sharing, TargetModules, Targets};
pub use error::AdapterError;
pub use linear::linear;
