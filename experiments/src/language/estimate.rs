//! The memory that the training of a decoder will need.

use backbones::lm::DecoderConfig;

use crate::train::estimate::Estimate;

/// One batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchShape {
    /// Sequences.
    pub rows: usize,
    /// Tokens of the longest.
    pub width: usize,
    /// Only the inputs of the layers are saved, and one layer at a time is recomputed.
    pub checkpointing: bool,
    /// Attention saves its scores (tokens by tokens for each head); fused attention does not.
    pub scores: bool,
}

/// The estimate for a model of `params` parameters of `bytes` bytes, `trained` of them trained.
pub fn estimate(config: &DecoderConfig, params: usize, bytes: usize, trained: usize, batch: BatchShape) -> Estimate {
    let [d, mlp, depth] = [config.d_model, config.mlp_dim, config.layers.len()];
    let attention = config.heads * config.head_dim;
    let kv = config.kv_heads * config.head_dim;
    // Elements per token and layer: the inputs of both norms, their outputs and squares; queries, keys and values
    // before and after rotation; scores before and after softmax; the MLP's gate, activation, up and product.
    let scores = if batch.scores {
        3 * config.heads * batch.width
    } else {
        0
    };
    let layer = 6 * d + 3 * attention + 5 * kv + scores + 4 * mlp;
    let tokens = batch.rows * batch.width;
    let kept = match batch.checkpointing {
        true => depth * d + layer,
        false => depth * layer,
    };
    // The head's logits, their exponentials and their gradient, for as many rows as fit into 2^25 elements.
    let logits = 3 * (tokens * config.vocab_size).min(1 << 25);
    Estimate::new(params, bytes, trained, tokens * kept + logits)
}

#[cfg(test)]
mod tests {
    use backbones::lm::DecoderConfig;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_kept_is_not_counted_and_what_is_too_much_is_refused() {
        let config = json!({"model_type": "llama", "vocab_size": 1024, "hidden_size": 128, "intermediate_size": 352,
            "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2});
        let config = DecoderConfig::from_hf(&config).unwrap();
        let batch = BatchShape {
            rows: 7,
            width: 512,
            checkpointing: false,
            scores: false,
        };
        let mb = |batch: BatchShape| estimate(&config, 870_000, 4, 102_400, batch).total_mb();
        let with_scores = BatchShape { scores: true, ..batch };
        // Three f32 arrays per layer: rows, heads, queries, keys.
        let scores = 3 * 4 * 4 * (7 * 4 * 512 * 512) / 1_000_000;
        assert!(mb(with_scores).abs_diff(mb(batch) + scores) <= 1);
        let again = BatchShape {
            checkpointing: true,
            ..batch
        };
        assert!(mb(again) < mb(batch) / 2);
        let estimate = estimate(&config, 870_000, 4, 102_400, batch);
        assert!(estimate.check(None, "a batch", "").is_ok() && estimate.check(Some(10_000), "a batch", "").is_ok());
        let message = estimate
            .check(Some(10), "a batch of 7 times 512 tokens", "lower it")
            .unwrap_err();
        assert!(
            message.contains("more than the 10 MB") && message.contains("lower it"),
            "{message}"
        );
    }
}
