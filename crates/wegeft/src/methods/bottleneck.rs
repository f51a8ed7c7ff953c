//! Bottleneck adapters: `h + up(act(down(h)))` on a sublayer's output, before it joins the residual stream.
//!
//! - Houlsby (Houlsby et al. 2019, arXiv 1902.00751): after attention and after the MLP, GELU, weights from
//!   N(0, 0.01²) truncated at two standard deviations, so that training starts near the frozen model; size 64 in the paper;
//! - Pfeiffer (Pfeiffer et al. 2021, arXiv 2005.00247): after the MLP only, ReLU, weights from N(0, 0.02²) as in
//!   its authors' library; size d / 16.
//!
//! Biases start at zero.

use std::sync::Arc;

use burn::tensor::Tensor;
use burn::tensor::activation::{gelu, relu};
use burn::tensor::module::linear;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::edit::Edit;
use crate::error::AdapterError;
use crate::factors::{Factors, Init, Spec};
use crate::group::Group;
use crate::method::{self, Method};
use crate::site::{Places, Site};
use crate::targets::{TargetField, Targets};
use crate::tensor::{cast, for_products};

/// Where the adapters are and how they are initialized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// After attention and after the MLP.
    Houlsby,
    /// After the MLP.
    Pfeiffer,
}

/// Activation of the bottleneck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NonLinearity {
    /// `gelu`
    Gelu,
    /// `relu`
    Relu,
}

/// Settings of bottleneck adapters. `target_modules` names hooks; by default those of the placement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BottleneckConfig {
    /// Where the adapters are.
    pub placement: Placement,
    /// Width between down and up.
    pub bottleneck_size: usize,
    /// Activation between down and up.
    pub non_linearity: NonLinearity,
}

impl BottleneckConfig {
    /// Houlsby's adapters of that width.
    pub fn houlsby(bottleneck_size: usize) -> Self {
        Self {
            placement: Placement::Houlsby,
            bottleneck_size,
            non_linearity: NonLinearity::Gelu,
        }
    }

    /// Pfeiffer's adapters of that width.
    pub fn pfeiffer(bottleneck_size: usize) -> Self {
        Self {
            placement: Placement::Pfeiffer,
            bottleneck_size,
            non_linearity: NonLinearity::Relu,
        }
    }

    /// Sets the activation.
    pub fn with_non_linearity(mut self, non_linearity: NonLinearity) -> Self {
        self.non_linearity = non_linearity;
        self
    }

    fn linear(&self, name: &str, d_in: usize, d_out: usize) -> [Spec; 2] {
        let init = match self.placement {
            Placement::Houlsby => Init::TruncatedNormal(0.01),
            Placement::Pfeiffer => Init::Normal(0.02),
        };
        let spec = |field: &str, shape: Vec<usize>| {
            let name = format!("{name}.{field}");
            Spec::new(name.clone(), format!("adapter_{name}"), shape)
        };
        [
            spec("weight", vec![d_in, d_out]).with_init(init).transposed(),
            spec("bias", vec![d_out]),
        ]
    }
}

impl Method for BottleneckConfig {
    fn name(&self) -> &'static str {
        "BOTTLENECK"
    }

    fn settings(&self) -> Map<String, Value> {
        method::settings(self)
    }

    fn reads(&self) -> &'static [TargetField] {
        TargetField::OF_PLACES
    }

    fn sites(&self, places: &Places, targets: &Targets) -> Result<Vec<Site>, AdapterError> {
        let default: &[&str] = match self.placement {
            Placement::Houlsby => &["attn_out", "mlp_out"],
            Placement::Pfeiffer => &["mlp_out"],
        };
        targets.hooks(places, default)
    }

    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        match self.bottleneck_size {
            0 => Err(AdapterError::bad_field("bottleneck_size", "is 0; set it to 1 or more")),
            _ => Ok(Group::each(sites)),
        }
    }

    fn specs(&self, group: &Group) -> Vec<Spec> {
        let (d, m) = (group.site().d_in, self.bottleneck_size);
        let (down, up) = (self.linear("down", d, m), self.linear("up", m, d));
        down.into_iter().chain(up).collect()
    }

    fn bind(&self, _group: &Group, factors: &Factors) -> Arc<dyn Edit> {
        Arc::new(BoundBottleneck {
            down: factors.matrix("down.weight"),
            down_bias: factors.vector("down.bias"),
            up: factors.matrix("up.weight"),
            up_bias: factors.vector("up.bias"),
            non_linearity: self.non_linearity,
        })
    }

    fn merges(&self) -> bool {
        false
    }
}

/// The edit of a bound hook.
#[derive(Debug)]
struct BoundBottleneck {
    /// `[d, m]`
    down: Tensor<2>,
    down_bias: Tensor<1>,
    /// `[m, d]`
    up: Tensor<2>,
    up_bias: Tensor<1>,
    non_linearity: NonLinearity,
}

impl Edit for BoundBottleneck {
    fn activation(&self, h: Tensor<3>) -> Tensor<3> {
        let read = for_products(h.clone());
        let in_products = read.dtype();
        let through = |x: Tensor<3>, weight: &Tensor<2>, bias: &Tensor<1>| {
            let bias = cast(bias.clone(), in_products);
            linear(x, cast(weight.clone(), in_products), Some(bias))
        };
        let code = through(read, &self.down, &self.down_bias);
        let code = match self.non_linearity {
            NonLinearity::Gelu => gelu(code),
            NonLinearity::Relu => relu(code),
        };
        let change = through(code, &self.up, &self.up_bias);
        h.clone() + cast(change, h.dtype())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AdapterConfig;
    use crate::methods::laws::Case;

    #[test]
    fn keeps_the_laws() {
        Case::new(AdapterConfig::houlsby(3)).starting_within(0.05).check();
        let gelu = BottleneckConfig::pfeiffer(3).with_non_linearity(NonLinearity::Gelu);
        Case::new(AdapterConfig::new(gelu)).starting_within(0.05).check();
        // A nudge may cross ReLU's kink, where no difference is the gradient.
        let relu = BottleneckConfig::houlsby(2).with_non_linearity(NonLinearity::Relu);
        let relu = [
            AdapterConfig::new(relu),
            AdapterConfig::pfeiffer(3).with_modules_to_save(["head"]),
        ];
        for config in relu {
            Case::new(config)
                .starting_within(0.05)
                .with_exact_gradients(&[])
                .check();
        }
    }
}
