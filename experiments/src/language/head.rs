//! The head of a decoder and its input.

use backbones::lm::Decoder;
use burn::tensor::Tensor;
use kernels::LmHead;
use wegeft::{Adapted, FullConfig};

use crate::language::data::Batch;

/// The head of a bound model.
pub fn head(adapted: &Adapted<Decoder>, bound: &Decoder) -> LmHead {
    const HEADS: [&str; 3] = ["lm_head.weight", "embed_tokens.weight", "wte.weight"];
    let trained = adapted.config().settings::<FullConfig>().is_some()
        || adapted
            .saved_params()
            .iter()
            .any(|param| HEADS.iter().any(|head| param.path.ends_with(head)));
    LmHead {
        weight: bound.head_weight(),
        softcap: bound.config().final_softcap,
        trained,
    }
}

/// The rows of the hidden states `[batch, tokens, d_model]` that predict target tokens, `[n, d_model]`: the only input
/// of the head.
pub fn response_rows(hidden: Tensor<3>, batch: &Batch) -> Tensor<2> {
    let [rows, width, d_model] = hidden.dims();
    hidden
        .reshape([rows * width, d_model])
        .select(0, batch.positions.clone())
}
