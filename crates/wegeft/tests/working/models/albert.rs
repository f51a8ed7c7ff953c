//! A small ALBERT: one layer that is used for all depths, a factorized embedding, and a language head that reads the
//! embedding's table.

use burn::module::{Initializer, Module, Param};
use burn::nn::transformer::{TransformerEncoderConfig, TransformerEncoderLayer};
use burn::nn::{Embedding, EmbeddingConfig, Gelu, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use wegeft::{AdapterConfig, TokenIndices};

use super::{Batch, CLASSES, Model, VOCABULARY};

#[derive(Module, Debug)]
struct SharedLayer {
    projection: Linear,
    layer: TransformerEncoderLayer,
    depth: usize,
}

#[derive(Module, Debug)]
pub struct Albert {
    word_embeddings: Embedding,
    encoder: SharedLayer,
    mlm_dense: Linear,
    mlm_layer_norm: LayerNorm,
    mlm_decoder_bias: Param<Tensor<1>>,
}

impl Model for Albert {
    const NAME: &'static str = "ALBERT";
    const LINEAR: &'static [&'static str] = &["query", "value", "projection"];
    const HEAD: &'static str = "mlm_layer_norm";

    fn new(device: &Device) -> Self {
        let layer = TransformerEncoderConfig::new(32, 64, 4, 1).with_norm_first(false);
        Self {
            word_embeddings: EmbeddingConfig::new(VOCABULARY, 16).init(device),
            encoder: SharedLayer {
                projection: LinearConfig::new(16, 32).init(device),
                layer: TransformerEncoderLayer::new(&layer, device),
                depth: 3,
            },
            mlm_dense: LinearConfig::new(32, 16).init(device),
            mlm_layer_norm: LayerNormConfig::new(16).init(device),
            mlm_decoder_bias: Initializer::Zeros.init([VOCABULARY], device),
        }
    }

    fn logits(&self, batch: &Batch) -> Tensor<2> {
        let encoder = &self.encoder;
        let x = encoder
            .projection
            .forward(self.word_embeddings.forward(batch.ids.clone()));
        let x = (0..encoder.depth).fold(x, |x, _| encoder.layer.forward(x, None, None));
        let first = self.mlm_dense.forward(x.narrow(1, 0, 1).squeeze_dim::<2>(1));
        let first = self.mlm_layer_norm.forward(Gelu::new().forward(first));
        let scores = first.matmul(self.word_embeddings.weight.val().transpose());
        (scores + self.mlm_decoder_bias.val().unsqueeze()).narrow(1, 0, CLASSES)
    }

    fn more() -> Vec<(&'static str, AdapterConfig)> {
        let table = |config: AdapterConfig| config.with_target_modules(["word_embeddings", "query"]);
        let mut rows = AdapterConfig::wegeft(2).with_target_modules(["query"]);
        rows.targets.trainable_token_indices = Some(TokenIndices::All(vec![1, 2]));
        vec![
            ("wegeft table", table(AdapterConfig::wegeft(2))),
            ("lora table", table(AdapterConfig::lora(2))),
            ("token rows", rows),
        ]
    }
}
