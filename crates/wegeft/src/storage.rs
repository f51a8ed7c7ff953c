//! Adapters on disk: `adapter_config.json` and `adapter_model.safetensors`, Hugging Face PEFT's layout.
//!
//! Keys are PEFT's: `base_model.model.<module>.lora_A.weight` and, for modules trained in full,
//! `base_model.model.<parameter>`. A shared (phi, psi) is stored once, under the group's first site, as the WeGeFT
//! fork of PEFT does: `base_model.model.<module>.wegeft_phi.weight` and `wegeft_psi.weight`, both `[r, d]`. (The fork
//! keeps both as linear layers d -> r and then uses phi transposed on the input side only; here phi is transposed on
//! both sides, as the formula has it.) What PEFT has no method for is named likewise,
//! `base_model.model.<hook>.adapter_down.weight`. Matrices have PyTorch's orientation.

use std::fs;
use std::path::Path;

use burn::module::{Module, ModuleDisplay};
use serde_json::{Map, Value};

use crate::adapted::Adapted;
use crate::checkpoint::file_error;
use crate::config::AdapterConfig;
use crate::error::AdapterError;
use crate::json::Unique;
use crate::method::Reader;
use crate::unsupported;

pub use crate::checkpoint::{
    Names, Stored, Tensors, collect, fill, problems, read_tensors, write_tensors, write_then_rename,
};

/// Name of the config file in an adapter folder.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// Name of the weights file in an adapter folder.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// Parsed JSON takes many times its size in memory; no config comes near this one, bytes.
const CONFIG_LIMIT: u64 = 1 << 20;
pub(crate) const PREFIX: &str = "base_model.model.";

impl<M: Module + ModuleDisplay> Adapted<M> {
    /// Writes the trained part into `folder`, which is made if absent. Each file is written beside its
    /// place and renamed, so that an older adapter is never left half overwritten.
    ///
    /// # Errors
    /// A folder or file that cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<(), AdapterError> {
        let mut config = self.config().fields();
        config.extend(self.config().method.foreign_fields(self.bank().groups()));
        config.extend(self.config().extra.clone());
        write_adapter(folder.as_ref(), config, &collect(self, &self.names()))
    }

    /// `model` with the adapter that `folder` holds.
    ///
    /// # Errors
    /// A folder that cannot be read, or whose adapter does not fit `model`.
    pub fn load(model: M, folder: impl AsRef<Path>) -> Result<Self, AdapterError> {
        read_config(folder.as_ref())?.load(model, folder)
    }

    /// Replaces the trained part by what the weights file of `folder` holds, whatever config lies beside it.
    ///
    /// # Errors
    /// A file that cannot be read, or tensors that do not fit: every missing, surplus and misshapen one.
    pub fn load_weights(self, folder: impl AsRef<Path>) -> Result<Self, AdapterError> {
        let path = folder.as_ref().join(WEIGHTS_FILE);
        let mut found = read_tensors(&path)?;
        let names = self.names();
        self.config().method.respell(&names, &mut found);
        for (name, former) in self.bank().former_names() {
            if !found.contains_key(&name)
                && let Some(stored) = found.remove(&former)
            {
                found.insert(name, stored);
            }
        }
        let problems = problems(&names, &found);
        if !problems.is_empty() {
            return Err(AdapterError::Mismatch {
                path,
                problems: problems.join("; "),
            });
        }
        Ok(fill(self, &names, &found))
    }

    /// Path in this module -> (parameter, name on disk).
    pub(crate) fn names(&self) -> Names {
        let mut names = Names::new();
        for param in self.saved_params() {
            let name = format!("{PREFIX}{}", param.torch_name());
            names.insert(format!("model.{}", param.path), (param, name));
        }
        for (param, name) in self.bank().named() {
            names.insert(format!("bank.{}", param.path), (param, name));
        }
        names
    }
}

impl AdapterConfig {
    /// `model` with the adapter of this config that `folder` holds: [`AdapterConfig::init`], then
    /// [`Adapted::load_weights`].
    ///
    /// # Errors
    /// A config that does not fit the model, or a file that cannot be read or does not fit.
    pub fn load<M: Module + ModuleDisplay>(
        &self,
        model: M,
        folder: impl AsRef<Path>,
    ) -> Result<Adapted<M>, AdapterError> {
        self.init(model)?.load_weights(folder)
    }
}

/// Reads `adapter_config.json` of an adapter folder.
///
/// # Errors
/// A file that is missing, no JSON, of an unknown `peft_type`, or that asks for a variant not implemented here.
pub fn read_config(folder: impl AsRef<Path>) -> Result<AdapterConfig, AdapterError> {
    read_config_with(folder, &[])
}

/// [`read_config`] of a folder whose method may be one of `own`: `peft_type` and reader of each.
///
/// # Errors
/// As [`read_config`].
pub fn read_config_with(folder: impl AsRef<Path>, own: &[(&str, Reader)]) -> Result<AdapterConfig, AdapterError> {
    let path = folder.as_ref().join(CONFIG_FILE);
    let error = |message: String| AdapterError::File {
        action: "read",
        path: path.clone(),
        message,
    };
    let size = fs::metadata(&path).map_err(|e| error(e.to_string()))?.len();
    if size > CONFIG_LIMIT {
        return Err(error(format!("{size} bytes are no adapter config, which has a few kB")));
    }
    let text = fs::read_to_string(&path).map_err(|e| error(e.to_string()))?;
    let Unique(json) = serde_json::from_str(&text).map_err(|e| error(e.to_string()))?;
    if let Some((field, value)) = unsupported::first(&json) {
        return Err(error(format!(
            "field '{field}' is {value}, which is not implemented here; leave it unset"
        )));
    }
    let Value::Object(mut fields) = json else {
        return Err(error("it is no JSON object".to_string()));
    };
    let mut config = AdapterConfig::from_fields(&mut fields, own).map_err(|e| error(e.to_string()))?;
    let known = config.fields();
    config.extra = fields
        .into_iter()
        .filter(|(name, _)| !known.contains_key(name))
        .collect();
    Ok(config)
}

pub(crate) fn write_adapter(folder: &Path, config: Map<String, Value>, tensors: &Tensors) -> Result<(), AdapterError> {
    fs::create_dir_all(folder).map_err(|e| file_error("write", folder, e))?;
    write_tensors(&folder.join(WEIGHTS_FILE), tensors)?;
    let text = serde_json::to_string_pretty(&config).unwrap_or_default();
    write_then_rename(&folder.join(CONFIG_FILE), text.as_bytes())
}
