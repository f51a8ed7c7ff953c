//! Text classifiers of every family against transformers (tests/fixtures/encoder/make.py), and what must not load.

mod loading;
mod parity;
mod texts;
mod training;

use std::path::{Path, PathBuf};

use backbones::classify::{ClassifierOptions, PretrainedClassifier, load_classifier};
use burn::tensor::{Device, Int, Tensor, TensorData};
use wegeft::storage::{Stored, Tensors, read_tensors};

fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoder");
    fixtures.join(name)
}

fn expected(name: &str) -> Tensors {
    read_tensors(&fixture(name).join("expected.safetensors")).unwrap()
}

fn load(name: &str, device: &Device) -> PretrainedClassifier {
    load_classifier(fixture(name).to_str().unwrap(), &ClassifierOptions::default(), device).unwrap()
}

fn ids(stored: &Stored, device: &Device) -> Tensor<2, Int> {
    let values: Vec<i64> = stored.values.iter().map(|id| *id as i64).collect();
    Tensor::from_data(TensorData::new(values, stored.shape.clone()), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().iter().collect()
}

fn furthest(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.iter().all(|value| value.is_finite()));
    let pairs = ours.iter().zip(theirs);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A copy of a fixture that can be damaged.
fn copy(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(name)).unwrap().flatten() {
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}
