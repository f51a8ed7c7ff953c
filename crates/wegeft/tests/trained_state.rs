//! What belongs to an adapter besides its factors: running statistics, training flags, and layers trained in full.

use burn::module::{Lora, Module};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams, SgdConfig};
use burn::store::ModuleRecord;
use burn::tensor::{Device, Distribution, Tensor, Tolerance};
use safetensors::tensor::{Dtype, TensorView};
use wegeft::storage::{WEIGHTS_FILE, read_tensors};
use wegeft::{Adapted, AdapterConfig, AdapterError, Adapters, LoraConfig, linear};

const D: usize = 6;

#[derive(Module, Debug)]
struct Normed {
    up: Linear,
    norm: BatchNorm,
    head: Linear,
}

impl Normed {
    fn new(device: &Device) -> Self {
        Self {
            up: LinearConfig::new(D, D).init(device),
            norm: BatchNormConfig::new(D).init(device),
            head: LinearConfig::new(D, 3).init(device),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.head.forward(self.norm.forward(linear(&self.up, x)).tanh())
    }

    /// The mean that evaluation uses.
    fn mean(&self) -> Vec<f32> {
        let mean = self.valid().norm.running_mean.value();
        mean.into_data().iter::<f32>().collect()
    }
}

fn input(rows: usize, device: &Device) -> Tensor<2> {
    Tensor::random([rows, D], Distribution::Normal(3.0, 1.0), device)
}

fn lora(saved: &[&str]) -> AdapterConfig {
    let config = AdapterConfig::lora(2).with_target_modules(["up"]);
    config.with_modules_to_save(saved.to_vec())
}

fn close(a: Tensor<2>, b: Tensor<2>, tolerance: f64) {
    a.into_data()
        .assert_approx_eq::<f32>(&b.into_data(), Tolerance::absolute(tolerance));
}

fn gradients(adapted: &Adapted<Normed>, x: Tensor<2>) -> GradientsParams {
    let loss = adapted.bind().forward(x).powi_scalar(2).mean();
    GradientsParams::from_grads(loss.backward(), adapted)
}

/// Trained on `steps` batches.
fn trained_on(mut adapted: Adapted<Normed>, steps: usize, batch: impl Fn() -> Tensor<2>) -> Adapted<Normed> {
    let mut optim = AdamWConfig::new().init();
    for _ in 0..steps {
        let grads = gradients(&adapted, batch());
        adapted = optim.step(0.01, adapted, grads);
    }
    adapted
}

fn trained(adapted: Adapted<Normed>, device: &Device) -> Adapted<Normed> {
    trained_on(adapted, 3, || input(16, device))
}

#[test]
fn a_frozen_batch_norm_keeps_its_statistics_and_a_trained_one_is_saved_with_them() {
    let device = Device::flex().autodiff();
    for trains in [false, true] {
        let saved: &[&str] = if trains { &["norm", "head"] } else { &["head"] };
        let backbone = Normed::new(&device);
        let start = backbone.clone().into_record().into_bytes().unwrap();
        let adapted = lora(saved).init(backbone).unwrap();
        let before = adapted.backbone().mean();
        let adapted = trained_on(adapted, 5, || input(16, &device));
        // Saved first: `valid` applies the last update of the statistics.
        let folder = tempfile::tempdir().unwrap();
        adapted.save(folder.path()).unwrap();
        assert_eq!(adapted.valid().backbone().mean() == before, !trains);
        // As in a new process: the backbone as it was before, and the folder.
        let record = ModuleRecord::from_bytes(start).unwrap();
        let fresh = Normed::new(&device).load_record(record);
        let loaded = Adapted::load(fresh, folder.path()).unwrap();
        let x = input(7, &Device::flex()).sub_scalar(3.0);
        close(
            loaded.valid().bind().forward(x.clone()),
            adapted.valid().bind().forward(x),
            1e-6,
        );
    }
}

#[test]
fn running_statistics_are_the_adapter_s_own() {
    let device = Device::flex().autodiff();
    let of_batches = |backbone: &Normed, less: f32| {
        let adapted = lora(&["norm"]).init(backbone.clone()).unwrap();
        trained_on(adapted, 5, || input(16, &device).sub_scalar(less))
    };
    let backbone = Normed::new(&device);
    let before = backbone.mean();
    // Training an adapter of a clone leaves the backbone as it was, and so does loading one.
    let (first, second) = (of_batches(&backbone, 0.0), of_batches(&backbone, 6.0));
    assert_ne!(first.backbone().mean(), second.backbone().mean());
    assert_eq!(backbone.mean(), before);
    let folder = tempfile::tempdir().unwrap();
    first.save(folder.path()).unwrap();
    let loaded = Adapted::load(backbone.clone(), folder.path()).unwrap();
    assert_eq!(loaded.valid().backbone().mean(), first.valid().backbone().mean());
    assert_eq!(backbone.mean(), before);
    // Several adapters on one backbone keep theirs.
    let x = input(7, &Device::flex()).sub_scalar(3.0);
    let of = |model: Normed| model.valid().forward(x.clone());
    let (a, b) = (of(first.bind()), of(second.bind()));
    let mut adapters = Adapters::new(backbone.clone());
    adapters.insert("first", first).unwrap();
    adapters.insert("second", second).unwrap();
    close(of(adapters.bind()), a, 1e-6);
    adapters.switch("second").unwrap();
    close(of(adapters.bind()), b, 1e-6);
    adapters.disable();
    close(of(adapters.bind()), of(backbone), 1e-6);
}

/// A model made again from what a trained adapter wrote, for evaluation.
type Rewrite = fn(&Adapted<Normed>, &Normed, &AdapterConfig) -> Normed;

#[test]
fn what_is_written_has_the_last_update_of_the_statistics() {
    let device = Device::flex().autodiff();
    let config = lora(&["norm", "head"]);
    let backbone = Normed::new(&device);
    let ways: [(&str, Rewrite); 3] = [
        ("files", |adapted, backbone, _| {
            let files = adapted.files();
            files.attach(backbone.clone()).unwrap().valid().bind()
        }),
        ("record", |adapted, backbone, config| {
            let bytes = adapted.clone().into_record().into_bytes().unwrap();
            let fresh = config.init(backbone.clone()).unwrap();
            fresh
                .load_record(ModuleRecord::from_bytes(bytes).unwrap())
                .valid()
                .bind()
        }),
        ("merged", |adapted, backbone, _| {
            let bytes = adapted.merge().unwrap().into_record().into_bytes().unwrap();
            backbone
                .valid()
                .load_record(ModuleRecord::from_bytes(bytes).unwrap())
                .valid()
        }),
    ];
    for (name, rewrite) in ways {
        let adapted = trained(config.init(backbone.clone()).unwrap(), &device);
        // A pass in training whose update of the statistics no other pass and no step has applied yet.
        adapted.bind().forward(input(16, &device));
        let written = rewrite(&adapted, &backbone, &config);
        let x = input(5, &Device::flex());
        let expected = adapted.valid().bind().forward(x.clone());
        close(written.forward(x), expected, 1e-4);
        assert_eq!(written.mean(), adapted.backbone().mean(), "{name}");
    }
    // An adapter starts from the last update of the model's own training.
    let model = Normed::new(&device);
    model.forward(input(16, &device));
    let adapted = config.init(model.clone()).unwrap();
    let start = adapted.backbone().norm.running_mean.value().into_data();
    assert_eq!(start.iter::<f32>().collect::<Vec<f32>>(), model.mean());
}

#[test]
fn an_update_that_is_still_to_come_does_not_replace_what_is_loaded() {
    let device = Device::flex().autodiff();
    let config = lora(&["norm"]);
    let backbone = Normed::new(&device);
    let first = trained(config.init(backbone.clone()).unwrap(), &device);
    let expected = first.backbone().mean();
    let folder = tempfile::tempdir().unwrap();
    first.save(folder.path()).unwrap();
    let record = first.clone().into_record().into_bytes().unwrap();
    let pending = || {
        let adapted = config.init(backbone.clone()).unwrap();
        adapted.bind().forward(input(16, &device));
        adapted
    };
    let loaded = pending().load_weights(folder.path()).unwrap();
    assert_eq!(loaded.backbone().mean(), expected);
    let loaded = pending().load_record(ModuleRecord::from_bytes(record).unwrap());
    assert_eq!(loaded.backbone().mean(), expected);
}

#[test]
fn unfreezing_an_adapted_model_trains_what_it_trained_before() {
    let device = Device::flex().autodiff();
    type Change = fn(Adapted<Normed>) -> Adapted<Normed>;
    let ways: [(&str, Change); 3] = [
        ("unfreeze", |adapted| adapted.unfreeze()),
        ("freeze and unfreeze", |adapted| adapted.freeze().unfreeze()),
        ("unfreeze in validation", |adapted| adapted.valid().unfreeze().train()),
    ];
    for (name, change) in ways {
        for norm in [false, true] {
            let saved: &[&str] = if norm { &["norm"] } else { &[] };
            let frozen_a = LoraConfig::new(2).with_freeze_a(true);
            let config = AdapterConfig::new(frozen_a).with_target_modules(["up"]);
            let model = Normed::new(&device);
            let adapted = config.with_modules_to_save(saved.to_vec()).init(model.clone()).unwrap();
            let before = adapted.backbone().mean();
            let adapted = change(adapted);
            // B, and the scale and the shift of the norm.
            let expected = if norm { 3 } else { 1 };
            assert_eq!(
                gradients(&adapted, input(16, &device)).len(),
                expected,
                "{name}, norm {norm}"
            );
            let adapted = trained(adapted, &device);
            assert_eq!(adapted.backbone().mean() != before, norm, "{name}, norm {norm}");
            assert_eq!(model.mean(), before, "{name}, norm {norm}");
        }
    }
    // A set of adapters of which none is active is its frozen backbone.
    let adapters = Adapters::new(Normed::new(&device)).unfreeze();
    let before = adapters.backbone().mean();
    adapters.bind().forward(input(16, &device));
    assert!(!adapters.backbone().up.weight.is_require_grad());
    assert_eq!(adapters.backbone().mean(), before);
}

#[test]
fn the_batch_count_of_a_norm_that_peft_saved_is_left_out() {
    let device = Device::flex();
    let config = lora(&["norm"]);
    let adapted = config.init(Normed::new(&device)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    adapted.save(folder.path()).unwrap();
    let path = folder.path().join(WEIGHTS_FILE);
    let tensors = read_tensors(&path).unwrap();
    let mut bytes: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, stored) in &tensors {
        let values = stored.values.iter().flat_map(|value| value.to_le_bytes());
        bytes.push((name.clone(), Dtype::F32, stored.shape.clone(), values.collect()));
    }
    let counter = "base_model.model.norm.num_batches_tracked".to_string();
    bytes.push((counter, Dtype::I64, Vec::new(), 7i64.to_le_bytes().to_vec()));
    let views = bytes.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).unwrap();
        (name.as_str(), view)
    });
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    assert_eq!(read_tensors(&path).unwrap(), tensors);
    let loaded = Adapted::load(adapted.backbone().clone(), folder.path()).unwrap();
    let x = input(3, &device);
    let outputs = [&adapted, &loaded].map(|adapted| adapted.bind().forward(x.clone()).into_data());
    assert_eq!(outputs[0], outputs[1]);
}

#[derive(Module, Debug)]
struct Two {
    a: Adapted<Normed>,
    b: Adapted<Normed>,
}

#[test]
fn two_adapters_of_one_model_train_a_head_each() {
    let device = Device::flex().autodiff();
    for drawn in [false, true] {
        let model = Normed::new(&device);
        if drawn {
            model.forward(input(2, &device));
        }
        let adapted = || lora(&["head"]).init(model.clone()).unwrap();
        let two = Two {
            a: adapted(),
            b: adapted(),
        };
        let loss = |adapted: &Adapted<Normed>| adapted.bind().forward(input(8, &device)).powi_scalar(2).mean();
        let of_one = GradientsParams::from_grads(loss(&two.a).backward(), &two);
        assert_eq!(of_one.len(), 4, "A, B, and the weight and bias of the first head");
        let both = GradientsParams::from_grads((loss(&two.a) + loss(&two.b)).backward(), &two);
        assert_eq!(both.len(), 8);
        let heads = |two: &Two| [&two.a, &two.b].map(|adapted| adapted.backbone().head.weight.val().into_data());
        let before = heads(&two);
        let after = heads(&SgdConfig::new().init().step(0.1, two, both));
        assert_eq!(before[0], before[1], "both start as the model's");
        assert!(before[0] != after[0] && before[1] != after[1]);
    }
}

#[test]
fn a_model_that_carries_an_adapter_takes_no_other() {
    let device = Device::flex().autodiff();
    let config = lora(&[]);
    let first = trained(config.init(Normed::new(&device)).unwrap(), &device);
    let folder = tempfile::tempdir().unwrap();
    first.save(folder.path()).unwrap();
    let head = AdapterConfig::lora(2).with_target_modules(["head"]);
    let burns = Normed::new(&device).apply_lora(Lora::new(2, 2.0));
    // Bound before anything draws its weights.
    let undrawn = config.init(Normed::new(&device)).unwrap().bind();
    let refused: [Result<(), AdapterError>; 8] = [
        config.init(first.bind()).map(drop),
        head.init(first.bind()).map(drop),
        head.init(burns).map(drop),
        Adapted::load(first.bind(), folder.path()).map(drop),
        Adapters::new(first.bind()).add("head", &head),
        Adapters::new(undrawn.clone()).add("head", &head),
        Adapters::new(undrawn.clone()).insert("first", first.clone()),
        Adapters::new(undrawn).load("first", folder.path()),
    ];
    for error in refused {
        let message = error.unwrap_err().to_string();
        assert!(message.contains("'up.weight' already carries an adapter"), "{message}");
    }
    // One with the adapter in its weights is a plain model.
    for model in [first.merge().unwrap(), first.valid().bind().materialize()] {
        assert!(head.init(model).is_ok());
    }
}
