//! `adapter merge` of a language model: a Hugging Face folder that `generate` and transformers load.

use std::path::Path;

use backbones::lm::chat_template::FURTHER;
use backbones::lm::{Precision, save_lm, stored_precision};
use burn::tensor::Device;
use serde_json::{Value, json};

use super::merge::show;
use super::open::Language;
use super::{MERGE, refuse_its_own};
use crate::run::files::{LONGEST, replace_together};
use crate::run::lock::Lock;
use crate::train::agreement;

/// Tokenizer and generation files in a model's folder, copied if they exist.
const COPIED: [&str; 10] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
];

/// Writes the folder, with weights of type `dtype` or of the checkpoint's type, and prints what changed.
pub fn merge(opened: &Language, dtype: Option<Precision>, out: &Path, device: &Device) -> Result<(), String> {
    refuse_its_own(out, "backbone", &opened.folder)?;
    let precision = match dtype {
        Some(precision) => precision,
        None => stored_precision(&opened.folder).map_err(|e| e.to_string())?,
    };
    let (merged, report) = opened.adapted.merge_with_report().map_err(|e| e.to_string())?;
    agreement::of_language(&opened.adapted, &merged, precision, device)
        .map_err(|e| format!("{e}; nothing was written"))?;
    let _lock = Lock::for_writing(out)?;
    let config = config(&opened.folder, precision)?;
    replace_together(out, Some(MERGE), Some("config.json"), |made| {
        save_lm(&merged, &config, made, precision).map_err(|e| e.to_string())?;
        for name in COPIED {
            let (from, to) = (opened.folder.join(name), made.join(name));
            if from.is_file() {
                let copied = files::copy(&from, &to);
                copied.map_err(|e| format!("cannot copy {} to {}: {e}", from.display(), to.display()))?;
            }
        }
        templates(&opened.folder.join(FURTHER), &made.join(FURTHER))
    })?;
    show(&report, out)
}

/// Copies the templates in the folder `from`, if it is there.
fn templates(from: &Path, to: &Path) -> Result<(), String> {
    let Ok(entries) = std::fs::read_dir(from) else {
        return Ok(());
    };
    let failed = |from: &Path, e: &dyn std::fmt::Display| format!("cannot copy {}: {e}", from.display());
    for entry in entries {
        let path = entry.map_err(|e| failed(from, &e))?.path();
        if path.is_file()
            && let (Some("jinja"), Some(name)) = (path.extension().and_then(|e| e.to_str()), path.file_name())
        {
            files::create_folder(to).map_err(|e| failed(&path, &e))?;
            files::copy(&path, &to.join(name)).map_err(|e| failed(&path, &e))?;
        }
    }
    Ok(())
}

/// config.json of the merged model: the backbone's, with the new type of the weights. For Gemma 3 with images, only the
/// text model is adapted and written.
fn config(folder: &Path, precision: Precision) -> Result<Value, String> {
    let path = folder.join("config.json");
    let text = files::read_text(&path, LONGEST).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let mut json: Value = serde_json::from_str(&text).map_err(|e| format!("{} is malformed ({e})", path.display()))?;
    if json["model_type"] == "gemma3" && json["text_config"].is_object() {
        json = json["text_config"].take();
        json["architectures"] = json!(["Gemma3ForCausalLM"]);
    }
    // Both spellings are in use: the newer one, and the one of transformers before version 5.
    for field in ["dtype", "torch_dtype"] {
        if json.get(field).is_some() {
            json[field] = json!(precision.torch_name());
        }
    }
    Ok(json)
}
