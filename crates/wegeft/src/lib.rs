//! Parameter-efficient fine-tuning for any Burn module: WeGeFT and the methods beside it (see [`methods`]).
//!
//! [`AdapterConfig::init`] freezes a model and makes a [`bank::Bank`] of trainable factors beside it; the
//! two together are an [`Adapted`] module, which is what the optimizer and the learner see. For a forward
//! pass, [`Adapted::bind`] hands out the model with every site carrying its factors:
//!
//! ```
//! use burn::nn::{Linear, LinearConfig};
//! use burn::tensor::{Device, Tensor};
//! use wegeft::AdapterConfig;
//!
//! # fn main() -> Result<(), wegeft::AdapterError> {
//! let device = Device::flex().autodiff();
//! #[derive(burn::module::Module, Debug)]
//! struct Model { proj: Linear }
//! let model = Model { proj: LinearConfig::new(8, 4).init(&device) };
//!
//! let adapted = AdapterConfig::wegeft(2).with_target_modules(["proj"]).init(model)?;
//! println!("{}", adapted.summary());
//! let x = Tensor::ones([3, 8], &device);
//! let y: Tensor<2> = adapted.bind().proj.forward(x.clone()); // weight space: the model is unchanged
//! let merged = adapted.merge()?;
//! y.into_data().assert_approx_eq::<f32>(&merged.proj.forward(x).into_data(), Default::default());
//! # Ok(()) }
//! ```
//!
//! A model that calls [`linear`] in place of `Linear::forward` works in activation space: the same numbers,
//! no dense weight, no dense weight gradient.

pub mod adapted;
pub mod adapters;
pub mod bank;
pub mod combine;
pub mod config;
pub mod convert;
pub mod error;
pub mod export;
mod fork;
pub mod hook;
mod json;
#[cfg(feature = "train")]
pub mod learner;
mod linalg;
mod linear;
pub mod merge;
pub mod methods;
pub mod mixed;
pub mod optimizer;
mod select;
pub mod site;
pub mod storage;
pub mod summary;
mod unsupported;
mod weights;

pub use adapted::Adapted;
pub use adapters::Adapters;
pub use combine::Combination;
pub use config::{AdapterConfig, Fused, Method, Patterns, Sharing, TargetModules, Targets};
pub use convert::ConversionReport;
pub use error::AdapterError;
pub use hook::Hook;
#[cfg(feature = "train")]
pub use learner::Trainee;
pub use linear::{linear, linear_many};
pub use merge::{MergeReport, UnmergeReport};
pub use methods::wegeft::{Side, ZeroFactor};
pub use storage::read_config;
pub use summary::Summary;
