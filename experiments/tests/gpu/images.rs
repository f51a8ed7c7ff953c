//! Vision transformers on a GPU.

use std::path::Path;

use serde_json::Value;

use crate::halves::make_task;
use crate::program::{GPU, no_gpu, succeeds};
use crate::trained::{differences, short};

fn accuracy(run: &Path) -> f64 {
    let summary: Value = serde_json::from_slice(&std::fs::read(run.join("summary.json")).unwrap()).unwrap();
    summary[0]["value"].as_f64().unwrap()
}

#[test]
fn images_train_as_on_flex_and_two_devices_as_one() {
    if no_gpu() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path(), "halves", 8);
    let data = dir.path().to_str().unwrap();
    let run = |name: &str, more: &[&str]| {
        let out = dir.path().join(name);
        let fixed = ["--epochs", "2", "--max-grad-norm", "0.5"];
        succeeds(&[&short(data, out.to_str().unwrap())[..], &fixed, more].concat());
        out
    };
    let trained = |out: &Path| out.join("halves/wegeft");
    // Head and factors start with other random numbers there.
    let (flex, one) = (run("flex", &[]), run("one", &["--device", GPU]));
    let (_, losses) = differences(&trained(&flex), &trained(&one));
    assert!(losses < 0.7, "{losses}");
    let off = (accuracy(&flex) - accuracy(&one)).abs();
    assert!(off <= 25.0, "{off}");

    let two = run("two", &["--devices", &format!("{GPU},{GPU}")]);
    let (weights, losses) = differences(&trained(&one), &trained(&two));
    assert!(weights < 1e-3 && losses < 1e-4, "{weights} {losses}");
}
