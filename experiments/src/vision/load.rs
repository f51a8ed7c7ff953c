//! A trained classifier from disk.

use std::path::Path;

use backbones::{Pretrained, Vit};
use burn::tensor::Device;
use wegeft::{Adapted, AdapterFiles};

use crate::cli::output::note;

/// The model in `pretrained` with the adapter in `folder` and a head of the adapter's size. The tensors of an adapter
/// that Hugging Face PEFT trained on a transformers model are first renamed to ours.
///
/// # Errors
/// A folder that cannot be read, or an adapter that does not fit the model.
pub fn load_adapted(pretrained: &Pretrained, folder: &Path, device: &Device) -> Result<Adapted<Vit>, String> {
    let files = AdapterFiles::read(folder).map_err(|e| e.to_string())?;
    let translated = pretrained
        .translate_adapter(files.fields(), files.tensors(), device)
        .map_err(|e| format!("{}: {e}", folder.display()))?;
    let adapted = match translated {
        Some(translated) => translated.files.attach(translated.model),
        None => {
            let mut tensors = files.tensors().iter();
            let head = tensors.find(|(name, _)| name.ends_with("head.weight"));
            let model = pretrained.model.clone();
            let model = match head {
                Some((_, head)) => model.with_head(head.shape.first().copied().unwrap_or(0), device),
                None => model,
            };
            files.attach(model)
        }
    };
    let adapted = adapted.map_err(|e| e.to_string())?;
    for warning in adapted.warnings() {
        note(format_args!("{}: {warning}", folder.display()));
    }
    Ok(adapted)
}
