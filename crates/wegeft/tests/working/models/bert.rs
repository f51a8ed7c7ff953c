//! A small BERT around Burn's `TransformerEncoder`: three embeddings, post-norm layers, a pooler, a padding mask.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{Dropout, DropoutConfig, Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor};
use wegeft::{AdapterConfig, TokenIndices};

use super::{Batch, CLASSES, Model, VOCABULARY};

#[derive(Module, Debug)]
struct Embeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    token_type_embeddings: Embedding,
    layer_norm: LayerNorm,
    dropout: Dropout,
}

#[derive(Module, Debug)]
struct Pooler {
    output: Linear,
}

#[derive(Module, Debug)]
pub struct Bert {
    embeddings: Embeddings,
    encoder: TransformerEncoder,
    pooler: Option<Pooler>,
    head: Linear,
}

impl Embeddings {
    fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [batch, tokens] = ids.dims();
        let positions = Tensor::<1, Int>::arange(0..tokens as i64, &ids.device());
        let positions = positions.reshape([1, tokens]).expand([batch, tokens]);
        let x = self.word_embeddings.forward(ids.clone())
            + self.position_embeddings.forward(positions)
            + self.token_type_embeddings.forward(ids.zeros_like());
        self.dropout.forward(self.layer_norm.forward(x))
    }
}

impl Model for Bert {
    const NAME: &'static str = "BERT";
    const LINEAR: &'static [&'static str] = &["query", "key", "value", "output"];

    fn new(device: &Device) -> Self {
        let table = |rows| EmbeddingConfig::new(rows, 32).init(device);
        let layers = TransformerEncoderConfig::new(32, 64, 4, 3).with_norm_first(false);
        Self {
            embeddings: Embeddings {
                word_embeddings: table(VOCABULARY),
                position_embeddings: table(64),
                token_type_embeddings: table(2),
                layer_norm: LayerNormConfig::new(32).init(device),
                dropout: DropoutConfig::new(0.1).init(),
            },
            encoder: layers.with_quiet_softmax(false).init(device),
            pooler: Some(Pooler {
                output: LinearConfig::new(32, 32).init(device),
            }),
            head: LinearConfig::new(32, CLASSES).init(device),
        }
    }

    fn logits(&self, batch: &Batch) -> Tensor<2> {
        let x = self.embeddings.forward(batch.ids.clone());
        let padding = batch.ids.clone().equal_elem(0);
        let x = self.encoder.forward(TransformerEncoderInput::new(x).mask_pad(padding));
        let first = x.narrow(1, 0, 1).squeeze_dim(1);
        let pooled = match &self.pooler {
            Some(pooler) => pooler.output.forward(first).tanh(),
            None => first,
        };
        self.head.forward(pooled)
    }

    fn more() -> Vec<(&'static str, AdapterConfig)> {
        let mut rows = AdapterConfig::lora(2).with_target_modules(["query"]);
        let words = BTreeMap::from([("word_embeddings".to_string(), vec![3, 5])]);
        rows.targets.trainable_token_indices = Some(TokenIndices::ByModule(words));
        vec![("token rows", rows)]
    }
}
