//! A bias or a norm's scale that is trained in full: the factor of BitFit and of LayerNorm tuning. The bank holds
//! the trained copy and the backbone's own vector is unchanged, so that adapters can share the backbone.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};

use crate::edit::Edit;
use crate::factors::{Factors, Spec};
use crate::group::Group;
use crate::tensor::cast;
use crate::weights::Weights;

/// The vector that replaces the model's, `[d]`. `prefix` precedes its name on disk.
pub(super) fn spec(group: &Group, prefix: &str) -> Spec {
    let site = group.site();
    let field = match site.path.rsplit('.').next() {
        Some("gamma" | "weight") => "weight",
        _ => "bias",
    };
    Spec::new("value", format!("{prefix}{field}"), [site.d_out])
}

/// A copy of the model's vector.
pub(super) fn start(spec: Spec, group: &Group, weights: &Weights, device: &Device) -> Factors {
    let value = Tensor::<1>::from_data(weights.vector(group.site()).into_data(), device);
    Factors::draw(vec![spec], device).with("value", value)
}

pub(super) fn bind(factors: &Factors) -> Arc<dyn Edit> {
    Arc::new(BoundVector {
        value: factors.vector("value"),
    })
}

/// The edit of a bound site.
#[derive(Debug)]
struct BoundVector {
    value: Tensor<1>,
}

impl Edit for BoundVector {
    fn bias(&self, bias: Tensor<1>) -> Tensor<1> {
        cast(self.value.clone(), bias.dtype())
    }
}
