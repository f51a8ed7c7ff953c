//! Exporting WeGeFT, or any other method with a low-rank residual, as standard LoRA.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use burn::module::{Module, ModuleDisplay, ModuleVisitor, Param};
use burn::tensor::Tensor;
use serde_json::{Map, Value, json};

use crate::adapted::Adapted;
use crate::checkpoint::{PREFIX, Tensors, collect, fill, to_stored};
use crate::config::AdapterConfig;
use crate::edit::Bound;
use crate::error::AdapterError;
use crate::group::Group;
use crate::low_rank::LowRank;
use crate::methods::tokens::layer_of_rows;
use crate::site::{self, Site, SiteKind};
use crate::storage::AdapterFiles;
use crate::tensor::cast;

impl<M: Module + ModuleDisplay> Adapted<M> {
    /// The residual of every adapted weight as low-rank factors, by module: for WeGeFT `B = W·phi`, `A = psi`. Rows of an
    /// embedding that are trained beside the method (`trainable_token_indices`) are no part of it.
    ///
    /// # Errors
    /// A method whose residual is not a low-rank product.
    pub fn low_rank(&self) -> Result<BTreeMap<String, LowRank>, AdapterError> {
        let sites = self.bank().groups().iter().flat_map(|group| &group.sites);
        let mut bound = self.bank().bound();
        // A tied weight is one site with one name.
        for path in sites.flat_map(|site| &site.tied) {
            bound.remove(path);
        }
        let mut collector = Collector {
            path: Vec::new(),
            bound,
            found: BTreeMap::new(),
            refused: None,
        };
        self.backbone().visit(&mut collector);
        match collector.refused {
            None if !collector.found.is_empty() => Ok(collector.found),
            refused => Err(AdapterError::NoLoraForm {
                method: self.config().method.name().to_string(),
                reason: self.no_lora_form(refused.as_deref(), &collector.bound),
                site: refused.unwrap_or_default(),
            }),
        }
    }

    /// Why the edit of the parameter at `path` cannot be written as LoRA, and what to do instead.
    fn no_lora_form(&self, path: Option<&str>, bound: &HashMap<String, Bound>) -> String {
        let Some(path) = path else {
            return "it has no low-rank factors; save it in its own format".to_string();
        };
        let method = &self.config().method;
        let layer = site::layer(path);
        let at = |group: &&Group| group.sites.iter().any(|site| site::layer(&site.path) == layer);
        let group = self.bank().groups().iter().find(at);
        let kind = group.map(|group| group.site().kind);
        if let Some(kind @ (SiteKind::Conv | SiteKind::Experts)) = kind {
            return format!("'{path}' is {kind}, which this export does not write; save it in its own format");
        }
        if bound.get(path).is_some_and(|bound| bound.edit().adds_to_output()) {
            return format!(
                "it adds a bias to '{layer}', a layer without one, which neither LoRA nor a merge can hold; save it in its own format"
            );
        }
        let has_bias = |group: &Group| {
            let mut sites = group.sites.iter().filter(|site| site::layer(&site.path) == layer);
            sites.any(|site| site.has_bias)
        };
        if group.is_some_and(|group| method.edits_bias(group) && has_bias(group)) {
            return format!("it edits the bias of '{layer}' too, which LoRA cannot hold; merge it instead");
        }
        match method.merges() {
            true => format!("the residual of '{path}' is not a low-rank product; merge it instead"),
            false => {
                format!("it edits activations at '{layer}', and cannot be merged either; save it in its own format")
            }
        }
    }

    /// The adapter as standard LoRA (`B = W·phi`, `A = psi` at every site). Exact: the adapted model computes the same
    /// function. Sites whose rank or scale differs from the first site's are listed in `rank_pattern` and
    /// `alpha_pattern`.
    ///
    /// # Errors
    /// A method without a LoRA form.
    pub fn to_lora(&self) -> Result<Self, AdapterError> {
        self.with_lora(&self.low_rank()?)
    }

    /// Writes [`Adapted::to_lora`] into a folder that PEFT, vLLM and llama.cpp can read.
    ///
    /// # Errors
    /// A method without a LoRA form, or a folder that cannot be written.
    pub fn export_lora(&self, folder: impl AsRef<Path>) -> Result<(), AdapterError> {
        self.lora_files()?.write(folder)
    }

    /// What [`Adapted::export_lora`] writes, in memory.
    ///
    /// # Errors
    /// A method without a LoRA form.
    pub fn lora_files(&self) -> Result<AdapterFiles, AdapterError> {
        let factors = self.low_rank()?;
        let mut tensors = self.saved_tensors();
        tensors.extend(self.stored(&factors));
        tensors.extend(self.token_rows());
        Ok(AdapterFiles::new(self.lora_fields(&factors), tensors))
    }

    /// This model with a LoRA adapter of the given factors, by module, in place of its own adapter.
    pub(crate) fn with_lora(&self, factors: &BTreeMap<String, LowRank>) -> Result<Self, AdapterError> {
        let config = serde_json::from_value(Value::Object(self.lora_fields(factors)));
        let mut config: AdapterConfig = config.map_err(|e| AdapterError::bad_field("adapter_config", e.to_string()))?;
        config.extra = self.config().extra.clone();
        // Not `init`: this adapter may come from a file, with fields that a fresh one must not have.
        let adapted = config.adapt(self.backbone().clone())?;
        let mut names = adapted.names();
        names.retain(|path, _| path.starts_with("bank."));
        let mut tensors = adapted.stored(factors);
        tensors.extend(self.token_rows());
        Ok(fill(adapted, &names, &tensors).with_replaced(self.replaced().clone()))
    }

    /// The model's own parameters that are saved with the adapter, under their names on disk.
    fn saved_tensors(&self) -> Tensors {
        self.settle();
        let mut names = self.names();
        names.retain(|path, _| path.starts_with("model."));
        collect(self, &names)
    }

    /// Rows that are trained beside the method, under their names on disk.
    pub(crate) fn token_rows(&self) -> Tensors {
        let mut names = self.names();
        names.retain(|path, (_, name)| path.starts_with("bank.") && layer_of_rows(name).is_some());
        collect(self, &names)
    }

    /// LoRA factors under their names on disk.
    fn stored(&self, factors: &BTreeMap<String, LowRank>) -> Tensors {
        let sites = self.bank().groups().iter().flat_map(|group| &group.sites);
        let tables = sites.filter(|site| site.kind == SiteKind::Embedding);
        let tables: HashSet<String> = tables.map(Site::module).collect();
        let mut tensors = Tensors::new();
        for (module, low) in factors {
            let [a, b] = match tables.contains(module) {
                true => ["lora_embedding_A", "lora_embedding_B"],
                false => ["lora_A.weight", "lora_B.weight"],
            };
            for (name, factor) in [(a, &low.a), (b, &low.b)] {
                tensors.insert(format!("{PREFIX}{module}.{name}"), to_stored(factor.clone(), false));
            }
        }
        tensors
    }

    /// adapter_config.json of a LoRA adapter with those factors.
    fn lora_fields(&self, factors: &BTreeMap<String, LowRank>) -> Map<String, Value> {
        let rank = |low: &LowRank| low.a.dims()[0];
        let alpha = |low: &LowRank| low.scale * rank(low) as f64;
        let (r, a) = factors
            .values()
            .next()
            .map(|low| (rank(low), alpha(low)))
            .unwrap_or_default();
        let (mut ranks, mut alphas) = (Map::new(), Map::new());
        for (module, low) in factors {
            if rank(low) != r {
                ranks.insert(module.clone(), json!(rank(low)));
            }
            if alpha(low) != a {
                alphas.insert(module.clone(), json!(alpha(low)));
            }
        }
        let fields = json!({
            "peft_type": "LORA", "task_type": null, "r": r, "lora_alpha": a, "lora_dropout": 0.0,
            "bias": "none", "fan_in_fan_out": false, "inference_mode": true,
            "target_modules": factors.keys().collect::<Vec<_>>(),
            "rank_pattern": ranks, "alpha_pattern": alphas,
            "modules_to_save": self.config().targets.modules_to_save,
        });
        let mut fields = match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        if let Some(Ok(rows)) = self
            .config()
            .targets
            .trainable_token_indices
            .as_ref()
            .map(serde_json::to_value)
        {
            fields.insert("trainable_token_indices".into(), rows);
        }
        if self.config().targets.ensure_weight_tying {
            fields.insert("ensure_weight_tying".into(), true.into());
        }
        for name in ["base_model_name_or_path", "task_type"] {
            if let Some(value) = self.config().extra.get(name) {
                fields.insert(name.to_string(), value.clone());
            }
        }
        fields
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
        if bound.edit().beside_a_method() {
            return;
        }
        let low_rank = (D == 2).then(|| {
            let weight = param.base();
            let shape = weight.dims();
            bound.edit().low_rank(weight.reshape([shape[0], shape[1]]))
        });
        match low_rank.flatten() {
            Some(low) => {
                let module = path.strip_suffix(".weight").unwrap_or(&path).to_string();
                // The file has the factors' dtype, whatever the backbone's is.
                let dtype = low.a.dtype();
                let b = cast(low.b, dtype);
                self.found.insert(module, LowRank { b, ..low });
            }
            None => drop(self.refused.get_or_insert(path)),
        }
    }
}
