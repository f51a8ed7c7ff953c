//! A trained classifier from disk.

use std::path::Path;

use backbones::{Pretrained, Vit};
use burn::tensor::Device;
use serde_json::Value;
use wegeft::Adapted;
use wegeft::storage::{CONFIG_FILE, WEIGHTS_FILE, read_tensors, write_tensors};

use crate::run::files::write_json;

/// The model of `pretrained` with the adapter of `folder` and a head of its size. An adapter that Hugging Face PEFT trained
/// on transformers' class of the model is put under our names first.
///
/// # Errors
/// A folder that cannot be read, or does not fit the model.
pub fn load_adapted(pretrained: &Pretrained, folder: &Path, device: &Device) -> Result<Adapted<Vit>, String> {
    let weights = read_tensors(&folder.join(WEIGHTS_FILE)).map_err(|e| e.to_string())?;
    let path = folder.join(CONFIG_FILE);
    let text = std::fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    if let Ok(config) = serde_json::from_str::<Value>(&text) {
        let translated = pretrained
            .translate_adapter(&config, &weights, device)
            .map_err(|e| format!("{}: {e}", folder.display()))?;
        if let Some(translated) = translated {
            let ours = tempfile::tempdir().map_err(|e| format!("cannot make a temporary folder: {e}"))?;
            write_json(&ours.path().join(CONFIG_FILE), &translated.config)?;
            write_tensors(&ours.path().join(WEIGHTS_FILE), &translated.tensors).map_err(|e| e.to_string())?;
            return loaded(translated.model, ours.path());
        }
    }
    let head = weights.iter().find(|(name, _)| name.ends_with("head.weight"));
    let model = pretrained.model.clone();
    let model = match head {
        Some((_, head)) => model.with_head(head.shape.first().copied().unwrap_or(0), device),
        None => model,
    };
    loaded(model, folder)
}

fn loaded(model: Vit, folder: &Path) -> Result<Adapted<Vit>, String> {
    let config = wegeft::read_config(folder).map_err(|e| e.to_string())?;
    config.load(model, folder).map_err(|e| e.to_string())
}
