//! Tests across the crates: see the files under `tests/`.

/// The code of the guide's page on the library is compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/library.md")]
struct Library;

/// And that of the page on several devices.
#[cfg(doctest)]
#[doc = include_str!("../../docs/devices.md")]
struct Devices;

/// The lines of the README's example; another test compares them with the README.
///
/// ```no_run
/// use burn::nn::transformer::{TransformerEncoderConfig, TransformerEncoderInput};
/// use burn::optim::{AdamWConfig, GradientsParams};
/// use burn::tensor::{Device, Tensor};
/// use wegeft::AdapterConfig;
///
/// # fn main() -> Result<(), wegeft::AdapterError> {
/// # let device = Device::flex().autodiff();
/// # let model = TransformerEncoderConfig::new(32, 64, 4, 2).init(&device);
/// # let batches = vec![TransformerEncoderInput::new(Tensor::ones([2, 5, 32], &device))];
/// let config = AdapterConfig::wegeft(16).with_target_modules(["query", "value"]);
/// let mut adapted = config.init(model)?;                     // a Burn module, its weights frozen
/// println!("{}", adapted.summary());                         // what is trained, and where
/// let mut optimizer = AdamWConfig::new().init();
/// for batch in batches {
///     let loss = adapted.bind().forward(batch).powi_scalar(2).mean();
///     let grads = GradientsParams::from_grads(loss.backward(), &adapted);
///     adapted = optimizer.step(1e-3, adapted, grads);
/// }
/// adapted.save("adapter")?;                                  // in PEFT's layout
/// let merged = adapted.merge()?;                             // a plain model again
/// # drop(merged);
/// # Ok(())
/// # }
/// ```
#[cfg(doctest)]
struct Readme;
