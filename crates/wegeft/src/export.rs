//! A WeGeFT adapter, or any other with a low-rank residual, as a standard LoRA adapter.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::module::{Module, ModuleDisplay, ModuleVisitor, Param};
use burn::tensor::Tensor;
use serde_json::{Map, Value, json};

use crate::adapted::Adapted;
use crate::error::AdapterError;
use crate::methods::low_rank::LowRank;
use crate::methods::{Bound, cast};
use crate::storage::{PREFIX, Tensors, collect, to_stored, write_adapter};

impl<M: Module + ModuleDisplay> Adapted<M> {
    /// The residual of every adapted weight as low-rank factors, by module: for WeGeFT `B = W·phi`, `A = psi`.
    ///
    /// # Errors
    /// A method whose residual is not low-rank.
    pub fn low_rank(&self) -> Result<BTreeMap<String, LowRank>, AdapterError> {
        let mut collector = Collector {
            path: Vec::new(),
            bound: self.bank().bound(),
            found: BTreeMap::new(),
            refused: None,
        };
        self.model().visit(&mut collector);
        match collector.refused {
            None if !collector.found.is_empty() => Ok(collector.found),
            refused => {
                let site = refused.map_or(String::new(), |path| format!(" at '{path}'"));
                let message = format!("this adapter has no LoRA form{site}; merge it instead");
                Err(AdapterError::bad_field("peft_type", message))
            }
        }
    }

    /// Writes the adapter as standard LoRA (`B = W·phi`, `A = psi` at every site): what PEFT, vLLM and llama.cpp
    /// serve. Exact wherever the residual is low-rank. Sites whose rank or scale differs from the first one's are
    /// listed in `rank_pattern` and `alpha_pattern`.
    ///
    /// # Errors
    /// A method without a LoRA form, or a folder that cannot be written.
    pub fn export_lora(&self, folder: impl AsRef<Path>) -> Result<(), AdapterError> {
        let factors = self.low_rank()?;
        let rank = |low: &LowRank| low.a.dims()[0];
        let alpha = |low: &LowRank| low.scale * rank(low) as f64;
        let (mut ranks, mut alphas) = (Map::new(), Map::new());
        let mut first = None;
        let mut names = self.names();
        names.retain(|path, _| path.starts_with("model."));
        let mut tensors: Tensors = collect(self, &names);
        for (module, low) in &factors {
            let (r, a) = *first.get_or_insert((rank(low), alpha(low)));
            if rank(low) != r {
                ranks.insert(module.clone(), json!(rank(low)));
            }
            if alpha(low) != a {
                alphas.insert(module.clone(), json!(alpha(low)));
            }
            tensors.insert(
                format!("{PREFIX}{module}.lora_A.weight"),
                to_stored(low.a.clone(), false),
            );
            tensors.insert(
                format!("{PREFIX}{module}.lora_B.weight"),
                to_stored(low.b.clone(), false),
            );
        }
        let (r, alpha) = first.unwrap_or_default();
        let config = json!({
            "peft_type": "LORA", "task_type": null, "r": r, "lora_alpha": alpha, "lora_dropout": 0.0,
            "bias": "none", "fan_in_fan_out": false, "inference_mode": true,
            "target_modules": factors.keys().collect::<Vec<_>>(),
            "rank_pattern": ranks, "alpha_pattern": alphas,
            "modules_to_save": self.config().targets.modules_to_save,
        });
        let Value::Object(mut config) = config else {
            unreachable!("written as an object above")
        };
        for name in ["base_model_name_or_path", "task_type"] {
            if let Some(value) = self.config().extra.get(name) {
                config.insert(name.to_string(), value.clone());
            }
        }
        write_adapter(folder.as_ref(), config, &tensors)
    }
}

struct Collector {
    path: Vec<String>,
    bound: HashMap<String, Bound>,
    found: BTreeMap<String, LowRank>,
    refused: Option<String>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let Some(bound) = self.bound.get(&path) else { return };
        let low_rank = (D == 2).then(|| {
            let weight = param.base();
            let shape = weight.dims();
            bound.edit().low_rank(weight.reshape([shape[0], shape[1]]))
        });
        match low_rank.flatten() {
            Some(low) => {
                let module = path.strip_suffix(".weight").unwrap_or(&path).to_string();
                // Whatever the backbone's type, the file holds the factors' own.
                let dtype = low.a.dtype();
                let b = cast(low.b, dtype);
                self.found.insert(module, LowRank { b, ..low });
            }
            None => self.refused = Some(path),
        }
    }
}
