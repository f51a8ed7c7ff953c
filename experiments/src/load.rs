//! A trained classifier from disk.

use std::path::Path;

use backbones::Vit;
use burn::tensor::Device;
use wegeft::Adapted;
use wegeft::storage::{WEIGHTS_FILE, read_tensors};

/// `model` with the adapter of `folder` and a head of its size.
///
/// # Errors
/// A folder that cannot be read, or does not fit the model.
pub fn load_adapted(model: Vit, folder: &Path, device: &Device) -> Result<Adapted<Vit>, String> {
    let config = wegeft::read_config(folder).map_err(|e| e.to_string())?;
    let weights = read_tensors(&folder.join(WEIGHTS_FILE)).map_err(|e| e.to_string())?;
    let head = weights.iter().find(|(name, _)| name.ends_with("head.weight"));
    let model = match head {
        Some((_, head)) => model.with_head(head.shape.first().copied().unwrap_or(0), device),
        None => model,
    };
    let adapted = config.init(model).map_err(|e| e.to_string())?;
    adapted.load_weights(folder).map_err(|e| e.to_string())
}
