//! What LoRA and DoRA do to a matrix in a forward pass.

use burn::tensor::Tensor;

use super::dora::BoundDora;
use crate::edit::Edit;
use crate::factors::Factors;
use crate::lazy::Lazy;
use crate::low_rank::LowRank;
use crate::tensor::{affine, cast, dropped, dropped_inputs, product, with_rest};

/// `s·B A`, or `s·(B A − B₀ A₀)` of twice the rank; nothing is computed before the call.
pub(super) fn residual(factors: &Factors, scale: f64) -> impl FnOnce() -> LowRank + Send + 'static {
    let (a, b) = (factors.matrix("a"), factors.matrix("b"));
    let initial = factors.contains("initial_a");
    let initial = initial.then(|| (factors.matrix("initial_a"), factors.matrix("minus_initial_b")));
    move || match initial {
        Some((initial_a, minus_initial_b)) => LowRank {
            a: Tensor::cat(vec![a, initial_a], 0),
            b: Tensor::cat(vec![b, minus_initial_b], 1),
            scale,
        },
        None => LowRank { a, b, scale },
    }
}

/// The edit of a bound site.
#[derive(Debug)]
pub(super) struct BoundLora {
    pub(super) residual: Lazy<LowRank>,
    pub(super) dora: Option<BoundDora>,
    pub(super) reads_weight: bool,
    pub(super) dropout: f64,
    /// What is added to the output, `[d_out]`, scale included.
    pub(super) out_bias: Option<Lazy<Tensor<1>>>,
    /// The layer's name, if it has no bias that could take it.
    pub(super) without_bias: Option<String>,
}

impl BoundLora {
    /// What is added to the output of a layer that has no bias.
    fn own_bias(&self) -> Option<Tensor<1>> {
        let bias = self.out_bias.as_ref().filter(|_| self.without_bias.is_some());
        bias.map(|bias| Tensor::clone(bias))
    }

    fn factors(&self) -> LowRank {
        LowRank::clone(&self.residual)
    }

    /// `residual`, that of (A, B), with DoRA's magnitudes if there are any.
    fn scaled(&self, weight: Tensor<2>, residual: Tensor<2>) -> Tensor<2> {
        match &self.dora {
            Some(dora) => {
                let factor = cast(dora.factor(weight.clone(), self.factors()), weight.dtype());
                (weight.clone() + residual) * factor - weight
            }
            None => residual,
        }
    }
}

impl Edit for BoundLora {
    fn affine(
        &self,
        x: Tensor<2>,
        weight: Tensor<2>,
        bias: Option<Tensor<1>>,
        residual: Option<Tensor<2>>,
    ) -> Tensor<2> {
        let update = self.factors().forward(dropped(x.clone(), self.dropout));
        if let Some(dora) = &self.dora {
            let out = product(x, weight.clone()) + update;
            let factor = cast(dora.factor(weight, self.factors()), out.dtype());
            return with_rest(out * factor, bias, residual);
        }
        affine(x, weight, bias, Some(with_rest(update, self.own_bias(), residual)))
    }

    fn bias(&self, bias: Tensor<1>) -> Tensor<1> {
        match &self.out_bias {
            Some(change) if self.without_bias.is_none() => bias.clone() + cast(Tensor::clone(change), bias.dtype()),
            _ => bias,
        }
    }

    fn adds_to_output(&self) -> bool {
        self.without_bias.is_some()
    }

    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        let residual = cast(self.factors().dense(), weight.dtype());
        self.scaled(weight, residual)
    }

    fn residual_in_training(&self, weight: Tensor<2>) -> Tensor<2> {
        if let Some(layer) = &self.without_bias {
            panic!(
                "lora_bias adds a bias to the output of '{layer}', a layer without one, but the model reads the layer's weight (as \
                 Linear::forward does), which cannot hold it; call the layer with wegeft::linear, as the model's field of type \
                 wegeft::ActivationSpace declares, or set lora_bias to false"
            );
        }
        let LowRank { a, b, scale } = self.factors();
        let a = dropped_inputs(a, self.dropout);
        let residual = cast(LowRank { a, b, scale }.dense(), weight.dtype());
        self.scaled(weight, residual)
    }

    fn update(&self, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
        let update = self.factors().forward(dropped(x.clone(), self.dropout));
        match &self.dora {
            Some(dora) => {
                let frozen = product(x, weight.clone());
                let factor = cast(dora.factor(weight, self.factors()), frozen.dtype());
                (frozen.clone() + update) * factor - frozen
            }
            None => with_rest(update, self.own_bias(), None),
        }
    }

    fn low_rank(&self, _weight: Tensor<2>) -> Option<LowRank> {
        (self.dora.is_none() && self.out_bias.is_none()).then(|| self.factors())
    }

    fn unmerged_bias(&self, merged: Tensor<1>) -> Option<Tensor<1>> {
        let change = self.bias(merged.zeros_like());
        Some(merged - change)
    }

    // DoRA's norms and what PiSSA and OLoRA start from are the weight's own before the merge.
    fn unmerged(&self, merged: Tensor<2>) -> Option<Tensor<2>> {
        let determined = self.dora.is_none() && !self.reads_weight;
        determined.then(|| merged.clone() - self.residual(merged))
    }
}
