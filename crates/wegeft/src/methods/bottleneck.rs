//! Bottleneck adapters: `h + up(act(down(h)))` on what a sublayer puts out, before it joins the residual stream.
//!
//! - Houlsby (Houlsby et al. 2019, arXiv 1902.00751): after attention and after the MLP, GELU, weights of
//!   N(0, 0.01²) cut at two standard deviations, so that the start is near the frozen model; size 64 in the paper;
//! - Pfeiffer (Pfeiffer et al. 2021, arXiv 2005.00247): after the MLP only, ReLU, weights of N(0, 0.02²) as its
//!   authors' library starts them; size d / 16.
//!
//! Biases start at zero.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::{gelu, relu};
use burn::tensor::{Device, Distribution, Tensor};
use serde::{Deserialize, Serialize};

use super::{Edit, Factors, Recipe, cast};
use crate::bank::{Group, own_groups};
use crate::config::Targets;
use crate::error::AdapterError;
use crate::select;
use crate::site::{Places, Site};
use crate::weights::Weights;

/// Where the adapters are and how they start.
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

/// Settings of bottleneck adapters. `target_modules` names hooks; without, those of the placement.
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

    fn linear(&self, d_in: usize, d_out: usize, device: &Device) -> Linear {
        let weight = match self.placement {
            Placement::Houlsby => cut_normal([d_in, d_out], 0.01, device),
            Placement::Pfeiffer => Tensor::random([d_in, d_out], Distribution::Normal(0.0, 0.02), device),
        };
        let mut linear = LinearConfig::new(d_in, d_out).init(device);
        linear.weight = Param::from_tensor(weight);
        linear.bias = Some(Param::from_tensor(Tensor::zeros([d_out], device)));
        linear
    }
}

/// Normal values of deviation `std`, those beyond two of them drawn again.
fn cut_normal(shape: [usize; 2], std: f64, device: &Device) -> Tensor<2> {
    let draw = || Tensor::<2>::random(shape, Distribution::Normal(0.0, std), device);
    let mut values = draw();
    loop {
        let beyond = values.clone().abs().greater_elem(2.0 * std);
        if !beyond.clone().any().into_scalar::<bool>() {
            return values;
        }
        values = values.mask_where(beyond, draw());
    }
}

impl Recipe for BottleneckConfig {
    fn sites(&self, places: &Places, targets: &Targets) -> Result<Vec<Site>, AdapterError> {
        let default: &[&str] = match self.placement {
            Placement::Houlsby => &["attn_out", "mlp_out"],
            Placement::Pfeiffer => &["mlp_out"],
        };
        select::find_hooks(&places.hooks, targets, default)
    }

    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        match self.bottleneck_size {
            0 => Err(AdapterError::bad_field("bottleneck_size", "is 0; set it to 1 or more")),
            _ => Ok(own_groups(sites)),
        }
    }

    fn params(&self, group: &Group) -> usize {
        let (d, m) = (group.sites[0].d_in, self.bottleneck_size);
        2 * d * m + m + d
    }

    fn make(&self, groups: &[Group], _weights: &Weights, device: &Device) -> Result<Vec<Factors>, AdapterError> {
        let factors = groups.iter().map(|group| {
            let (d, m) = (group.sites[0].d_in, self.bottleneck_size);
            Factors::Bottleneck(Bottleneck {
                down: self.linear(d, m, device),
                up: self.linear(m, d, device),
                gelu: self.non_linearity == NonLinearity::Gelu,
            })
        });
        Ok(factors.collect())
    }

    fn merges(&self) -> bool {
        false
    }
}

/// One adapter; bound, it is its own state.
#[derive(Module, Debug)]
pub struct Bottleneck {
    /// `[d, m]`
    pub down: Linear,
    /// `[m, d]`
    pub up: Linear,
    gelu: bool,
}

impl Edit for Bottleneck {
    fn activation(&self, h: Tensor<3>) -> Tensor<3> {
        let code = self.down.forward(cast(h.clone(), self.down.weight.val().dtype()));
        let code = if self.gelu { gelu(code) } else { relu(code) };
        h.clone() + cast(self.up.forward(code), h.dtype())
    }
}
