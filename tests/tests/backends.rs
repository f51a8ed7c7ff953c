//! The `vtab` experiment, whole, on every CPU backend with the same assertions; and what a backend cannot do.

use std::path::Path;

use backbones::lm::{LoadOptions, Precision, load_lm};
use burn::tensor::DType;
use burn::train::Interrupter;
use experiments::cli::device::device as device_named;
use experiments::run::outcome::Outcome;

/// Images whose left or right half is bright; the classes of `test` are told apart by nothing else.
fn make_task(root: &Path) {
    let folder = root.join("halves");
    std::fs::create_dir_all(folder.join("images")).unwrap();
    for (list, count) in [("train800", 24), ("val200", 8), ("test", 12)] {
        let mut lines = String::new();
        for i in 0..count {
            let (bright, dark) = (255 - 3 * i as u8, 3 * i as u8);
            let image = image::RgbImage::from_fn(40, 36, |x, _| {
                image::Rgb([if (x < 20) == (i % 2 == 0) { bright } else { dark }; 3])
            });
            image.save(folder.join(format!("images/{list}{i}.png"))).unwrap();
            lines += &format!("images/{list}{i}.png {}\n", i % 2);
        }
        std::fs::write(folder.join(format!("{list}.txt")), lines).unwrap();
    }
}

fn vtab(root: &Path, device: &str, methods: &str, lr: &str) -> Vec<Outcome> {
    let out = root.join("run").join(lr);
    let args = [
        "vtab",
        "--data",
        root.to_str().unwrap(),
        "--method",
        methods,
        "--epochs",
        "12",
        "--batch-size",
        "8",
        "--lr",
        lr,
        "--device",
        device,
        "--out",
        out.to_str().unwrap(),
    ];
    experiments::wegeft::outcomes(args, &Interrupter::new()).unwrap()
}

fn whole_run(device: &str) {
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path());
    let mut outcomes = vtab(dir.path(), device, "linear,lora,wegeft", "0.02");
    outcomes.extend(vtab(dir.path(), device, "full", "0.0002"));
    let methods: Vec<&str> = outcomes.iter().map(|o| o.method.as_str()).collect();
    assert_eq!(methods, ["linear", "lora", "wegeft", "full"]);
    let params: Vec<usize> = outcomes.iter().map(|o| o.trainable_params).collect();
    assert_eq!(&params[..3], [0, 8192, 4096]);
    for outcome in &outcomes {
        assert_eq!(outcome.value, Some(100.0), "{device}: {outcome:?}");
        let lr = if outcome.method == "full" { "0.0002" } else { "0.02" };
        let run = dir.path().join("run").join(lr).join("halves").join(&outcome.method);
        let first = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let losses: Vec<f64> = first
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .filter(|line| line["split"] == "train")
            .map(|line| line["loss"].as_f64().unwrap())
            .collect();
        assert_eq!(losses.len(), 12);
        assert!(losses[11] < 0.95 * losses[0], "{device} {}: {losses:?}", outcome.method);
        assert!(run.join("adapter/adapter_model.safetensors").is_file());
    }
    let report = std::fs::read_to_string(dir.path().join("run/0.02/report.html")).unwrap();
    for part in [
        "<svg",
        "data:image&#x2f;png;base64,",
        "halves",
        "<td>wegeft</td><td>4096</td>",
    ] {
        assert!(report.contains(part), "{part}");
    }
    assert!(
        !report.contains("src=\"http") && !report.contains("<link"),
        "the report needs the network"
    );
}

#[test]
fn flex() {
    whole_run("flex");
}

#[test]
fn ndarray() {
    whole_run("ndarray");
}

/// What a device cannot compute in, Burn would hand out without a word.
#[test]
fn a_type_that_the_device_does_not_compute_in_is_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/language-model");
    let load = |device: &str, precision: Precision| {
        let options = LoadOptions {
            precision,
            ..LoadOptions::default()
        };
        load_lm(&folder, &options, &device_named(device).unwrap()).map(drop)
    };
    let error = load("ndarray", Precision::Bf16).unwrap_err().to_string();
    assert_eq!(error, "this device does not compute in bf16; load the weights as f32");
    assert!(load("ndarray", Precision::F16).is_err() && load("ndarray", Precision::F32).is_ok());
    assert!(load("flex", Precision::Bf16).is_ok() && load("flex", Precision::F16).is_ok());
    // ndarray says that it has flex32, and makes f32 of it.
    for device in ["ndarray", "flex"] {
        let error = load(device, Precision::Flex32).unwrap_err().to_string();
        assert!(error.starts_with("this device does not compute in flex32"), "{error}");
    }
}

/// A CPU stores half precision and computes in f32, also where it trains: then no gradient underflows.
#[test]
fn flex_computes_in_f32_from_half_precision() {
    let device = device_named("flex").unwrap().autodiff();
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        assert_eq!(precision.activations(&device), DType::F32);
    }
}
