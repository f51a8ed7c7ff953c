//! A trained classifier from disk.

use std::path::Path;

use backbones::{Pretrained, Vit, drawn_start};
use burn::tensor::Device;
use serde_json::Value;
use wegeft::storage::CONFIG_FILE;
use wegeft::{Adapted, AdapterFiles};

use crate::cli::output::note;

/// The model in `pretrained` with the adapter in `folder` and a head of the adapter's size. The tensors of an adapter
/// that Hugging Face PEFT trained on a transformers model are first renamed to ours.
///
/// # Errors
/// A folder that cannot be read, or an adapter that does not fit the model.
pub fn load_adapted(pretrained: &Pretrained, folder: &Path, device: &Device) -> Result<Adapted<Vit>, String> {
    let files = AdapterFiles::read(folder).map_err(|e| e.to_string())?;
    check_prompts(pretrained, &files).map_err(|e| format!("{}: {e}", folder.join(CONFIG_FILE).display()))?;
    let drawn = drawn_start::warning(files.fields());
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
    let adapted = drawn.into_iter().fold(adapted, Adapted::with_warning);
    for warning in adapted.warnings() {
        note(format_args!("{}: {warning}", folder.display()));
    }
    Ok(adapted)
}

/// Prompts stand behind tokens that the model has.
fn check_prompts(pretrained: &Pretrained, files: &AdapterFiles) -> Result<(), String> {
    let (all, before) = (pretrained.config.tokens(), pretrained.config.prefix_tokens());
    match files.fields().get("prefix_tokens").and_then(Value::as_u64) {
        Some(found) if found >= all as u64 => Err(format!(
            "prefix_tokens is {found}, but the model has {all} tokens; set it to {before}, the number of those before its patches"
        )),
        _ => Ok(()),
    }
}
