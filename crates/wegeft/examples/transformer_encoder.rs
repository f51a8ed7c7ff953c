//! Adapts Burn's own `TransformerEncoder` in a text classifier, saves the adapter and loads it into a fresh model:
//! `cargo run -p wegeft --example transformer_encoder`.

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Int, Tensor};
use wegeft::{Adapted, AdapterConfig, site};

const CLASSES: usize = 2;
const TOKENS: i64 = 50;

#[derive(Module, Debug)]
struct Classifier {
    embedding: Embedding,
    encoder: TransformerEncoder,
    head: Linear,
}

impl Classifier {
    fn new(device: &Device) -> Self {
        Self {
            embedding: EmbeddingConfig::new(TOKENS as usize, 32).init(device),
            encoder: TransformerEncoderConfig::new(32, 64, 4, 2)
                .with_dropout(0.0)
                .init(device),
            head: LinearConfig::new(32, CLASSES).init(device),
        }
    }

    /// Token ids `[batch, tokens]` to logits `[batch, classes]`.
    fn forward(&self, ids: Tensor<2, Int>) -> Tensor<2> {
        let x = self.embedding.forward(ids);
        let x = self.encoder.forward(TransformerEncoderInput::new(x));
        self.head.forward(x.mean_dim(1).squeeze_dim(1))
    }
}

/// Sentences, and whether the sum of their token ids is large.
fn batch(device: &Device) -> (Tensor<2, Int>, Tensor<1, Int>) {
    let ids = Tensor::<2>::random([32, 8], Distribution::Uniform(0.0, TOKENS as f64), device).int();
    let labels = ids.clone().sum_dim(1).greater_elem(4 * TOKENS).int().reshape([32]);
    (ids, labels)
}

fn main() -> Result<(), wegeft::AdapterError> {
    let device = Device::flex().autodiff();
    device.seed(0);
    let model = Classifier::new(&device);
    // What can be named as a target.
    for param in site::params(&model) {
        println!("{} {:?}", param.path, param.shape);
    }
    // All query, key, value and output projections of each layer; one generator per kind, shared by the layers.
    let config = AdapterConfig::wegeft(4)
        .with_target_modules(["query", "key", "value", "output"])
        .with_modules_to_save(["head"]);
    let mut adapted = config.init(model.clone())?;
    println!("{}", adapted.summary());

    let loss = CrossEntropyLossConfig::new().init(&device);
    let mut optim = AdamWConfig::new().init();
    for step in 0..=100 {
        let (ids, labels) = batch(&device);
        let loss = loss.forward(adapted.bind().forward(ids), labels);
        if step % 25 == 0 {
            println!("step {step}: loss {:.4}", loss.clone().into_scalar::<f32>());
        }
        let grads = GradientsParams::from_grads(loss.backward(), &adapted);
        adapted = optim.step(0.01, adapted, grads);
    }

    let folder = std::env::temp_dir().join("wegeft-example-transformer");
    adapted.save(&folder)?; // PEFT's two files
    let loaded = Adapted::load(model, &folder)?;
    let (ids, _) = batch(&device);
    let [trained, loaded] = [&adapted, &loaded].map(|adapted| adapted.bind().forward(ids.clone()));
    println!(
        "loaded again: largest difference {:.1e}",
        (trained - loaded).abs().max().into_scalar::<f32>()
    );
    Ok(())
}
