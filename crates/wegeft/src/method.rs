//! A fine-tuning method: where it acts, which factors it has there, and what they do.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use burn::tensor::Device;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::checkpoint::{Names, Tensors};
use crate::edit::Edit;
use crate::error::AdapterError;
use crate::factors::{Factors, Spec};
use crate::group::Group;
use crate::site::{ParamInfo, Places, Site, SiteKind};
use crate::targets::{TargetField, Targets};
use crate::weights::Weights;

/// A fine-tuning method: its settings and everything the rest of the library needs to know about it. Implement it to use a
/// method of your own with [`AdapterConfig::new`](crate::AdapterConfig::new), as every method of this crate does in a
/// single file.
///
/// ```
/// use std::sync::Arc;
///
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use serde::{Deserialize, Serialize};
/// use serde_json::{Map, Value};
/// use wegeft::{Adapted, AdapterConfig, Edit, Factors, Group, Init, Method, Spec, read, read_config_with, settings};
///
/// /// Scales each output of a layer by a learned factor.
/// #[derive(Debug, Clone, Serialize, Deserialize)]
/// struct Gain {
///     start: f64,
/// }
///
/// impl Method for Gain {
///     fn name(&self) -> &'static str {
///         "GAIN"
///     }
///     fn settings(&self) -> Map<String, Value> {
///         settings(self)
///     }
///     fn specs(&self, group: &Group) -> Vec<Spec> {
///         let gain = Spec::new("gain", "gain", [group.site().d_out]);
///         vec![gain.with_init(Init::Full(self.start))]
///     }
///     fn bind(&self, _group: &Group, factors: &Factors) -> Arc<dyn Edit> {
///         Arc::new(Scaled { gain: factors.vector("gain") })
///     }
/// }
///
/// #[derive(Debug)]
/// struct Scaled {
///     gain: Tensor<1>,
/// }
///
/// impl Edit for Scaled {
///     fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
///         weight * self.gain.clone().sub_scalar(1.0).unsqueeze::<2>()
///     }
/// }
///
/// #[derive(burn::module::Module, Debug)]
/// struct Model {
///     proj: Linear,
/// }
///
/// let device = Device::flex().autodiff();
/// let model = Model { proj: LinearConfig::new(4, 3).init(&device) };
/// let adapted = AdapterConfig::new(Gain { start: 1.5 }).with_target_modules(["proj"]).init(model.clone())?;
/// assert_eq!(adapted.summary().adapter_params, 3);
/// # let folder = std::env::temp_dir().join(format!("wegeft-own-method-{}", std::process::id()));
/// adapted.save(&folder)?;
/// // Folders can hold the methods of this crate and those listed here.
/// let config = read_config_with(&folder, &[("GAIN", read::<Gain>)])?;
/// let loaded = config.load(model, &folder)?;
/// let x = Tensor::<2>::ones([2, 4], &device);
/// let (a, b) = (adapted.bind().proj.forward(x.clone()), loaded.merge()?.proj.forward(x));
/// # a.into_data().assert_approx_eq::<f32>(&b.into_data(), burn::tensor::Tolerance::absolute(1e-6));
/// # std::fs::remove_dir_all(folder).ok();
/// # Ok::<(), wegeft::AdapterError>(())
/// ```
pub trait Method: Any + fmt::Debug + Send + Sync {
    /// The method's name on disk: `peft_type` of adapter_config.json.
    fn name(&self) -> &'static str;

    /// Its settings as fields of adapter_config.json: [`settings`] of a serializable struct with named fields, none of
    /// which has the name of a field of [`Targets`]. A fresh adapter with other settings is refused.
    fn settings(&self) -> Map<String, Value>;

    /// The sites that `targets` selects among a model's places; rank-2 weights by default.
    ///
    /// # Errors
    /// Targets that select nothing that the method can act on.
    fn sites(&self, places: &Places, targets: &Targets) -> Result<Vec<Site>, AdapterError> {
        targets.weights(places)
    }

    /// The fields of the targets that [`Method::sites`] reads; by default those that select weights. A fresh adapter is
    /// refused if another [`TargetField`] is set, which would have no effect.
    fn reads(&self) -> &'static [TargetField] {
        TargetField::OF_WEIGHTS
    }

    /// True if the method can act on sites of that kind; targets of other kinds are refused by name.
    fn takes(&self, kind: SiteKind) -> bool {
        !matches!(kind, SiteKind::Conv | SiteKind::Experts)
    }

    /// Sorts the sites into groups that share factors; by default each site is its own group. Refuses sites and settings
    /// that the method does not support.
    ///
    /// # Errors
    /// Such a site or setting.
    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        Ok(Group::each(sites))
    }

    /// The factors of a group.
    fn specs(&self, _group: &Group) -> Vec<Spec> {
        Vec::new()
    }

    /// The initial factors of a group: drawn as their specs say, unless a method starts from the weights.
    ///
    /// # Errors
    /// Weights that the method cannot start from.
    fn start(&self, group: &Group, _weights: &Weights, device: &Device) -> Result<Factors, AdapterError> {
        Ok(Factors::draw(self.specs(group), device))
    }

    /// Factors that all groups share; [`Method::bind`] gets them along with each group's own. Their keys on disk are
    /// `base_model.<suffix>`.
    fn shared(&self, _groups: &[Group], _device: &Device) -> Factors {
        Factors::default()
    }

    /// What a forward pass does at the sites of a group. It takes handles to the factors and copies nothing.
    fn bind(&self, group: &Group, factors: &Factors) -> Arc<dyn Edit>;

    /// True if the biases of the group's layers are edited as well.
    fn edits_bias(&self, _group: &Group) -> bool {
        false
    }

    /// True if the method trains this parameter of the model itself, in full.
    fn trains(&self, _param: &ParamInfo) -> bool {
        false
    }

    /// Number of trainable parameters on `sites`, computed from their shapes: [`Summary`](crate::Summary)'s
    /// `adapter_params`.
    ///
    /// # Errors
    /// Settings or sites that the method does not support.
    fn params_of(&self, sites: &[Site]) -> Result<usize, AdapterError> {
        let groups = self.groups(sites)?;
        let specs = groups.iter().flat_map(|group| self.specs(group));
        Ok(specs.map(|spec| spec.trained_len()).sum())
    }

    /// Refuses settings that are supported only for adapters that are loaded.
    ///
    /// # Errors
    /// Such a setting.
    fn check_fresh(&self) -> Result<(), AdapterError> {
        Ok(())
    }

    /// True if the adapter can be merged into the weights. Methods that edit activations cannot.
    fn merges(&self) -> bool {
        true
    }

    /// True if every residual is a low-rank product, so that
    /// [`Adapted::export_lora`](crate::Adapted::export_lora) can write the adapter as standard LoRA.
    fn has_lora_form(&self) -> bool {
        false
    }

    /// True if each row of a batch can use an adapter of its own with this method
    /// ([`Adapters::bind_rows`](crate::Adapters::bind_rows)): it edits nothing outside linear layers.
    fn mixes(&self) -> bool {
        true
    }

    /// The fields of adapter_config.json as they are written. `fields` holds the method's settings, the targets and
    /// everything else; a method can return the fields that another library expects instead.
    fn on_disk(&self, fields: Map<String, Value>, _targets: &Targets, _groups: &[Group]) -> Map<String, Value> {
        fields
    }

    /// Renames and transposes the tensors of another library's file as `names` expects them.
    fn respell(&self, _names: &Names, _tensors: &mut Tensors) {}

    /// The method with the settings under which `tensors` were trained, if the file says otherwise: PEFT may change a
    /// setting at run time and still write the configured one.
    fn as_stored(&self, _tensors: &Tensors) -> Option<Arc<dyn Method>> {
        None
    }
}

/// Serializable settings as JSON fields: those of a struct with named fields. A method whose settings are a number, a text
/// or a list is refused by [`AdapterConfig::init`](crate::AdapterConfig::init), since a file could not hold them.
pub fn settings(settings: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(fields)) => fields,
        Ok(Value::Null) => Map::new(),
        Ok(other) => Map::from_iter([(NO_FIELDS.to_string(), other)]),
        Err(error) => Map::from_iter([(NO_FIELDS.to_string(), Value::from(error.to_string()))]),
    }
}

/// What stands in for the fields of settings that have none.
const NO_FIELDS: &str = "(settings)";

/// Refuses settings that would not survive adapter_config.json: those without fields, and fields that others overwrite
/// there.
///
/// # Errors
/// Such settings.
pub(crate) fn check_settings(method: &dyn Method) -> Result<(), AdapterError> {
    let settings = method.settings();
    if let Some(value) = settings.get(NO_FIELDS) {
        let message = format!(
            "the settings of {} are {value}, which are no fields of adapter_config.json; keep them in a struct with named fields",
            method.name()
        );
        return Err(AdapterError::bad_field("peft_type", message));
    }
    let taken = ["peft_type"].into_iter().chain(Targets::FIELDS);
    match settings.keys().find(|name| taken.clone().any(|other| other == *name)) {
        None => Ok(()),
        Some(name) => {
            let message = format!(
                "is a setting of {}, but adapter_config.json has another field of that name, for every method; rename the setting",
                method.name()
            );
            Err(AdapterError::bad_field(name.clone(), message))
        }
    }
}

/// Reads a method's settings from the fields of adapter_config.json. It may remove fields that only it knows.
pub type Reader = fn(&mut Map<String, Value>) -> serde_json::Result<Arc<dyn Method>>;

/// A [`Reader`] for deserializable settings.
///
/// # Errors
/// A field that is missing or of a wrong type.
pub fn read<M: Method + DeserializeOwned>(fields: &mut Map<String, Value>) -> serde_json::Result<Arc<dyn Method>> {
    // Among other fields, an enum or a struct without fields is read only where it is flattened.
    #[derive(Deserialize)]
    struct Flat<M> {
        #[serde(flatten)]
        method: M,
    }
    // One copy at a time: a file may have many fields that no method reads.
    let method = serde_json::from_value::<M>(Value::Object(fields.clone())).or_else(|error| {
        let flat = serde_json::from_value(Value::Object(fields.clone()));
        flat.map_or(Err(error), |Flat { method }| Ok(method))
    })?;
    Ok(Arc::new(method))
}
