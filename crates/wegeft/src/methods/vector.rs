//! A bias or a norm's scale that is trained in full: the factor of BitFit and of LayerNorm tuning. The bank holds
//! the trained copy, and the backbone's own vector stays as it is, so that adapters can share the backbone.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::{Edit, Factors, cast};
use crate::bank::Group;
use crate::site::Site;
use crate::weights::Weights;

/// The vector in place of one of the model's.
#[derive(Module, Debug)]
pub struct Vector {
    /// `[d]`
    pub value: Param<Tensor<1>>,
    norm: bool,
}

impl Vector {
    /// One factor a group, each a copy of the model's vector. `norm`: named on disk as PEFT names tuned norms.
    pub(crate) fn copies(groups: &[Group], weights: &Weights, norm: bool, device: &Device) -> Vec<Factors> {
        let copy = |group: &Group| {
            let value = Tensor::from_data(weights.vector(&group.sites[0]).into_data(), device);
            let value = Param::from_tensor(value);
            Factors::Vector(Self { value, norm })
        };
        groups.iter().map(copy).collect()
    }

    pub(crate) fn bind(&self) -> BoundVector {
        BoundVector {
            value: self.value.val(),
        }
    }

    pub(crate) fn name_on_disk(&self, site: &Site) -> String {
        let field = if site.path.ends_with(".gamma") {
            "weight"
        } else {
            "bias"
        };
        let tuned = if self.norm { "ln_tuning_layers." } else { "" };
        format!("{}.{tuned}{field}", site.module())
    }
}

/// The vector as a bound site sees it.
#[derive(Module, Debug)]
pub struct BoundVector {
    value: Tensor<1>,
}

impl Edit for BoundVector {
    fn bias(&self, bias: Tensor<1>) -> Tensor<1> {
        cast(self.value.clone(), bias.dtype())
    }
}
