//! The scale by itself, and trainings whose gradients pass through f16 and overflow there.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn::train::Interrupter;
use wegeft::{Adapted, AdapterConfig, site};

use super::*;
use crate::cli::settings::defaults;
use crate::run::outcome::RunError;
use crate::train::devices::Team;
use crate::train::settings::{Schedule, Training};
use crate::train::step::{Objective, Part, Reduction, train_step};
use crate::train::stream::{Ordered, Plan, Seeding, Source, Step};
use crate::train::trainer::{Measured, Session, Trained};

#[test]
fn the_scale_is_halved_at_an_overflow_and_doubled_after_many_good_steps() {
    let mut scale = Scale::default();
    let step = |scale: &mut Scale, times: usize| (0..times).for_each(|_| scale.stepped());
    step(&mut scale, PATIENCE - 1);
    assert_eq!(scale.exponent, 16);
    scale.stepped();
    assert_eq!(scale.exponent, 17);
    // An overflow restarts the count.
    step(&mut scale, PATIENCE - 1);
    assert!(scale.overflowed());
    assert_eq!((scale.exponent, scale.skipped), (16, 1));
    step(&mut scale, PATIENCE - 1);
    assert_eq!(scale.exponent, 16);
    step(&mut scale, 1);
    assert_eq!(scale.exponent, 17);
}

#[test]
fn the_scale_has_bounds() {
    let mut scale = Scale::default();
    (0..20 * PATIENCE).for_each(|_| scale.stepped());
    assert_eq!(scale.exponent, MOST);
    let halvings = (0..100).take_while(|_| scale.overflowed()).count();
    assert_eq!((halvings, scale.exponent), (MOST as usize, 0));
    // At a scale of 1 the gradients overflow by themselves.
    assert!(!scale.overflowed());
    assert_eq!(scale.skipped, MOST as usize);
}

#[test]
fn it_is_read_as_it_was_written_and_a_damaged_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let scale = LossScale::default();
    assert!(scale.sentence().is_none());
    assert!(scale.overflowed());
    scale.stepped();
    scale.note(3);
    // What comes after belongs to the next round.
    assert!(scale.overflowed());
    scale.write(dir.path(), 3).unwrap();
    let found = LossScale::after(dir.path(), 3).unwrap();
    let expected = Scale {
        exponent: 15,
        good_steps: 1,
        skipped: 1,
    };
    assert_eq!(found.state().now, expected);
    assert_eq!(found.factor(), 32768.0);
    assert!(found.sentence().unwrap().contains("1 step was skipped"));
    assert_eq!(LossScale::after(dir.path(), 0).unwrap().factor(), 65536.0);
    assert_eq!(read(dir.path(), 4), Ok(None));
    let text = std::fs::read_to_string(path(dir.path(), 3)).unwrap();
    for damage in [
        text.replace("15", "14"),
        String::new(),
        r#"{"exponent": 99, "good_steps": 0, "skipped": 0}"#.into(),
    ] {
        std::fs::write(path(dir.path(), 3), damage).unwrap();
        let message = LossScale::after(dir.path(), 3).map(drop).unwrap_err();
        assert!(message.contains("loss-scale-3.json is damaged"), "{message}");
    }
    found.remove(dir.path(), 3).unwrap();
    assert_eq!(read(dir.path(), 3), Ok(None));
}

#[derive(Module, Debug)]
struct Net {
    layer: Linear,
}

/// An output layer of that many channels, all of them `value` for inputs of ones.
fn net(value: f32, device: &Device) -> Net {
    let mut layer = LinearConfig::new(2, 3).with_bias(false).init(device);
    layer.weight = layer.weight.map(|weight| weight.full_like(value / 2.0).detach());
    Net { layer }
}

fn adapter() -> AdapterConfig {
    AdapterConfig::lora(1).with_target_modules(["layer"])
}

/// The mean square of the outputs, whose gradients pass through f16.
#[derive(Debug, Clone)]
struct Squares;

impl Objective<Net> for Squares {
    type Batch = TensorData;
    const WEIGHS: bool = true;

    fn terms(&self, batch: &TensorData) -> usize {
        batch.shape()[0]
    }

    fn items(&self, batch: &TensorData) -> usize {
        batch.shape()[0]
    }

    fn loss_and_grads(
        &self,
        adapted: &Adapted<Net>,
        batch: TensorData,
        denominator: f64,
        _seed: u64,
    ) -> (Part, GradientsParams) {
        let part = self.evaluate(adapted, batch, denominator);
        let grads = GradientsParams::from_grads(part.loss.backward(), adapted);
        (part, grads)
    }

    fn evaluate(&self, adapted: &Adapted<Net>, batch: TensorData, denominator: f64) -> Part {
        let bound = adapted.bind();
        let x = Tensor::<2>::from_data(batch, &adapted.backbone().layer.weight.device());
        let y = bound.layer.forward(x).cast(DType::F16).cast(DType::F32);
        Part::of_loss(y.square().sum().div_scalar(denominator))
    }
}

/// Inputs of ones, each times its number.
#[derive(Debug, Clone)]
struct Rows(usize);

impl Source for Rows {
    type Host = TensorData;
    type Batch = TensorData;

    fn count(&self) -> usize {
        self.0
    }

    fn read(&self, items: &[usize], _seed: Option<u64>) -> Result<TensorData, burn::data::dataset::DatasetError> {
        let values = items.iter().flat_map(|item| [1.0 + *item as f32 / 8.0; 2]);
        Ok(TensorData::new(values.collect::<Vec<f32>>(), [items.len(), 2]))
    }

    fn on_device(&self, host: TensorData, _device: &Device) -> TensorData {
        host
    }
}

fn reduction(loss_scale: Option<LossScale>) -> Reduction {
    Reduction {
        max_grad_norm: 1.0,
        mean_of_batch_means: false,
        checks_gradients: true,
        loss_scale,
    }
}

/// The factors, one after the other.
fn factors(adapted: &Adapted<Net>) -> Vec<f32> {
    let params = site::params(adapted.bank()).into_iter();
    let groups = &adapted.bank().factors;
    assert_eq!((params.count(), groups.len()), (2, 1));
    let values = |name: &str| groups[0].matrix(name).into_data().iter::<f32>().collect::<Vec<f32>>();
    [values("a"), values("b")].concat()
}

#[test]
fn a_step_whose_gradients_overflow_is_skipped_and_the_next_one_fits() {
    let device = Device::flex().autodiff();
    let adapted = adapter().init(net(1.0, &device)).unwrap();
    let loss_scale = LossScale::default();
    let team = Team::new(&[device.clone(), device.clone()]);
    // Two batches, each of two shares: 4 terms.
    let ones = || TensorData::new(vec![1.0_f32; 2], [1, 2]);
    let step = || Step {
        batches: vec![vec![ones(), ones()], vec![ones(), ones()]],
        seed: 0,
    };
    let take = |scale: Option<LossScale>| train_step(&Squares, reduction(scale), &adapted, step(), &team);
    // Of an output of 1 the gradient is 2 · 2¹⁶ / 4: it fits.
    let first = take(Some(loss_scale.clone()));
    assert!(!first.item.skipped && first.item.bad_gradient.is_none());
    assert_eq!(first.item.loss(), 3.0);
    let plain = take(None);
    let of_b = |grads: &GradientsParams| {
        let id = adapted.bank().factors[0].param::<2>("b").id;
        grads
            .get::<2>(id)
            .unwrap()
            .into_data()
            .iter::<f32>()
            .collect::<Vec<f32>>()
    };
    assert_eq!(of_b(&first.grads), of_b(&plain.grads));

    // Of an output of 8 it is 2¹⁸: it fits at a scale of 2¹³.
    let adapted = adapter().init(net(8.0, &device)).unwrap();
    let take = || train_step(&Squares, reduction(Some(loss_scale.clone())), &adapted, step(), &team);
    let mut skipped = 0;
    let taken = loop {
        let output = take();
        assert_eq!(output.item.loss(), 192.0);
        if !output.item.skipped {
            break output;
        }
        assert!(output.grads.is_empty() && output.item.bad_gradient.is_none());
        skipped += 1;
    };
    assert_eq!((skipped, loss_scale.factor()), (3, 8192.0));
    assert!(!taken.grads.is_empty() && taken.item.bad_gradient.is_none());
}

#[test]
fn gradients_that_overflow_without_a_scale_are_an_error() {
    let device = Device::flex().autodiff();
    // The output is finite in f16, and twice it is not.
    let adapted = adapter().init(net(60_000.0, &device)).unwrap();
    let loss_scale = LossScale::default();
    (0..16).for_each(|_| assert!(loss_scale.overflowed()));
    assert_eq!(loss_scale.factor(), 1.0);
    let step = Step {
        batches: vec![vec![TensorData::new(vec![1.0_f32; 2], [1, 2])]],
        seed: 0,
    };
    let team = Team::new(std::slice::from_ref(&device));
    let output = train_step(&Squares, reduction(Some(loss_scale)), &adapted, step, &team);
    assert!(output.item.loss().is_finite() && !output.item.skipped);
    assert!(output.item.bad_gradient.unwrap().starts_with("layer."));
}

/// Trains `start` in `folder` until `stop_after` epochs of 6 are done, on `devices`.
fn trained(
    start: &Adapted<Net>,
    folder: &Path,
    stop_after: usize,
    devices: &[Device],
) -> Result<Trained<Net>, RunError> {
    let settings = Training {
        epochs: 6,
        batch_size: 4,
        lr_scheduler: Schedule::Constant,
        warmup_ratio: 0.0,
        max_grad_norm: 1.0,
        ..defaults()
    };
    let interrupter = Interrupter::new();
    let session = Session {
        settings: &settings,
        plan: Plan {
            batch_size: 4,
            accumulation: 2,
            epochs: 6,
            stop_after: Some(stop_after),
            eval_steps: None,
            seed: 3,
            seeding: Seeding::Step,
        },
        count: 16,
        learning_rate: 0.05,
        weight_decay: 0.01,
        beta_2: 0.999,
        mean_of_batch_means: false,
        scales_loss: true,
        measured: Measured::Tokens,
        folder,
        label: "test".into(),
        place: "test".into(),
        log_steps: 100,
        interrupter: &interrupter,
    };
    let held_out = Ordered::new(Rows(2), 2, &devices[0].clone().inner());
    session.train(start.clone(), Squares, Rows(16), Arc::new(held_out), devices)
}

#[test]
fn a_training_goes_on_after_an_overflow_and_resumes_with_its_scale() {
    let dir = tempfile::tempdir().unwrap();
    let folder = |name: &str| {
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        folder
    };
    let device = Device::flex().autodiff();
    // Drawn once: other tests draw from the same random numbers.
    let start = adapter().init(net(8.0, &device)).unwrap();
    let (uncut, cut, both) = (folder("uncut"), folder("cut"), folder("both"));
    let whole = trained(&start, &uncut, 6, std::slice::from_ref(&device)).unwrap();
    let whole = factors(&whole.adapted);
    assert!(whole.iter().all(|factor| factor.is_finite()));
    let of_round = |folder: &Path, round: usize| read(&folder.join("checkpoints"), round).unwrap().unwrap();
    let end = of_round(&uncut, 6);
    // Steps were skipped, and others were taken.
    assert!(end.exponent < FIRST && end.skipped > 0 && end.skipped < 12, "{end:?}");
    assert_eq!(end.exponent as usize, FIRST as usize - end.skipped);
    // Only the files of the last two rounds are there.
    assert_eq!(read(&uncut.join("checkpoints"), 4), Ok(None));

    trained(&start, &cut, 3, std::slice::from_ref(&device)).unwrap();
    let middle = of_round(&cut, 3);
    assert!(middle.skipped > 0 && middle.good_steps > 0, "{middle:?}");
    let resumed = trained(&start, &cut, 6, std::slice::from_ref(&device)).unwrap();
    assert_eq!(factors(&resumed.adapted), whole);
    assert_eq!(of_round(&cut, 6), end);

    // Two devices take half of each batch: they skip the same steps.
    let two = trained(&start, &both, 6, &[device.clone(), device]).unwrap();
    assert_eq!(of_round(&both, 6), end);
    let two = factors(&two.adapted);
    let pairs = two.iter().zip(&whole);
    assert!(
        pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-4),
        "{two:?} {whole:?}"
    );
}
