//! A classifier of texts around Burn's own `Lstm`.

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, Lstm, LstmConfig};
use burn::tensor::{Device, Tensor};

use super::{Batch, CLASSES, Model, VOCABULARY};

#[derive(Module, Debug)]
pub struct LstmClassifier {
    embedding: Embedding,
    lstm: Lstm,
    head: Linear,
}

impl Model for LstmClassifier {
    const NAME: &'static str = "Lstm";
    const LINEAR: &'static [&'static str] = &["input_transform", "hidden_transform"];

    fn new(device: &Device) -> Self {
        Self {
            embedding: EmbeddingConfig::new(VOCABULARY, 24).init(device),
            lstm: LstmConfig::new(24, 32, true).init(device),
            head: LinearConfig::new(32, CLASSES).init(device),
        }
    }

    fn logits(&self, batch: &Batch) -> Tensor<2> {
        let (out, _) = self.lstm.forward(self.embedding.forward(batch.ids.clone()), None);
        let last = out.dims()[1] - 1;
        self.head.forward(out.narrow(1, last, 1).squeeze_dim(1))
    }
}
