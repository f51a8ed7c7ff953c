//! The memory that the training of a text classifier will need.

use backbones::classify::SequenceClassifier;
use wegeft::site::{self, ParamInfo};

use crate::language::estimate::{self, BatchShape};
use crate::train::estimate::Estimate;

/// The estimate for a training with `trained` parameters, weights of `bytes` bytes and this batch.
pub fn estimate(model: &SequenceClassifier, bytes: usize, trained: usize, batch: BatchShape) -> Estimate {
    let params: usize = site::params(model).iter().map(ParamInfo::len).sum();
    if let Some(decoder) = model.decoder() {
        // The estimate includes a language-model head, which a classifier does not have.
        let words = 3 * (batch.rows * batch.width * decoder.config().vocab_size).min(1 << 25);
        let whole = estimate::estimate(decoder.config(), params, bytes, trained, batch);
        return Estimate {
            activations: whole.activations - 4 * words as u64,
            ..whole
        };
    }
    let Some(encoder) = model.encoder() else {
        return Estimate::new(params, bytes, trained, 0);
    };
    let config = encoder.config();
    // Elements per token and layer: the inputs of both norms, their outputs and squares, queries, keys, values and
    // attention's output; the MLP's hidden layer before and after its activation; dropout masks; scores if they are
    // saved.
    let drops = config.drops();
    let scores = match batch.scores || config.attention_dropout > 0.0 {
        true => 4 * config.heads * batch.width,
        false => 0,
    };
    let layer = (if drops { 13 } else { 10 }) * config.d_model + 3 * config.mlp_dim + scores;
    let tokens = batch.rows * batch.width;
    let kept = match batch.checkpointing {
        true => config.depth * config.d_model + layer,
        false => config.depth * layer,
    };
    Estimate::new(params, bytes, trained, tokens * kept)
}
