//! IA3 (Infused Adapter by Inhibiting and Amplifying Inner Activations, Liu et al. 2022, arXiv 2205.05638): a
//! learned vector scales what a layer puts out, `y = l ∘ (x W + b)`, or, for feed-forward layers, what it reads,
//! `y = (l ∘ x) W + b`. l starts at 1. In the paper: keys, values, and the second layer of the MLP as feed-forward.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{Edit, Factors, Recipe, cast};
use crate::bank::{Group, own_groups};
use crate::config::{TargetModules, null_as_default};
use crate::error::AdapterError;
use crate::linear::product;
use crate::site::Site;
use crate::weights::Weights;

/// Settings of IA3; names as in PEFT.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Ia3Config {
    /// The targets of which the input is scaled.
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

    fn scales_input(&self, site: &Site) -> bool {
        self.feedforward_modules.matches(&site.module())
    }
}

impl Recipe for Ia3Config {
    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        if !self.feedforward_modules.is_empty() && !sites.iter().any(|site| self.scales_input(site)) {
            let message = "names none of the target_modules; add its modules there too";
            return Err(AdapterError::bad_field("feedforward_modules", message));
        }
        Ok(own_groups(sites))
    }

    fn params(&self, group: &Group) -> usize {
        let site = &group.sites[0];
        if self.scales_input(site) { site.d_in } else { site.d_out }
    }

    fn make(&self, groups: &[Group], _weights: &Weights, device: &Device) -> Result<Vec<Factors>, AdapterError> {
        let factors = groups.iter().map(|group| {
            let site = &group.sites[0];
            let input = self.scales_input(site);
            let shape = if input { [1, site.d_in] } else { [site.d_out, 1] };
            let l = Param::from_tensor(Tensor::ones(shape, device));
            Factors::Ia3(Ia3 { l, input })
        });
        Ok(factors.collect())
    }
}

/// The vector of one site.
#[derive(Module, Debug)]
pub struct Ia3 {
    /// l, `[d_out, 1]`, or `[1, d_in]` for a feed-forward layer: PEFT's shapes.
    pub l: Param<Tensor<2>>,
    input: bool,
}

impl Ia3 {
    pub(crate) fn scales_input(&self) -> bool {
        self.input
    }

    pub(crate) fn bind(&self) -> BoundIa3 {
        let l = self.l.val();
        let length = l.shape().num_elements();
        BoundIa3 {
            l: l.reshape([1, length]),
            input: self.input,
        }
    }
}

/// The vector as a bound site sees it.
#[derive(Module, Debug)]
pub struct BoundIa3 {
    /// `[1, d]`
    l: Tensor<2>,
    input: bool,
}

impl Edit for BoundIa3 {
    fn matmul(&self, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
        let l = cast(self.l.clone(), x.dtype());
        match self.input {
            true => product(x * l, weight),
            false => product(x, weight) * l,
        }
    }

    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        let change = cast(self.l.clone().sub_scalar(1.0), weight.dtype());
        match self.input {
            true => weight * change.transpose(),
            false => weight * change,
        }
    }

    fn bias(&self, bias: Tensor<1>) -> Tensor<1> {
        match self.input {
            true => bias,
            false => {
                let length = bias.dims();
                bias.clone() * cast(self.l.clone().reshape(length), bias.dtype())
            }
        }
    }

    fn unmerged(&self, merged: Tensor<2>) -> Option<Tensor<2>> {
        let l = cast(self.l.clone(), merged.dtype());
        Some(merged / if self.input { l.transpose() } else { l })
    }

    fn unmerged_bias(&self, merged: Tensor<1>) -> Option<Tensor<1>> {
        let length = merged.dims();
        Some(merged.clone() / cast(self.l.clone().reshape(length), merged.dtype()))
    }
}
