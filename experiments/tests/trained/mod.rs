//! Short trainings on different devices, and how far apart they end.

use std::path::Path;

/// The flags of a short training on that task, whose last batch is smaller.
pub fn short<'a>(data: &'a str, out: &'a str) -> Vec<&'a str> {
    let fixed = [
        "vtab",
        "--method",
        "wegeft",
        "--task",
        "halves",
        "--batch-size",
        "5",
        "--log-steps",
        "1",
    ];
    [&fixed[..], &["--data", data, "--out", out]].concat()
}

/// The greatest differences of the elements of two adapters and of the losses of their trainings.
pub fn differences(one: &Path, other: &Path) -> (f64, f64) {
    let tensors = |run: &Path| wegeft::storage::read_tensors(&run.join("adapter/adapter_model.safetensors")).unwrap();
    let (first, second) = (tensors(one), tensors(other));
    assert!(first.keys().eq(second.keys()) && !first.is_empty());
    let of_weights = first.iter().flat_map(|(name, tensor)| {
        let pairs = tensor.values.iter().zip(&second[name].values);
        pairs.map(|(a, b)| f64::from((a - b).abs()))
    });
    let losses = |run: &Path| -> Vec<f64> {
        let lines = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let loss = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64();
        lines.lines().filter_map(loss).collect()
    };
    let (of_one, of_other) = (losses(one), losses(other));
    assert!(of_one.len() == of_other.len() && !of_one.is_empty());
    let of_losses = of_one.iter().zip(&of_other).map(|(a, b)| (a - b).abs());
    (of_weights.fold(0.0, f64::max), of_losses.fold(0.0, f64::max))
}
