//! An adapter on its backbone: a vision transformer or a language model.

use std::path::{Path, PathBuf};

use backbones::hub::config_file;
use backbones::lm::adapter::attach;
use backbones::lm::{Decoder, DecoderConfig, LoadOptions, Precision, load_lm, stored_precision};
use backbones::{Pretrained, Vit, load_vit, resolve, resolve_lm};
use burn::tensor::Device;
use serde_json::{Value, json};
use wegeft::storage::{PREFIX, read_weights};
use wegeft::{Adapted, AdapterFiles};

use super::On;
use super::convert::Beside;
use crate::cli::output::note;
use crate::cli::settings::absolute_model;
use crate::cli::{model_folder, shipped};
use crate::language::model::BASE_MODEL;
use crate::run::files::LONGEST;
use crate::vision::description::{Description, FILE};
use crate::vision::load::load_adapted;

/// An adapter folder, loaded onto its backbone.
pub enum Opened {
    /// Of a vision transformer.
    Vision(Box<Vision>),
    /// Of a language model.
    Language(Box<Language>),
}

/// An adapted vision transformer.
pub struct Vision {
    /// The adapted model.
    pub adapted: Adapted<Vit>,
    /// The backbone with the information in its files.
    pub pretrained: Pretrained,
    /// The folder's description of the adapter; none for an adapter made elsewhere.
    pub description: Option<Description>,
    /// Folder or file of the backbone.
    pub path: PathBuf,
}

/// An adapted language model.
pub struct Language {
    /// The adapted model.
    pub adapted: Adapted<Decoder>,
    /// The model without the adapter.
    pub plain: Decoder,
    /// Folder of the backbone.
    pub folder: PathBuf,
}

/// Type of a language model's weights in memory.
#[derive(Clone, Copy)]
pub enum Weights {
    /// f32, for exact conversions.
    Exact,
    /// The checkpoint's type, or f32 if f32 will be written.
    For(Option<Precision>),
}

/// Loads the adapter and its backbone.
pub fn open(on: &On, weights: Weights, device: &Device) -> Result<Opened, String> {
    let config = wegeft::read_config(&on.adapter).map_err(|e| e.to_string())?;
    let description = Description::read(&on.adapter)?;
    let own = || description.as_ref().and_then(|d| d.backbone.clone());
    let base = || config.extra.get(BASE_MODEL)?.as_str().map(String::from);
    let named = on.backbone.clone().or_else(own).or_else(base);
    let named = named.filter(|name| !name.is_empty());
    // The backbone that is named in the adapter's files may have been moved.
    let advice = |message: String| match on.backbone {
        Some(_) => message,
        None => format!("{message}, or give the adapter's backbone as --model"),
    };
    let is_language = match &named {
        Some(name) => is_of_language(name).map_err(advice)?,
        None => description.is_none() && has_language_names(&on.adapter)?,
    };
    if is_language {
        return language(on, named, weights, device).map(|opened| Opened::Language(Box::new(opened)));
    }
    let path = match &named {
        Some(name) => resolve(name).map_err(|e| advice(e.to_string()))?,
        None => shipped::backbone()?,
    };
    model_folder::note_adapter(&path, Some(on.adapter.as_path()));
    let size = description.as_ref().map(|d| d.image_size);
    let pretrained = load_vit(&path, size, 0.0, device).map_err(|e| e.to_string())?;
    Ok(Opened::Vision(Box::new(Vision {
        adapted: load_adapted(&pretrained, &on.adapter, device)?,
        pretrained,
        description,
        path,
    })))
}

fn language(on: &On, named: Option<String>, weights: Weights, device: &Device) -> Result<Language, String> {
    let folder = match &named {
        Some(name) => resolve_lm(name).map_err(|e| e.to_string())?,
        None => shipped::language_model()?,
    };
    model_folder::note_adapter(&folder, Some(on.adapter.as_path()));
    let precision = match weights {
        Weights::Exact | Weights::For(Some(Precision::F32)) => Precision::F32,
        Weights::For(_) => stored_precision(&folder).map_err(|e| e.to_string())?,
    };
    let options = LoadOptions {
        precision,
        ..LoadOptions::default()
    };
    let plain = load_lm(&folder, &options, device).map_err(|e| e.to_string())?.model;
    let mut files = AdapterFiles::read(&on.adapter).map_err(|e| e.to_string())?;
    if let Some(name) = named {
        files = files.with_field(BASE_MODEL, json!(absolute_model(name)?));
    }
    let adapted = attach(plain.clone(), files).map_err(|e| e.to_string())?;
    for warning in adapted.warnings() {
        note(format_args!("{}: {warning}", on.adapter.display()));
    }
    Ok(Language { adapted, plain, folder })
}

/// True if the backbone of that name or path is a language model.
fn is_of_language(name: &str) -> Result<bool, String> {
    let path = config_file(name).map_err(|e| e.to_string())?;
    if Path::new(name).is_dir() {
        model_folder::refuse_adapter(Path::new(name))?;
    }
    let text = files::read_text(&path, LONGEST).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let json: Value = serde_json::from_str(&text).map_err(|e| format!("{} is malformed ({e})", path.display()))?;
    Ok(DecoderConfig::is_of_language(&json))
}

/// True if the tensors of the adapter in `folder` have the names of a language model.
fn has_language_names(folder: &Path) -> Result<bool, String> {
    let (tensors, _) = read_weights(folder).map_err(|e| e.to_string())?;
    let mut names = tensors.keys().filter_map(|name| name.strip_prefix(PREFIX));
    Ok(names.any(|name| name.starts_with("model.") || name.starts_with("transformer.")))
}

impl Vision {
    /// The file that describes the adapter.
    pub fn beside(&self) -> Result<Option<Beside>, String> {
        let described = self.description.as_ref().map(Description::to_bytes).transpose()?;
        Ok(described.map(|bytes| (FILE, bytes)))
    }
}
