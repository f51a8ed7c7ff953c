use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Tensor, TensorData};
use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{LossMetric, MetricDefinition};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation, MetricsRendererTraining,
};
use burn::train::{
    ExecutionStrategy, InferenceStep, Learner, RegressionOutput, SupervisedTraining, TrainOutput, TrainStep,
};
use wegeft::methods::wegeft::WegeftConfig;
use wegeft::{Adapted, AdapterConfig};

use crate::net::{D, Net, close, input, turn, wegeft};

type Batch = (Tensor<3>, Tensor<2>);

/// Everything that a user writes beside the data.
fn loss(model: &Net, (x, y): Batch) -> (Tensor<1>, RegressionOutput) {
    let [batch, tokens, classes] = [x.dims()[0], x.dims()[1], 3];
    let output = model.forward(x).reshape([batch, tokens * classes]);
    let loss = (output.clone() - y.clone()).powi_scalar(2).mean();
    (loss.clone(), RegressionOutput::new(loss, output, y))
}

#[derive(Clone)]
struct Rows;

impl Batcher<Vec<f32>, Batch> for Rows {
    fn batch(&self, items: Vec<Vec<f32>>, device: &Device) -> Batch {
        let n = items.len();
        let x = TensorData::new(items.concat(), [n, 3, D]);
        let x = Tensor::<3>::from_data(x, device);
        let y = x.clone().narrow(2, 0, 3).reshape([n, 9]);
        (x, y)
    }
}

/// Shows nothing.
pub struct Silent;

impl MetricsRendererTraining for Silent {
    fn update_train(&mut self, _state: MetricState) {}
    fn update_valid(&mut self, _state: MetricState) {}
}

impl MetricsRendererEvaluation for Silent {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl TrainingProgressLogger for Silent {
    fn start(&mut self, _epochs: usize, _from: usize, _items: Option<usize>, _label: Option<&str>) {}
    fn update_epoch(&mut self, _epoch: usize) {}
    fn start_split(&mut self, _split: &str, _items: usize) {}
    fn update_split(&mut self, _items: usize) {}
    fn end_split(&mut self) {}
    fn end(&mut self) {}
    fn log_event_training(&mut self, _event: String) {}
}

impl EvaluationProgressLogger for Silent {
    fn start_global_progress(&mut self, _tests: usize) {}
    fn start_test(&mut self, _name: &str, _items: usize) {}
    fn update_test_progress(&mut self, _items: usize) {}
    fn end_test(&mut self) {}
    fn end_global_progress(&mut self) {}
    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRenderer for Silent {
    fn manual_close(&mut self) {}
    fn register_metric(&mut self, _definition: MetricDefinition) {}
}

fn loader(batch_size: usize, device: &Device) -> Arc<dyn DataLoader<Batch>> {
    let rows: Vec<Vec<f32>> = (0..8)
        .map(|i| {
            (0..3 * D)
                .map(|j| ((i * 31 + j * 7) % 13) as f32 / 13.0 - 0.5)
                .collect()
        })
        .collect();
    DataLoaderBuilder::new(Rows)
        .batch_size(batch_size)
        .set_device(device.clone())
        .build(InMemDataset::new(rows))
}

fn config() -> AdapterConfig {
    wegeft(WegeftConfig::new(2)).with_modules_to_save(["head"])
}

/// Trains for two epochs; a step takes `batch_size` rows, `accumulation` steps make one update.
fn trained(start: &Adapted<Net>, batch_size: usize, accumulation: usize, devices: Option<usize>) -> Adapted<Net> {
    launched(start, start.clone().with_loss(loss), batch_size, accumulation, devices).adapted
}

fn launched<T>(start: &Adapted<Net>, model: T, batch_size: usize, accumulation: usize, devices: Option<usize>) -> T
where
    T: TrainStep<Input = Batch, Output = RegressionOutput>
        + InferenceStep<Input = Batch, Output = RegressionOutput>
        + Module
        + std::fmt::Display
        + 'static,
{
    let device = Device::flex().autodiff();
    let adapted = start;
    let optimizer = adapted.optimizer(0.0, None, |_| SgdConfig::new().build());
    let rates = adapted.learning_rates(0.1);
    let folder = tempfile::tempdir().unwrap();
    let mut training = SupervisedTraining::new(folder.path(), loader(batch_size, &device), loader(8, &Device::flex()))
        .metrics((LossMetric::new(),))
        .with_application_logger(None)
        .renderer(Box::new(Silent))
        .num_epochs(2);
    if accumulation > 1 {
        training = training.grads_accumulation(accumulation);
    }
    if let Some(count) = devices {
        let strategy = ExecutionStrategy::multi(
            vec![device.clone(); count],
            burn::train::MultiDeviceOptim::OptimMainDevice,
        );
        training = training.with_training_strategy(strategy.into());
    }
    let result = training.launch(Learner::new(model, optimizer, rates));
    assert!(result.error.is_none(), "{:?}", result.error);
    result.model
}

/// What a model for burn-train has without adapters: steps of its own.
impl TrainStep for Net {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> TrainOutput<RegressionOutput> {
        let (loss, output) = loss(self, batch);
        TrainOutput::new(self, loss.backward(), output)
    }
}

impl InferenceStep for Net {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> RegressionOutput {
        loss(self, batch).1
    }
}

fn output(adapted: &Adapted<Net>, x: &Tensor<3>) -> Tensor<3> {
    adapted.bind().forward(x.clone())
}

#[test]
fn the_learner_trains_an_adapted_model_with_a_loss_alone_and_accumulates_gradients() {
    let _turn = turn();
    let device = Device::flex();
    let start = config().init(Net::new(&device.clone().autodiff())).unwrap();
    let x = input(2, &device);
    let whole = output(&trained(&start, 8, 1, None), &x);
    assert!(crate::net::distance(whole.clone(), output(&start.valid(), &x)) > 1e-3);
    // Gradients of four batches of two add up to four times the mean's over eight: a quarter of the rate in effect.
    let sums = trained(&start, 2, 4, None);
    assert!(crate::net::distance(output(&sums, &x), output(&start.valid(), &x)) > 1e-3);
    assert!(sums.bank().factors.len() == 3);
}

#[test]
fn two_workers_give_the_update_of_one_with_the_same_batches() {
    let _turn = turn();
    let device = Device::flex();
    let start = config().init(Net::new(&device.clone().autodiff())).unwrap();
    let x = input(2, &device);
    // Each of two workers takes four rows; their gradients are summed, as accumulation sums two steps of four.
    let multi = output(&trained(&start, 4, 1, Some(2)), &x);
    let accumulated = output(&trained(&start, 4, 2, None), &x);
    close(multi, accumulated, 1e-4);
}

#[test]
fn a_record_of_what_the_learner_trains_is_the_trained_part() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    let adapted = config().init(Net::new(&device)).unwrap();
    // phi and psi of three groups, weight and bias of the head.
    let (count, trainee) = (8, adapted.clone().with_loss(loss));
    let record = trainee.clone().into_record();
    assert_eq!(record.len(), count);
    assert!(trainee.load_record(record).to_string().contains("trainable"));
}

#[test]
fn a_model_with_steps_of_its_own_needs_no_closure() {
    let _turn = turn();
    let device = Device::flex();
    let start = config().init(Net::new(&device.clone().autodiff())).unwrap();
    let x = input(2, &device);
    let own = launched(&start, start.clone(), 8, 1, None);
    let closure = trained(&start, 8, 1, None);
    assert!(crate::net::distance(output(&own, &x), output(&start.valid(), &x)) > 1e-3);
    assert_eq!(output(&own, &x).into_data(), output(&closure, &x).into_data());
}

#[test]
fn gradients_taken_from_the_bound_model_are_the_bank_s() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    let adapted = config().init(Net::new(&device)).unwrap();
    let bound = adapted.bind();
    let x = input(2, &device);
    let grads = GradientsParams::from_grads(bound.forward(x.clone()).powi_scalar(2).sum().backward(), &bound);
    // phi and psi of three groups, weight and bias of the head.
    assert_eq!(grads.len(), 8);
    let after = SgdConfig::new().init().step(0.1, adapted.clone(), grads);
    assert!(crate::net::distance(after.bind().forward(x.clone()), adapted.bind().forward(x)) > 1e-3);
}

#[derive(Module, Debug)]
struct Wrapper {
    adapted: Adapted<Net>,
    own: burn::nn::Linear,
}

#[test]
fn a_module_around_an_adapted_model_records_the_trained_part() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    let net = Net::new(&device);
    let wrapper = || Wrapper {
        adapted: config().init(net.clone()).unwrap(),
        own: burn::nn::LinearConfig::new(2, 2).init(&device),
    };
    let (first, mut second) = (wrapper(), wrapper());
    second.adapted = crate::net::stirred(&config(), second.adapted.backbone(), &device);
    let x = input(2, &device);
    let of = |wrapper: &Wrapper| wrapper.adapted.bind().forward(x.clone());
    assert!(crate::net::distance(of(&first), of(&second)) > 1e-3);
    let record = second.clone().into_record();
    assert_eq!(
        (record.len(), second.num_params()),
        (8 + 2, second.adapted.num_params() + 6)
    );
    assert_eq!(of(&first.load_record(record)).into_data(), of(&second).into_data());
}
