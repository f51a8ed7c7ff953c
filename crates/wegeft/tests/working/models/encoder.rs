//! A classifier of texts around Burn's own `TransformerEncoder`.

use burn::module::Module;
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use wegeft::AdapterConfig;

use super::{Batch, CLASSES, Model, VOCABULARY};

#[derive(Module, Debug)]
pub struct Encoder {
    embedding: Embedding,
    encoder: TransformerEncoder,
    head: Linear,
}

impl Model for Encoder {
    const NAME: &'static str = "TransformerEncoder";
    const LINEAR: &'static [&'static str] = &["query", "value", "linear_inner"];

    fn new(device: &Device) -> Self {
        Self {
            embedding: EmbeddingConfig::new(VOCABULARY, 32).init(device),
            encoder: TransformerEncoderConfig::new(32, 64, 4, 2).init(device),
            head: LinearConfig::new(32, CLASSES).init(device),
        }
    }

    fn logits(&self, batch: &Batch) -> Tensor<2> {
        let x = self.embedding.forward(batch.ids.clone());
        let x = self.encoder.forward(TransformerEncoderInput::new(x));
        self.head.forward(x.mean_dim(1).squeeze_dim(1))
    }

    fn more() -> Vec<(&'static str, AdapterConfig)> {
        let embedding = |config: AdapterConfig| config.with_target_modules(["embedding", "query"]);
        vec![
            ("wegeft embedding", embedding(AdapterConfig::wegeft(2))),
            ("lora embedding", embedding(AdapterConfig::lora(2))),
        ]
    }
}
