//! One training step against a stored one of PyTorch (fixtures/lm/make.py): WeGeFT in residual form on transformers'
//! Llama, LoRA by HF PEFT.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backbones::lm::{Decoder, LoadOptions, load_lm};
use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::Device;
use burn::train::TrainOutput;
use experiments::language::data::{Batch, Sequence};
use experiments::language::objective::Response;
use experiments::language::packing::pack;
use experiments::train::devices::Team;
use experiments::train::step::{Reduction, StepOutput, train_step};
use wegeft::storage::{Stored, read_tensors};
use wegeft::{Adapted, read_config};

type Step = experiments::train::stream::Step<Batch>;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/lm")
}

/// The fixture's sequences: -100 marks what is not learned.
fn sequences() -> Vec<Sequence> {
    let stored = read_tensors(&folder().join("batch.safetensors")).unwrap();
    let width = stored["ids"].shape[1];
    let row = |name: &str, row: usize| stored[name].values[row * width..(row + 1) * width].to_vec();
    let sequence = |at: usize| {
        let length = row("mask", at).iter().filter(|real| **real == 1.0).count();
        Sequence {
            ids: row("ids", at)[..length].iter().map(|id| *id as u32).collect(),
            learned: row("labels", at)[..length].iter().map(|label| *label >= 0.0).collect(),
            ..Sequence::default()
        }
    };
    (0..stored["ids"].shape[0]).map(sequence).collect()
}

/// The step of one batch of `sequences`.
fn step_of(sequences: &[Sequence], device: &Device) -> Step {
    Step {
        batches: vec![vec![Batch::new(sequences.iter(), device)]],
        seed: 0,
    }
}

fn step(device: &Device) -> Step {
    step_of(&sequences(), device)
}

fn adapted(method: &str, device: &Device) -> Adapted<Decoder> {
    let model = load_lm(&folder().join("model"), &LoadOptions::default(), device)
        .unwrap()
        .model;
    let adapter = folder().join(method);
    let config = read_config(&adapter).unwrap();
    config.init(model).unwrap().load_weights(&adapter).unwrap()
}

/// What a step gives, its gradients clipped to `max_grad_norm` (not at 0).
fn output(adapted: &Adapted<Decoder>, max_grad_norm: f64, checkpointing: bool, step: Step) -> TrainOutput<StepOutput> {
    let reduction = Reduction {
        max_grad_norm,
        mean_of_batch_means: false,
        checks_gradients: false,
        loss_scale: None,
    };
    let objective = Response { checkpointing };
    let devices = vec![adapted.devices().remove(0); step.batches[0].len()];
    train_step(&objective, reduction, adapted, step, &Team::new(&devices))
}

/// The adapter's tensors after one step of `optimizer`.
fn after(
    adapted: Adapted<Decoder>,
    mut optimizer: ModuleOptimizer,
    rate: f64,
    grads: GradientsParams,
) -> BTreeMap<String, Stored> {
    let stepped = optimizer.step(rate, adapted, grads);
    let dir = tempfile::tempdir().unwrap();
    stepped.save(dir.path()).unwrap();
    read_tensors(&dir.path().join("adapter_model.safetensors")).unwrap()
}

/// The greatest difference over the greatest value.
fn relative(ours: &[f32], theirs: &[f32]) -> f32 {
    let greatest = |values: &mut dyn Iterator<Item = f32>| values.map(f32::abs).fold(0.0, f32::max);
    greatest(&mut ours.iter().zip(theirs).map(|(a, b)| a - b)) / greatest(&mut theirs.iter().copied())
}

fn compare(method: &str, checkpointing: bool) {
    let device = Device::flex().autodiff();
    let expected = read_tensors(&folder().join(method).join("expected.safetensors")).unwrap();
    let before = read_tensors(&folder().join(method).join("adapter_model.safetensors")).unwrap();
    let part = |prefix: &str, name: &str| &expected[&format!("{prefix}.{name}")].values;

    let start = adapted(method, &device);
    let plain = output(&start, 0.0, checkpointing, step(&device));
    let loss = plain.item.loss();
    let wanted = expected["loss"].values[0];
    assert!((loss - f64::from(wanted)).abs() < 1e-5, "{method}: {loss} and {wanted}");
    // A step of plain gradient descent shows the gradients.
    let rate = 1e3;
    let moved = after(start.clone(), SgdConfig::new().init(), rate, plain.grads);
    assert_eq!(moved.len(), before.len());
    for (name, moved) in &moved {
        let pairs = before[name].values.iter().zip(&moved.values);
        let grad: Vec<f32> = pairs.map(|(before, after)| (before - after) / rate as f32).collect();
        let error = relative(&grad, part("grad", name));
        assert!(error < 1e-4, "{method}, gradient of {name}: {error:e}");
    }

    // Clipped over all gradients together, then AdamW.
    let clipped = output(&start, 0.05, checkpointing, step(&device));
    let adamw = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.0).init();
    for (name, stepped) in after(start, adamw, 1e-2, clipped.grads) {
        let error = relative(&stepped.values, part("after", &name));
        assert!(error < 1e-4, "{method}, {name} after the step: {error:e}");
    }
}

#[test]
fn a_wegeft_step_is_that_of_the_residual_form_in_pytorch() {
    compare("wegeft", false);
}

#[test]
fn a_lora_step_is_peft_s() {
    compare("lora", false);
}

#[test]
fn accumulated_batches_are_one_batch_and_so_are_shares_of_devices() {
    let device = Device::flex().autodiff();
    let whole = step(&device);
    let mut parts = step(&device);
    let row = |at: usize| {
        let ids: Vec<u32> = whole.batches[0][0]
            .ids
            .clone()
            .narrow(0, at, 1)
            .into_data()
            .iter::<u32>()
            .collect();
        let learned = (0..ids.len()).map(|column| column > 0 && ids[column] > 0).collect();
        Sequence {
            ids,
            learned,
            ..Sequence::default()
        }
    };
    let rows: Vec<Sequence> = (0..3).map(row).collect();
    let grads = |batches: Vec<Vec<Batch>>| {
        parts.batches = batches;
        let start = adapted("lora", &device);
        let output = output(&start, 0.0, false, parts.clone());
        (
            output.item.loss(),
            after(start, SgdConfig::new().init(), 1.0, output.grads),
        )
    };
    let mut grads = grads;
    let (loss, one) = grads(vec![vec![Batch::new(rows.iter(), &device)]]);
    let (sum, many) = grads(
        rows.chunks(1)
            .map(|row| vec![Batch::new(row.iter(), &device)])
            .collect(),
    );
    let (shared, devices) = grads(vec![
        rows.chunks(1).map(|row| Batch::new(row.iter(), &device)).collect(),
    ]);
    assert!((loss - sum).abs() < 1e-5 && (loss - shared).abs() < 1e-6);
    for (name, one) in one {
        assert!(relative(&many[&name].values, &one.values) < 1e-5, "{name}");
        assert!(relative(&devices[&name].values, &one.values) < 1e-6, "{name}");
    }
}

#[test]
fn checkpointed_activations_change_nothing() {
    compare("wegeft", true);
    compare("lora", true);
}

#[test]
fn packed_rows_are_a_step_on_their_examples() {
    let device = Device::flex().autodiff();
    let rows = pack(sequences(), 20);
    assert_eq!(
        rows.iter().map(Sequence::documents).collect::<Vec<_>>(),
        [vec![11, 9], vec![7]]
    );
    for (method, checkpointing) in [("lora", false), ("wegeft", false), ("wegeft", true)] {
        let run = |sequences: &[Sequence]| {
            let start = adapted(method, &device);
            let output = output(&start, 0.0, checkpointing, step_of(sequences, &device));
            let rate = 1e3;
            (
                output.item.loss(),
                after(start, SgdConfig::new().init(), rate, output.grads),
            )
        };
        let ((loss, one), (packed, many)) = (run(&sequences()), run(&rows));
        assert!((loss - packed).abs() < 1e-5, "{method}: {loss} and {packed}");
        let before = read_tensors(&folder().join(method).join("adapter_model.safetensors")).unwrap();
        for (name, one) in one {
            let grad = |after: &Stored| -> Vec<f32> {
                let pairs = before[&name].values.iter().zip(&after.values);
                pairs.map(|(before, after)| before - after).collect()
            };
            let error = relative(&grad(&many[&name]), &grad(&one));
            assert!(error < 1e-4, "{method}, gradient of {name}: {error:e}");
        }
    }
}
