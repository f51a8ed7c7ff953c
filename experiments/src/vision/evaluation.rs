//! Evaluation of a trained classifier.

use backbones::Vit;
use burn::tensor::Device;
use burn::train::Interrupter;

use crate::vision::data::LabelledImages;

/// Images per forward pass.
const BATCH: usize = 100;

/// Percentage of images whose most likely class is their label.
///
/// # Errors
/// An image that cannot be read, logits that are not numbers, an interruption.
pub fn top1(model: &Vit, test: &LabelledImages, interrupter: &Interrupter, device: &Device) -> Result<f64, String> {
    let mut right = 0;
    for batch in test.batches(BATCH, device).batches() {
        if interrupter.should_stop() {
            return Err("interrupted".into());
        }
        let batch = batch.map_err(|e| e.to_string())?;
        let logits = batch.input.logits(model);
        if logits.clone().is_nan().any().into_scalar::<bool>() {
            return Err("the trained model gives logits that are not numbers; lower learning_rate".into());
        }
        let count = batch.labels.dims()[0];
        right += logits
            .argmax(1)
            .reshape([count])
            .equal(batch.labels)
            .int()
            .sum()
            .into_scalar::<i64>();
    }
    Ok(100.0 * right as f64 / test.images.len() as f64)
}
