//! What a training will need, estimated before it starts.

use backbones::lm::DecoderConfig;

/// Memory of a training, in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The model's weights.
    pub weights: u64,
    /// Gradients and the optimizer's two moments of what is trained.
    pub trained: u64,
    /// What one batch keeps for the backward pass.
    pub activations: u64,
}

/// One batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchShape {
    /// Sequences.
    pub rows: usize,
    /// Tokens of the longest.
    pub width: usize,
    /// Only the layers' inputs are kept, and one layer at a time computed again.
    pub checkpointing: bool,
    /// Attention keeps its scores, tokens times tokens for each head; the fused one does not.
    pub scores: bool,
}

impl Estimate {
    /// The estimate for a model of `params` values of `bytes` bytes, `trained` of them trained.
    pub fn new(config: &DecoderConfig, params: usize, bytes: usize, trained: usize, batch: BatchShape) -> Self {
        let [d, mlp, depth] = [config.d_model, config.mlp_dim, config.layers.len()];
        let attention = config.heads * config.head_dim;
        let kv = config.kv_heads * config.head_dim;
        // Values a token and layer: the inputs of both norms, their outputs and squares; queries, keys and values
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
        // The head's logits, their exponentials and their gradient, for as many rows as fit 2^25 values.
        let logits = 3 * (tokens * config.vocab_size).min(1 << 25);
        Self {
            weights: (params * bytes) as u64,
            trained: (trained * 12) as u64,
            activations: ((tokens * kept + logits) * 4) as u64,
        }
    }

    /// The sum, in MB (10^6 bytes).
    pub fn total_mb(&self) -> u64 {
        (self.weights + self.trained + self.activations) / 1_000_000
    }

    /// Checks the sum against `limit` MB.
    ///
    /// # Errors
    /// A sum that is greater: one sentence that says what to change.
    pub fn check(&self, limit: Option<u64>, batch: BatchShape) -> Result<(), String> {
        let mb = |bytes: u64| bytes / 1_000_000;
        match limit {
            Some(limit) if self.total_mb() > limit => Err(format!(
                "the training needs about {} MB (weights {}, trained part {}, a batch of {} times {} tokens {}), more \
                 than the {limit} MB there are; lower batch_size (accumulation makes up for it) or max_length{}",
                self.total_mb(),
                mb(self.weights),
                mb(self.trained),
                batch.rows,
                batch.width,
                mb(self.activations),
                if batch.checkpointing {
                    ""
                } else {
                    ", or give --gradient-checkpointing"
                }
            )),
            _ => Ok(()),
        }
    }
}

/// Memory that can be had without swapping, MB; `None` where the system does not tell.
pub fn available_mb() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024 / 1_000_000)
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
        let mb = |batch: BatchShape| Estimate::new(&config, 870_000, 4, 102_400, batch).total_mb();
        let with_scores = BatchShape { scores: true, ..batch };
        // Three arrays of f32 a layer: rows, heads, queries, keys.
        let scores = 3 * 4 * 4 * (7 * 4 * 512 * 512) / 1_000_000;
        assert!(mb(with_scores).abs_diff(mb(batch) + scores) <= 1);
        let again = BatchShape {
            checkpointing: true,
            ..batch
        };
        assert!(mb(again) < mb(batch) / 2);
        let estimate = Estimate::new(&config, 870_000, 4, 102_400, batch);
        assert!(estimate.check(None, batch).is_ok() && estimate.check(Some(10_000), batch).is_ok());
        let message = estimate.check(Some(10), batch).unwrap_err();
        assert!(
            message.contains("more than the 10 MB") && message.contains("--gradient-checkpointing"),
            "{message}"
        );
    }
}
