//! burn-train's `Learner` with its dashboard: an adapted model has the training step of its backbone.
//! `cargo run -p wegeft --example learner`; without a terminal, progress is a line per epoch.

use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::AdamWConfig;
use burn::tensor::{Device, Tensor, TensorData};
use burn::train::metric::LossMetric;
use burn::train::{InferenceStep, Learner, RegressionOutput, SupervisedTraining, TrainOutput, TrainStep};
use wegeft::AdapterConfig;

type Batch = (Tensor<2>, Tensor<2>);

#[derive(Module, Debug)]
struct Mlp {
    up: Linear,
    mid: Linear,
    down: Linear,
}

impl Mlp {
    fn loss(&self, (x, y): Batch) -> (Tensor<1>, RegressionOutput) {
        let output = self.down.forward(self.mid.forward(self.up.forward(x).tanh()).tanh());
        let loss = (output.clone() - y.clone()).powi_scalar(2).mean();
        (loss.clone(), RegressionOutput::new(loss, output, y))
    }
}

// What a model for burn-train has without adapters.
impl TrainStep for Mlp {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> TrainOutput<RegressionOutput> {
        let (loss, output) = self.loss(batch);
        TrainOutput::new(self, loss.backward(), output)
    }
}

impl InferenceStep for Mlp {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> RegressionOutput {
        self.loss(batch).1
    }
}

#[derive(Clone)]
struct Rows;

impl Batcher<f32, Batch> for Rows {
    fn batch(&self, items: Vec<f32>, device: &Device) -> Batch {
        let x = Tensor::<2>::from_data(TensorData::new(items.clone(), [items.len(), 1]), device);
        (x.clone(), x.mul_scalar(3.0).sin())
    }
}

fn loader(count: usize, device: &Device) -> Arc<dyn DataLoader<Batch>> {
    let rows = (0..count).map(|i| i as f32 / count as f32 - 0.5).collect();
    DataLoaderBuilder::new(Rows)
        .batch_size(32)
        .shuffle(7)
        .set_device(device.clone())
        .build(InMemDataset::new(rows))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex().autodiff();
    device.seed(0);
    let model = Mlp {
        up: LinearConfig::new(1, 64).init(&device),
        mid: LinearConfig::new(64, 64).init(&device),
        down: LinearConfig::new(64, 1).init(&device),
    };
    let adapted = AdapterConfig::lora(4)
        .with_target_modules(["mid"])
        .with_modules_to_save(["down"])
        .init(model)?;
    // Groups for weight decay and LoRA+'s rates; any optimizer and schedule of Burn's works too.
    let optimizer = adapted.optimizer(0.01, None, |decay| AdamWConfig::new().with_weight_decay(decay).build());
    let rates = adapted.learning_rates(5e-3);
    let folder = std::env::temp_dir().join("wegeft-example-learner");
    let training = SupervisedTraining::new(&folder, loader(2048, &device), loader(256, &device.clone().inner()))
        .metrics((LossMetric::new(),))
        .num_epochs(5);
    let result = training.launch(Learner::new(adapted, optimizer, rates));
    if let Some(error) = result.error {
        return Err(format!("{error:?}").into());
    }
    result.model.save(folder.join("adapter"))?;
    println!("the adapter is in {}", folder.join("adapter").display());
    Ok(())
}
