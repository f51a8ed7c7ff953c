//! Adapters on disk: `adapter_config.json` and `adapter_model.safetensors`, Hugging Face PEFT's layout.
//!
//! Keys are PEFT's: `base_model.model.<module>.lora_A.weight` and, for modules trained in full,
//! `base_model.model.<parameter>`. A shared (phi, psi) is stored once, under the group's first site, as the WeGeFT
//! fork of PEFT does: `base_model.model.<module>.wegeft_phi.weight` and `wegeft_psi.weight`, both `[r, d]`. (The fork
//! keeps both as linear layers d -> r and then uses phi transposed on the input side only; here phi is transposed on
//! both sides, as the formula has it.) Methods that PEFT does
//! not have follow the same pattern, such as `base_model.model.<hook>.adapter_down.weight`. Matrices have PyTorch's
//! orientation.

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleDisplay};
use serde_json::{Map, Value};

use crate::adapted::Adapted;
use crate::checkpoint::{PREFIX, file_error, pack, replace, unpack};
use crate::config::AdapterConfig;
use crate::error::AdapterError;
use crate::foreign;
use crate::json::Unique;
use crate::method::Reader;
use crate::patterns;
use crate::pickle;
use crate::statistics;

pub use crate::checkpoint::{
    Names, Stored, Tensors, collect, fill, problems, read_tensors, write_tensors, write_then_rename,
};

/// Name of the config file in an adapter folder.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// Name of the weights file in an adapter folder.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// Name of the weights file of adapters that PEFT saved with `safe_serialization=False`, a pickle.
pub const PICKLED_FILE: &str = "adapter_model.bin";
/// Bytes. Parsed JSON takes many times its size in memory, and no real config comes near this size.
const CONFIG_LIMIT: u64 = 1 << 20;

impl<M: Module + ModuleDisplay> Adapted<M> {
    /// Writes the trained part into `folder`, creating it if needed. Each file is written under a temporary name and then
    /// renamed, so that an older adapter is never left half overwritten.
    ///
    /// # Errors
    /// A folder or file that cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<(), AdapterError> {
        self.files().write(folder)
    }

    /// What [`Adapted::save`] writes, in memory.
    pub fn files(&self) -> AdapterFiles {
        let AdapterConfig { method, targets, .. } = self.config();
        let config = method.on_disk(self.config().on_disk(), targets, self.bank().groups());
        AdapterFiles::new(config, collect(self, &self.names()))
    }

    /// `model` with the adapter that `folder` holds.
    ///
    /// # Errors
    /// A folder that cannot be read, or whose adapter does not fit `model`.
    pub fn load(model: M, folder: impl AsRef<Path>) -> Result<Self, AdapterError> {
        AdapterFiles::read(folder)?.attach(model)
    }

    /// Replaces the trained part with the weights in `folder`, without reading the config there.
    ///
    /// # Errors
    /// A file that cannot be read, or tensors that do not fit; the message lists every one that is missing, unexpected or of
    /// another shape.
    pub fn load_weights(self, folder: impl AsRef<Path>) -> Result<Self, AdapterError> {
        let (found, path) = read_weights(folder)?;
        self.with_tensors(found, &path)
    }

    /// This model with `found` as its trained part. `path` names the file in messages.
    pub(crate) fn with_tensors(self, mut found: Tensors, path: &Path) -> Result<Self, AdapterError> {
        let names = self.names();
        foreign::respell(&names, &mut found);
        self.config().method.respell(&names, &mut found);
        for (name, former) in self.bank().former_names() {
            if !found.contains_key(&name)
                && let Some(stored) = found.remove(&former)
            {
                found.insert(name, stored);
            }
        }
        let replaced = foreign::replaced(self.backbone(), &names, &mut found);
        let mut own = Tensors::new();
        for (_, name) in replaced.values() {
            own.extend(found.remove_entry(name));
        }
        let problems = problems(&names, &found);
        if !problems.is_empty() {
            return Err(AdapterError::Mismatch {
                path: path.to_path_buf(),
                problems: problems.join("; "),
            });
        }
        let unshared = match replaced.keys().any(|path| statistics::is_statistic(path)) {
            true => self.map_model(statistics::unshared),
            false => self,
        };
        let filled = fill(unshared, &names, &found).map_model(|model| fill(model, &replaced, &own));
        Ok(filled.with_replaced(replaced.into_keys().collect()))
    }

    /// Path in this module -> (parameter, name on disk).
    pub(crate) fn names(&self) -> Names {
        let mut names = Names::new();
        for param in self.own_params() {
            let name = match self.is_below_adapter(&param.path) {
                true => foreign::below_adapter(&param.torch_name()),
                false => param.torch_name(),
            };
            names.insert(format!("model.{}", param.path), (param, format!("{PREFIX}{name}")));
        }
        for (param, name) in self.bank().named() {
            names.insert(format!("bank.{}", param.path), (param, name));
        }
        names
    }
}

/// The tensors of an adapter folder and the file they come from: adapter_model.safetensors, or else adapter_model.bin, a
/// pickle that is parsed but never executed.
///
/// # Errors
/// A file that is missing or damaged.
pub fn read_weights(folder: impl AsRef<Path>) -> Result<(Tensors, PathBuf), AdapterError> {
    let folder = folder.as_ref();
    let (path, pickled) = (folder.join(WEIGHTS_FILE), folder.join(PICKLED_FILE));
    let (mut tensors, path) = match !path.is_file() && pickled.is_file() {
        true => (pickle::read_tensors(&pickled)?, pickled),
        false => (read_tensors(&path)?, path),
    };
    foreign::unwrap_rows(&mut tensors);
    Ok((tensors, path))
}

impl AdapterConfig {
    /// `model` with the adapter in `folder`, read with this config: [`AdapterConfig::init`], then [`Adapted::load_weights`].
    /// As in PEFT, names that match nothing are ignored as long as others match, and settings that only affect
    /// initialization may be any of PEFT's.
    ///
    /// # Errors
    /// A config that does not fit the model, or a file that cannot be read or does not fit.
    pub fn load<M: Module + ModuleDisplay>(
        &self,
        model: M,
        folder: impl AsRef<Path>,
    ) -> Result<Adapted<M>, AdapterError> {
        let (found, path) = read_weights(folder)?;
        self.init_to_load(model, &found, &path)?.with_tensors(found, &path)
    }
}

/// Reads `adapter_config.json` of an adapter folder.
///
/// # Errors
/// A file that is missing, is not JSON, has an unknown `peft_type`, or asks for a variant that is not implemented.
pub fn read_config(folder: impl AsRef<Path>) -> Result<AdapterConfig, AdapterError> {
    read_config_with(folder, &[])
}

/// [`read_config`] for a folder whose method may also be one of `own`, given as pairs of `peft_type` and reader.
///
/// # Errors
/// As [`read_config`].
pub fn read_config_with(folder: impl AsRef<Path>, own: &[(&str, Reader)]) -> Result<AdapterConfig, AdapterError> {
    let path = folder.as_ref().join(CONFIG_FILE);
    config_of(read_fields(&path)?, &path, own)
}

/// The fields of a config file.
fn read_fields(path: &Path) -> Result<Map<String, Value>, AdapterError> {
    let size = fs::metadata(path).map_err(|e| file_error("read", path, e))?.len();
    if size > CONFIG_LIMIT {
        let message = format!("it has {size} bytes, too many for an adapter config, which takes a few kB");
        return Err(file_error("read", path, message));
    }
    let text = fs::read_to_string(path).map_err(|e| file_error("read", path, e))?;
    fields_of(&text, path)
}

fn fields_of(text: &str, path: &Path) -> Result<Map<String, Value>, AdapterError> {
    let Unique(json) = serde_json::from_str(text).map_err(|e| file_error("read", path, e))?;
    match json {
        Value::Object(fields) => Ok(fields),
        _ => Err(file_error("read", path, "it is not a JSON object")),
    }
}

/// The config that `fields`, read from the file at `path`, describe.
fn config_of(fields: Map<String, Value>, path: &Path, own: &[(&str, Reader)]) -> Result<AdapterConfig, AdapterError> {
    AdapterConfig::from_fields(fields, own).map_err(|e| file_error("read", path, e))
}

/// The contents of an adapter folder, in memory: to send adapters as bytes, and to rename modules when an adapter was trained
/// on a model whose modules have other names.
///
/// ```
/// # use burn::nn::{Linear, LinearConfig};
/// # use burn::tensor::Device;
/// use wegeft::{Adapted, AdapterConfig, AdapterFiles};
/// # #[derive(burn::module::Module, Debug)]
/// # struct Model { query: Linear }
/// # let device = Device::flex();
/// # let model = Model { query: LinearConfig::new(8, 4).init(&device) };
/// # let adapted = AdapterConfig::lora(2).with_target_modules(["query"]).init(model.clone())?;
/// let (config, weights) = adapted.files().to_bytes()?;
/// let there = AdapterFiles::from_bytes(&config, &weights)?;
/// # let there = there.renamed(|name| name.replace("query", "q_proj"));
/// // The adapter was trained where the layer is called q_proj:
/// let adapted = there.renamed(|name| name.replace("q_proj", "query")).attach(model)?;
/// # assert_eq!(adapted.summary().groups[0].name, "query");
/// # Ok::<(), wegeft::AdapterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterFiles {
    fields: Map<String, Value>,
    tensors: Tensors,
    /// Where they come from, for error messages.
    from: PathBuf,
}

/// Fields that hold names of modules: lists, maps from names, or a pattern.
const NAME_FIELDS: [&str; 9] = [
    "target_modules",
    "exclude_modules",
    "modules_to_save",
    "feedforward_modules",
    "target_parameters",
    "rank_pattern",
    "alpha_pattern",
    "trainable_token_indices",
    "tied_modules",
];

impl AdapterFiles {
    /// An adapter made of the fields of adapter_config.json and its tensors.
    pub fn new(fields: Map<String, Value>, tensors: Tensors) -> Self {
        Self {
            fields,
            tensors,
            from: PathBuf::from("the given bytes"),
        }
    }

    /// Reads both files of `folder`.
    ///
    /// # Errors
    /// A file that is missing or damaged.
    pub fn read(folder: impl AsRef<Path>) -> Result<Self, AdapterError> {
        let folder = folder.as_ref();
        Ok(Self {
            fields: read_fields(&folder.join(CONFIG_FILE))?,
            tensors: read_weights(folder)?.0,
            from: folder.to_path_buf(),
        })
    }

    /// The adapter's config.
    ///
    /// # Errors
    /// A config that does not describe an adapter.
    pub fn config(&self) -> Result<AdapterConfig, AdapterError> {
        config_of(self.fields.clone(), &self.from.join(CONFIG_FILE), &[])
    }

    /// The fields of adapter_config.json.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// The adapter's tensors by key, as in the file.
    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// The same adapter without the tensors of these keys.
    pub fn without(mut self, names: &[String]) -> Self {
        self.tensors.retain(|name, _| !names.contains(name));
        self
    }

    /// The same adapter with one more tensor.
    pub fn with_tensor(mut self, name: String, tensor: Stored) -> Self {
        self.tensors.insert(name, tensor);
        self
    }

    /// The same adapter with a field of its config set.
    pub fn with_field(mut self, name: &str, value: Value) -> Self {
        self.fields.insert(name.to_string(), value);
        self
    }

    /// The bytes of the config file and of the weights file.
    ///
    /// # Errors
    /// Tensors that cannot be written to a file.
    pub fn to_bytes(&self) -> Result<(Vec<u8>, Vec<u8>), AdapterError> {
        let text = serde_json::to_string_pretty(&self.fields).unwrap_or_default();
        Ok((text.into_bytes(), pack(&self.from, &self.tensors)?))
    }

    /// The inverse of [`AdapterFiles::to_bytes`].
    ///
    /// # Errors
    /// Bytes that are damaged.
    pub fn from_bytes(config: &[u8], weights: &[u8]) -> Result<Self, AdapterError> {
        let empty = Self::new(Map::new(), Tensors::new());
        let text = std::str::from_utf8(config).map_err(|e| file_error("read", &empty.from, e))?;
        Ok(Self {
            fields: fields_of(text, &empty.from)?,
            tensors: unpack(&empty.from, weights)?,
            ..empty
        })
    }

    /// Writes both files into `folder`, creating it if needed.
    ///
    /// # Errors
    /// A folder or file that cannot be written.
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<(), AdapterError> {
        write_adapter(folder.as_ref(), self.fields.clone(), &self.tensors)
    }

    /// The same adapter with modules renamed. `rename` is called with every name in the config (a name, the end of a name, or a
    /// pattern) and with the key of every tensor without `base_model.model.`, such as
    /// `layers.0.self_attn.q_proj.lora_A.weight`. The pattern of a group that WeGeFT shares across layers is passed as the name of
    /// the module in layer 0.
    pub fn renamed(self, rename: impl Fn(&str) -> String) -> Self {
        let mut fields = self.fields;
        for field in NAME_FIELDS {
            if let Some(names) = fields.get_mut(field) {
                rename_in(names, &rename);
            }
        }
        if let Some(sides @ Value::Object(_)) = fields.get_mut("transform_dim") {
            rename_in(sides, &rename);
        }
        if let Some(Value::Object(groups)) = fields.get_mut("sharing") {
            groups.values_mut().for_each(|patterns| rename_in(patterns, &rename));
        }
        for fused in fields
            .get_mut("fused")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(module) = fused.get_mut("module") {
                rename_in(module, &rename);
            }
        }
        let renamed = |(name, tensor): (String, Stored)| match name.strip_prefix(PREFIX) {
            Some(name) => (format!("{PREFIX}{}", rename(name)), tensor),
            None => (name, tensor),
        };
        Self {
            fields,
            tensors: self.tensors.into_iter().map(renamed).collect(),
            from: self.from,
        }
    }

    /// `model` with this adapter.
    ///
    /// # Errors
    /// A config that does not describe an adapter or does not fit the model, or tensors that do not fit.
    pub fn attach<M: Module + ModuleDisplay>(self, model: M) -> Result<Adapted<M>, AdapterError> {
        self.attach_with(model, &[])
    }

    /// [`AdapterFiles::attach`] for an adapter whose method may also be one of `own`, given as pairs of `peft_type` and reader.
    ///
    /// # Errors
    /// As [`AdapterFiles::attach`].
    pub fn attach_with<M: Module + ModuleDisplay>(
        self,
        model: M,
        own: &[(&str, Reader)],
    ) -> Result<Adapted<M>, AdapterError> {
        let (config, weights) = (self.from.join(CONFIG_FILE), self.from.join(WEIGHTS_FILE));
        let config = config_of(self.fields, &config, own)?;
        config
            .init_to_load(model, &self.tensors, &weights)?
            .with_tensors(self.tensors, &weights)
    }
}

/// Renames a name, the names in a list, or those that a map has as keys.
fn rename_in(names: &mut Value, rename: &dyn Fn(&str) -> String) {
    match names {
        Value::String(name) => *name = patterns::renamed(name, rename),
        Value::Array(all) => all.iter_mut().for_each(|names| rename_in(names, rename)),
        Value::Object(by_name) => {
            let entries = std::mem::take(by_name).into_iter();
            *by_name = entries
                .map(|(name, value)| (patterns::renamed(&name, rename), value))
                .collect();
        }
        _ => {}
    }
}

pub(crate) fn write_adapter(folder: &Path, config: Map<String, Value>, tensors: &Tensors) -> Result<(), AdapterError> {
    files::create_folder(folder).map_err(|e| file_error("write", folder, e))?;
    let weights = folder.join(WEIGHTS_FILE);
    replace(&weights, &pack(&weights, tensors)?)?;
    let text = serde_json::to_string_pretty(&config).unwrap_or_default();
    replace(&folder.join(CONFIG_FILE), text.as_bytes())
}
