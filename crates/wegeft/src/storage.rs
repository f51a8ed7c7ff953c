//! Adapters on disk: `adapter_config.json` and `adapter_model.safetensors`, Hugging Face PEFT's layout.
//!
//! Keys are PEFT's: `base_model.model.<module>.lora_A.weight` and, for modules trained in full,
//! `base_model.model.<parameter>`. A shared (phi, psi) is stored once, under the group's first site, as the WeGeFT
//! fork of PEFT does: `base_model.model.<module>.wegeft_phi.weight` and `wegeft_psi.weight`, both `[r, d]`. (The fork
//! keeps both as linear layers d -> r and then uses phi transposed on the input side only; here phi is transposed on
//! both sides, as the formula has it.) Methods that PEFT does
//! not have follow the same pattern, such as `base_model.model.<hook>.adapter_down.weight`. Matrices have PyTorch's
//! orientation.

use std::path::Path;

use burn::module::{Module, ModuleDisplay};

use crate::adapted::Adapted;
use crate::checkpoint::file_error;
use crate::config::AdapterConfig;
use crate::error::AdapterError;
use crate::foreign;
use crate::statistics;

pub use crate::adapter_files::AdapterFiles;
pub use crate::adapter_folder::{CONFIG_FILE, PICKLED_FILE, WEIGHTS_FILE, read_config, read_config_with, read_weights};
pub use crate::checkpoint::{
    LONGEST_HEADER, Names, PREFIX, Stored, Tensors, check_header, check_shape, collect, fill, problems, read_tensors,
    write_tensors, write_then_rename,
};
pub use crate::saved_with::header;

impl<M: Module + ModuleDisplay> Adapted<M> {
    /// Writes the trained part into `folder`, creating it if needed. Killed at any moment, it leaves the adapter that was
    /// there or the new one (see [`AdapterFiles::write`]).
    ///
    /// # Errors
    /// A folder or file that cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<(), AdapterError> {
        self.files().write(folder)
    }

    /// What [`Adapted::save`] writes, in memory.
    pub fn files(&self) -> AdapterFiles {
        self.settle();
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
        if let Some((name, _)) = found.iter().find(|(_, stored)| !stored.is_finite()) {
            let message =
                format!("'{name}' has NaN or infinite elements; train the adapter again, or take another one");
            return Err(file_error("read", path, message));
        }
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
        // An update that is still to come would replace what is loaded.
        self.settle();
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
