//! IA3 (Infused Adapter by Inhibiting and Amplifying Inner Activations, Liu et al. 2022, arXiv 2205.05638): a
//! learned vector scales a layer's output, `y = l ∘ (x W + b)`, or, for feed-forward layers, its input,
//! `y = (l ∘ x) W + b`. l starts at 1. In the paper: keys, values, and the second layer of the MLP as feed-forward.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::edit::Edit;
use crate::error::AdapterError;
use crate::factors::{Factors, Init, Spec};
use crate::group::Group;
use crate::json::null_as_default;
use crate::method::{self, Method};
use crate::site::Site;
use crate::targets::TargetModules;
use crate::tensor::{affine, cast, product, with_rest};

/// Settings of IA3; names as in PEFT.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Ia3Config {
    /// The targets whose input is scaled instead of the output.
    #[serde(default, deserialize_with = "null_as_default")]
    pub feedforward_modules: TargetModules,
}

impl Ia3Config {
    /// The targets of the given names are feed-forward layers.
    pub fn new<S: Into<String>>(feedforward_modules: impl IntoIterator<Item = S>) -> Self {
        Self {
            feedforward_modules: TargetModules::Names(feedforward_modules.into_iter().map(Into::into).collect()),
        }
    }
}

impl Method for Ia3Config {
    fn name(&self) -> &'static str {
        "IA3"
    }

    fn settings(&self) -> Map<String, Value> {
        method::settings(self)
    }

    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        let feedforward = self.feedforward_modules.matcher()?;
        let mut named = self.feedforward_modules.is_empty();
        for site in sites {
            named |= feedforward.matches(&site.module())?;
        }
        if !named {
            let message = "names modules that are not among the target_modules; add them there";
            return Err(AdapterError::bad_field("feedforward_modules", message));
        }
        Ok(Group::each(sites))
    }

    /// l `[d_out, 1]`, or `[1, d_in]` for a feed-forward layer: PEFT's shapes.
    fn specs(&self, group: &Group) -> Vec<Spec> {
        let site = group.site();
        let feedforward = self.feedforward_modules.matcher();
        let spec = match feedforward.and_then(|names| names.matches(&site.module())) {
            Ok(true) => Spec::new(INPUT, "ia3_l", [1, site.d_in]),
            _ => Spec::new(OUTPUT, "ia3_l", [site.d_out, 1]),
        };
        vec![spec.with_init(Init::Ones)]
    }

    fn bind(&self, _group: &Group, factors: &Factors) -> Arc<dyn Edit> {
        let input = factors.contains(INPUT);
        Arc::new(BoundIa3 {
            l: factors.matrix(if input { INPUT } else { OUTPUT }),
            input,
            row: OnceLock::new(),
        })
    }

    fn edits_bias(&self, group: &Group) -> bool {
        self.specs(group).iter().any(|spec| spec.name == OUTPUT)
    }
}

/// Name of l if it scales the layer's input, and if it scales its output.
const INPUT: &str = "l_input";
const OUTPUT: &str = "l_output";

/// The edit of a bound site.
#[derive(Debug)]
struct BoundIa3 {
    l: Tensor<2>,
    input: bool,
    /// l as `[1, d]`, once it has been read.
    row: OnceLock<Tensor<2>>,
}

impl BoundIa3 {
    fn row(&self) -> Tensor<2> {
        let row = || self.l.clone().reshape([1, self.l.shape().num_elements()]);
        self.row.get_or_init(row).clone()
    }
}

impl Edit for BoundIa3 {
    fn affine(
        &self,
        x: Tensor<2>,
        weight: Tensor<2>,
        bias: Option<Tensor<1>>,
        residual: Option<Tensor<2>>,
    ) -> Tensor<2> {
        let l = cast(self.row(), x.dtype());
        match self.input {
            true => affine(x * l, weight, bias, residual),
            false => with_rest(product(x, weight) * l, bias, residual),
        }
    }

    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        let change = cast(self.row().sub_scalar(1.0), weight.dtype());
        match self.input {
            true => weight * change.transpose(),
            false => weight * change,
        }
    }

    fn rows(&self, ids: Tensor<1, Int>, weight: Tensor<2>) -> Tensor<2> {
        let rows = weight.select(0, ids.clone());
        let l = cast(self.row(), rows.dtype());
        match self.input {
            // The inputs of a table are its tokens.
            true => rows * l.transpose().select(0, ids),
            false => rows * l,
        }
    }

    fn bias(&self, bias: Tensor<1>) -> Tensor<1> {
        match self.input {
            true => bias,
            false => {
                let length = bias.dims();
                bias.clone() * cast(self.row().reshape(length), bias.dtype())
            }
        }
    }

    fn unmerged(&self, merged: Tensor<2>) -> Option<Tensor<2>> {
        let l = cast(self.row(), merged.dtype());
        Some(merged / if self.input { l.transpose() } else { l })
    }

    fn unmerged_bias(&self, merged: Tensor<1>) -> Option<Tensor<1>> {
        let length = merged.dims();
        Some(merged.clone() / cast(self.row().reshape(length), merged.dtype()))
    }
}

#[cfg(test)]
mod tests {
    use crate::methods::laws::Case;
    use crate::{AdapterConfig, Fused};

    const TARGETS: [&str; 3] = ["proj", "up", "down"];

    #[test]
    fn keeps_the_laws() {
        Case::new(AdapterConfig::ia3(["down"]).with_target_modules(TARGETS)).check();
        let fused = Fused {
            module: "up".into(),
            blocks: vec!["gate".into(), "value".into()],
            widths: Vec::new(),
            adapt: vec!["value".into()],
        };
        let fused = AdapterConfig::ia3([""; 0]).with_fused(fused);
        Case::new(fused.with_target_modules(["up"])).check();
    }
}
