//! The two files of an adapter folder, in memory.

use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleDisplay};
use serde_json::{Map, Value};

use crate::adapted::Adapted;
use crate::adapter_folder::{CONFIG_FILE, WEIGHTS_FILE, check_settings, config_of, fields_of, read_fields, weights_of};
use crate::checkpoint::{PREFIX, Stored, Tensors, file_error, pack_with, unpack};
use crate::config::AdapterConfig;
use crate::error::AdapterError;
use crate::method::Reader;
use crate::patterns;
use crate::saved_with;

/// The contents of an adapter folder, in memory: to send adapters as bytes, and to rename modules when an adapter was
/// trained on a model whose modules have other names.
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
    /// A file that is missing or damaged; weights that were saved with another config.
    pub fn read(folder: impl AsRef<Path>) -> Result<Self, AdapterError> {
        let folder = folder.as_ref();
        let config = folder.join(CONFIG_FILE);
        let fields = read_fields(&config)?;
        let (tensors, _) = weights_of(folder, |weights| check_settings(&fields, weights, &config))?;
        Ok(Self {
            fields,
            tensors,
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
        self.packed(&self.from)
    }

    /// [`AdapterFiles::to_bytes`]; `path` names the weights file in messages.
    fn packed(&self, path: &Path) -> Result<(Vec<u8>, Vec<u8>), AdapterError> {
        let text = serde_json::to_string_pretty(&self.fields).unwrap_or_default();
        let weights = pack_with(path, &self.tensors, saved_with::metadata(&self.fields))?;
        Ok((text.into_bytes(), weights))
    }

    /// The inverse of [`AdapterFiles::to_bytes`].
    ///
    /// # Errors
    /// Bytes that are damaged; weights that were saved with another config.
    pub fn from_bytes(config: &[u8], weights: &[u8]) -> Result<Self, AdapterError> {
        let empty = Self::new(Map::new(), Tensors::new());
        let text = std::str::from_utf8(config).map_err(|e| file_error("read", &empty.from, e))?;
        let fields = fields_of(text, &empty.from)?;
        let tensors = unpack(&empty.from, weights)?;
        check_settings(&fields, weights, &empty.from)?;
        Ok(Self {
            fields,
            tensors,
            ..empty
        })
    }

    /// Writes both files into `folder`, creating it if needed.
    ///
    /// A full disk, a kill or a power loss leaves the adapter that was there or the new one. Where it came while the files
    /// were replaced, the new ones are in a folder beside their places: they are read from there, and the next call puts them
    /// in their places. Other programs find no config until then.
    ///
    /// # Errors
    /// A folder or file that cannot be written.
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<(), AdapterError> {
        let folder = folder.as_ref();
        let put = self.staged(folder, &[])?.put(Some(CONFIG_FILE));
        put.map_err(|e| file_error("write", folder, e))
    }

    /// [`AdapterFiles::write`] with further files of the adapter, given as pairs of name and content, as a result of the
    /// program `maker`, whose mark is left beside them (`.made-by`). Files of its earlier result there that this one has not
    /// are removed; other files stay.
    ///
    /// # Errors
    /// As [`AdapterFiles::write`]; a file in the place of one of these that is not of an earlier result of `maker`.
    pub fn write_as(
        &self,
        maker: &str,
        folder: impl AsRef<Path>,
        beside: &[(&str, &[u8])],
    ) -> Result<(), AdapterError> {
        let folder = folder.as_ref();
        let put = self.staged(folder, beside)?.put_as(maker, Some(CONFIG_FILE));
        put.map_err(|e| file_error("write", folder, e))
    }

    /// Both files and those `beside` them, still to be put into `folder`.
    fn staged(&self, folder: &Path, beside: &[(&str, &[u8])]) -> Result<files::Staging, AdapterError> {
        let failed = |path: &Path, error: std::io::Error| file_error("write", path, error);
        let (config, weights) = self.packed(&folder.join(WEIGHTS_FILE))?;
        let staging = files::Staging::new(folder).map_err(|e| failed(folder, e))?;
        let own = [(WEIGHTS_FILE, weights.as_slice()), (CONFIG_FILE, config.as_slice())];
        for (name, bytes) in own.iter().chain(beside) {
            files::replace(&staging.path().join(name), bytes).map_err(|e| failed(&folder.join(name), e))?;
        }
        Ok(staging)
    }

    /// The same adapter with modules renamed. `rename` is called with every name in the config (a name, the end of a name,
    /// or a pattern) and with the key of every tensor without `base_model.model.`, such as
    /// `layers.0.self_attn.q_proj.lora_A.weight`. The pattern of a group that WeGeFT shares across layers is passed as the
    /// name of the module in layer 0.
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

    /// [`AdapterFiles::attach`] for an adapter whose method may also be one of `own`, given as pairs of `peft_type` and
    /// reader.
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
