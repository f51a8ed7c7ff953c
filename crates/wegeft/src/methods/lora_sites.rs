//! LoRA on weights other than matrices, as in PEFT:
//!
//! - an embedding `[vocabulary, d]`: `E' = E + s·(B A)ᵀ`, A `[r, vocabulary]` of zeros, B `[d, r]` normal;
//! - a convolution `[out, in, ..]`: A is a convolution to r channels with the same kernel, B one with kernel 1, so that the
//!   residual of the kernel is `s·B A`. The convolution has one group: of several, PEFT divides B and A among them;
//! - experts `[experts, d_in, d_out]`: a pair for each expert, A `[experts·r, d_in]` and B `[d_out, r·experts]`.
//!
//! `lora_dropout` acts on the inputs of A: on input channels, with one mask per forward pass. As in PEFT, it does not act on
//! embeddings, which read no activations.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::lora_init::LoraInit;
use crate::edit::Edit;
use crate::factors::{Factors, Init, Spec};
use crate::group::Group;
use crate::lazy::Lazy;
use crate::site::SiteKind;
use crate::tensor::{cast, dropped};

/// The specs of A and B at a site that is not a matrix.
pub(super) fn specs(group: &Group, init: LoraInit) -> (Spec, Spec) {
    let (site, r) = (group.site(), group.rank);
    let uniform = match init {
        LoraInit::Gaussian => Init::Normal(1.0 / r as f64),
        _ => Init::Uniform(1.0 / (site.d_in as f64).sqrt()),
    };
    match site.kind {
        SiteKind::Embedding => (
            Spec::new("a", "lora_embedding_A", [r, site.d_in]),
            Spec::new("b", "lora_embedding_B", [site.d_out, r]).with_init(Init::Normal(1.0)),
        ),
        SiteKind::Experts => {
            let experts = site.shape[0];
            (
                Spec::new("a", "lora_A.weight", [experts * r, site.d_in]).with_init(uniform),
                Spec::new("b", "lora_B.weight", [site.d_out, r * experts]),
            )
        }
        _ => {
            let (mut a, mut b) = (site.shape.clone(), vec![1; site.shape.len()]);
            a[0] = r;
            (b[0], b[1]) = (site.d_out, r);
            (
                Spec::new("a", "lora_A.weight", a).with_init(uniform),
                Spec::new("b", "lora_B.weight", b),
            )
        }
    }
}

/// The edit of a convolution or of experts.
pub(super) fn bind(group: &Group, factors: &Factors, dropout: f64, out_bias: Option<Lazy<Tensor<1>>>) -> Arc<dyn Edit> {
    let (site, r) = (group.site(), group.rank);
    let scale = group.scale;
    if site.kind == SiteKind::Experts {
        let experts = site.shape[0];
        return Arc::new(BoundExperts {
            a: factors.matrix("a").reshape([experts, r, site.d_in]),
            b: factors.matrix("b").reshape([site.d_out, r, experts]).permute([2, 1, 0]),
            scale,
            dropout,
        });
    }
    let (channels, kernel) = (site.shape[1], site.shape[2..].iter().product());
    let (a, b): (Tensor<3>, Tensor<2>) = match site.shape.len() {
        3 => (factors.get("a"), factors.get::<3>("b").reshape([site.d_out, r])),
        _ => (
            factors.get::<4>("a").reshape([r, channels, kernel]),
            factors.get::<4>("b").reshape([site.d_out, r]),
        ),
    };
    Arc::new(BoundConv {
        a,
        b,
        scale,
        dropout,
        out_bias,
    })
}

/// (A, B) of a convolution.
#[derive(Debug)]
struct BoundConv {
    /// `[r, channels_in, kernel]`
    a: Tensor<3>,
    /// `[channels_out, r]`
    b: Tensor<2>,
    scale: f64,
    dropout: f64,
    /// `[channels_out]`
    out_bias: Option<Lazy<Tensor<1>>>,
}

impl BoundConv {
    fn residual_of(&self, a: Tensor<3>, weight: Tensor<2>) -> Tensor<2> {
        let [r, channels, kernel] = a.dims();
        let residual = self
            .b
            .clone()
            .mul_scalar(self.scale)
            .matmul(a.reshape([r, channels * kernel]));
        cast(residual, weight.dtype())
    }
}

impl Edit for BoundConv {
    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        self.residual_of(self.a.clone(), weight)
    }

    fn residual_in_training(&self, weight: Tensor<2>) -> Tensor<2> {
        let [_, channels, _] = self.a.dims();
        let mask = Tensor::ones([1, channels, 1], (&self.a.device(), self.a.dtype()));
        self.residual_of(self.a.clone() * dropped(mask, self.dropout), weight)
    }

    fn bias(&self, bias: Tensor<1>) -> Tensor<1> {
        match &self.out_bias {
            Some(change) => bias.clone() + cast(Tensor::clone(change), bias.dtype()),
            None => bias,
        }
    }

    fn unmerged_bias(&self, merged: Tensor<1>) -> Option<Tensor<1>> {
        let change = self.bias(merged.zeros_like());
        Some(merged - change)
    }

    fn unmerged(&self, merged: Tensor<2>) -> Option<Tensor<2>> {
        Some(merged.clone() - self.residual(merged))
    }
}

/// (A, B) of each expert.
#[derive(Debug)]
struct BoundExperts {
    /// `[experts, r, d_in]`
    a: Tensor<3>,
    /// `[experts, r, d_out]`
    b: Tensor<3>,
    scale: f64,
    dropout: f64,
}

impl BoundExperts {
    fn residual_of(&self, a: Tensor<3>, weight: Tensor<2>) -> Tensor<2> {
        let shape = weight.dims();
        let residual = a.transpose().matmul(self.b.clone().mul_scalar(self.scale));
        cast(residual.reshape(shape), weight.dtype())
    }
}

impl Edit for BoundExperts {
    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        self.residual_of(self.a.clone(), weight)
    }

    fn residual_in_training(&self, weight: Tensor<2>) -> Tensor<2> {
        let [_, _, d_in] = self.a.dims();
        let mask = Tensor::ones([1, 1, d_in], (&self.a.device(), self.a.dtype()));
        self.residual_of(self.a.clone() * dropped(mask, self.dropout), weight)
    }

    fn unmerged(&self, merged: Tensor<2>) -> Option<Tensor<2>> {
        Some(merged.clone() - self.residual(merged))
    }
}
