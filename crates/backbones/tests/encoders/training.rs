//! One training step against PyTorch and PEFT, and what dropout does.

use backbones::classify::{ClassifierOptions, SequenceClassifier, Targets, load_classifier};
use backbones::lm::{Layout, Side};
use burn::optim::{AdamWConfig, GradientsParams, SgdConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use wegeft::storage::{Stored, Tensors, read_config, read_tensors, write_tensors};
use wegeft::{Adapted, AdapterConfig};

use crate::{copy, expected, fixture, furthest, ids, load, values};

const WEIGHTS: &str = "adapter_model.safetensors";

fn layout() -> Layout {
    Layout::padded(&[12, 7, 1], 12, Side::Right)
}

fn loss(model: &SequenceClassifier, device: &Device) -> Tensor<1> {
    let (bert, train) = (expected("bert"), expected("train"));
    let logits = model.forward(ids(&bert["ids"], device), &layout(), Some(ids(&bert["types"], device)));
    let labels: Vec<i64> = train["labels"].values.iter().map(|label| *label as i64).collect();
    let labels = Tensor::<1, Int>::from_data(TensorData::from(labels.as_slice()), device);
    model.labels().loss(logits, Targets::Classes(labels))
}

/// What a step leaves on disk.
fn saved(adapted: &Adapted<SequenceClassifier>) -> Tensors {
    let dir = tempfile::tempdir().unwrap();
    adapted.save(dir.path()).unwrap();
    let tensors = read_tensors(&dir.path().join(WEIGHTS)).unwrap().into_iter();
    let short = |name: String| name.replacen("base_model.model.", "", 1);
    tensors.map(|(name, tensor)| (short(name), tensor)).collect()
}

/// `rate` times plain gradient descent from `adapted`, as gradients: (before - after) / rate.
fn gradients(adapted: Adapted<SequenceClassifier>, device: &Device) -> Tensors {
    let before = saved(&adapted);
    let grads = GradientsParams::from_grads(loss(&adapted.bind(), device).backward(), &adapted);
    let after = saved(&SgdConfig::new().init().step(1.0, adapted, grads));
    let difference = |(name, before): (String, Stored)| {
        let pairs = before.values.iter().zip(&after[&name].values);
        let values = pairs.map(|(before, after)| before - after).collect();
        (name, Stored { values, ..before })
    };
    before.into_iter().map(difference).collect()
}

#[test]
fn a_step_of_lora_is_peft_s() {
    let device = Device::flex().autodiff();
    let theirs = expected("train");
    let folder = fixture("train/lora");
    let config = read_config(&folder).unwrap().with_modules_to_save(["classifier"]);
    let adapted = config
        .init(load("bert", &device).model)
        .unwrap()
        .load_weights(&folder)
        .unwrap();
    let ours = loss(&adapted.bind(), &device).into_scalar::<f32>();
    assert!((ours - theirs["lora.loss"].values[0]).abs() < 1e-5, "{ours}");

    let found = gradients(adapted.clone(), &device);
    assert_eq!(found.len(), 10, "8 factors, weight and bias");
    for (name, gradient) in &found {
        let off = furthest(&gradient.values, &theirs[&format!("lora.grad.{name}")].values);
        assert!(off < 1e-5, "gradient of {name}: {off}");
    }

    let grads = GradientsParams::from_grads(loss(&adapted.bind(), &device).backward(), &adapted);
    let mut optimizer = AdamWConfig::new().with_weight_decay(0.0).with_epsilon(1e-8).init();
    let after = saved(&optimizer.step(0.01, adapted, grads));
    for (name, parameter) in &after {
        let off = furthest(&parameter.values, &theirs[&format!("lora.after.{name}")].values);
        assert!(off < 1e-5, "{name} after a step: {off}");
    }
}

#[test]
fn gradients_of_wegeft_are_pytorch_s() {
    let device = Device::flex().autodiff();
    let theirs = expected("train");
    let config = AdapterConfig::wegeft(2).with_target_modules(["query"]);
    let adapted = config.init(load("bert", &device).model).unwrap();
    // Its factors are [rank, d] on disk, phi transposed.
    let dir = tempfile::tempdir().unwrap();
    adapted.save(dir.path()).unwrap();
    let path = dir.path().join(WEIGHTS);
    let mut tensors = read_tensors(&path).unwrap();
    for (name, tensor) in &mut tensors {
        *tensor = match name.contains("wegeft_phi") {
            true => transposed(&theirs["wegeft.phi"]),
            false => theirs["wegeft.psi"].clone(),
        };
    }
    write_tensors(&path, &tensors).unwrap();
    let adapted = adapted.load_weights(dir.path()).unwrap();
    let ours = loss(&adapted.bind(), &device).into_scalar::<f32>();
    assert!((ours - theirs["wegeft.loss"].values[0]).abs() < 1e-5, "{ours}");
    let found = gradients(adapted, &device);
    assert_eq!(found.len(), 2);
    for (name, gradient) in &found {
        let expected = match name.contains("wegeft_phi") {
            true => transposed(&theirs["wegeft.grad.phi"]),
            false => theirs["wegeft.grad.psi"].clone(),
        };
        let off = furthest(&gradient.values, &expected.values);
        assert!(off < 1e-5, "gradient of {name}: {off}");
    }
}

fn transposed(stored: &Stored) -> Stored {
    let (rows, columns) = (stored.shape[0], stored.shape[1]);
    let places = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
    Stored {
        shape: vec![columns, rows],
        values: places.map(|place| stored.values[place]).collect(),
    }
}

/// Every family trains through its adapters: a step lowers the loss, and merging keeps what it computes.
#[test]
fn every_family_learns_through_its_adapters() {
    let device = Device::flex().autodiff();
    for (name, targets) in [
        ("bert", ["query", "value"]),
        ("roberta", ["query", "value"]),
        ("distilbert", ["q_lin", "v_lin"]),
        ("electra", ["query", "value"]),
        ("deberta_v2", ["query_proj", "value_proj"]),
        ("deberta_v3", ["query_proj", "value_proj"]),
        ("modernbert", ["Wqkv", "mlp.Wo"]),
        ("llama", ["q_proj", "v_proj"]),
    ] {
        for config in [AdapterConfig::lora(2), AdapterConfig::wegeft(2)] {
            let options = ClassifierOptions {
                dropout: false,
                ..ClassifierOptions::default()
            };
            let folder = fixture(name);
            let model = load_classifier(folder.to_str().unwrap(), &options, &device)
                .unwrap()
                .model;
            let mut adapted = config.with_target_modules(targets).init(model).unwrap();
            let stored = expected(name);
            let tokens = ids(&stored["ids"], &device);
            let labels = Tensor::<1, Int>::from_ints([1, 0, 1], &device);
            let loss = |model: &SequenceClassifier| {
                let logits = model.forward(tokens.clone(), &layout(), None);
                model.labels().loss(logits, Targets::Classes(labels.clone()))
            };
            let before = loss(&adapted.bind()).into_scalar::<f32>();
            let mut optimizer = AdamWConfig::new().init();
            for _ in 0..5 {
                let grads = GradientsParams::from_grads(loss(&adapted.bind()).backward(), &adapted);
                adapted = optimizer.step(0.01, adapted, grads);
            }
            let after = loss(&adapted.bind()).into_scalar::<f32>();
            assert!(after < before, "{name}: {before} -> {after}");
            let merged = loss(&adapted.merge().unwrap()).into_scalar::<f32>();
            assert!((merged - after).abs() < 1e-4, "{name}: {after}, merged {merged}");
        }
    }
}

#[test]
fn dropout_is_for_training_alone() {
    let dir = copy("bert");
    let path = dir.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replace("\"hidden_dropout_prob\": 0.0", "\"hidden_dropout_prob\": 0.3");
    let text = text.replace(
        "\"attention_probs_dropout_prob\": 0.0",
        "\"attention_probs_dropout_prob\": 0.3",
    );
    std::fs::write(&path, text).unwrap();
    let stored = expected("bert");
    let logits = |device: &Device, dropout: bool| {
        let options = ClassifierOptions {
            dropout,
            ..ClassifierOptions::default()
        };
        let model = load_classifier(dir.path().to_str().unwrap(), &options, device)
            .unwrap()
            .model;
        values(model.forward(ids(&stored["whole_ids"], device), &Layout::dense(2, 12), None))
    };
    let exact = &stored["whole_logits"].values;
    let training = Device::flex().autodiff();
    training.seed(1);
    assert!(furthest(&logits(&training, true), exact) > 1e-2);
    assert!(furthest(&logits(&training, false), exact) < 1e-5);
    assert!(furthest(&logits(&Device::flex(), true), exact) < 1e-5);
}
