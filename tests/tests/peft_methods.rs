//! Every method against HF PEFT, or against PyTorch written from the paper where PEFT lacks it
//! (fixtures/make_methods.py): outputs, and the adapter after one gradient step, on a tiny ViT.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use backbones::{Vit, load_vit};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Int, Tensor, TensorData, Tolerance};
use serde_json::Value;
use wegeft::storage::{CONFIG_FILE, Stored, Tensors, WEIGHTS_FILE, read_tensors, write_tensors};
use wegeft::{AdaLoraConfig, Adapted, RankAllocator, read_config};

/// What make_methods.py and make_tuners.py wrote, each into a folder of its own; their cases have different names.
const FOLDERS: [&str; 2] = ["methods", "tuners"];

static EXPECTED: LazyLock<Tensors> = LazyLock::new(|| {
    let read = |folder: &str| read_tensors(&fixtures().join(folder).join("expected.safetensors")).unwrap();
    FOLDERS.into_iter().flat_map(read).collect()
});
static CONFIGS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
    let read = |folder: &str| match json(&format!("{folder}/configs.json")) {
        Value::Object(configs) => configs,
        other => panic!("{folder}: {other}"),
    };
    FOLDERS.into_iter().flat_map(read).collect()
});

fn json(file: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(fixtures().join(file)).unwrap()).unwrap()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn tensor<const D: usize>(stored: &Stored, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(stored.values.clone(), stored.shape.clone()), device)
}

/// The tensors whose names begin with `prefix`, without it.
fn under(prefix: &str) -> Tensors {
    let named = EXPECTED
        .iter()
        .filter_map(|(name, stored)| Some((name.strip_prefix(prefix)?, stored)));
    named.map(|(name, stored)| (name.to_string(), stored.clone())).collect()
}

fn backbone(case: &str, device: &Device) -> Vit {
    let folder = tempfile::tempdir().unwrap();
    let config = fs::read_to_string(fixtures().join("peft/config.json")).unwrap();
    let pool = if case.ends_with("_avg") { "\"avg\"" } else { "\"token\"" };
    fs::write(folder.path().join("config.json"), config.replace("\"token\"", pool)).unwrap();
    fs::copy(
        fixtures().join("peft/model.safetensors"),
        folder.path().join("model.safetensors"),
    )
    .unwrap();
    load_vit(folder.path(), None, 0.0, device).unwrap().model
}

/// The adapter of that case as PEFT would have it on disk, with the tensors before the step.
fn write(case: &str, folder: &Path) {
    fs::write(folder.join(CONFIG_FILE), CONFIGS[case].to_string()).unwrap();
    write_tensors(&folder.join(WEIGHTS_FILE), &under(&format!("{case}/before/"))).unwrap();
}

fn close(ours: &Stored, theirs: &Stored, tolerance: f32, what: &str) {
    assert_eq!(ours.shape, theirs.shape, "{what}");
    for (index, (a, b)) in ours.values.iter().zip(&theirs.values).enumerate() {
        assert!((a - b).abs() < tolerance, "{what}[{index}]: {a} against PyTorch's {b}");
    }
}

fn logits(adapted: &Adapted<Vit>, device: &Device) -> Tensor<2> {
    adapted.bind().forward(tensor(&EXPECTED["pixel_values"], device))
}

fn stored(tensor: Tensor<2>) -> Stored {
    Stored {
        shape: tensor.dims().to_vec(),
        values: tensor.into_data().iter::<f32>().collect(),
    }
}

/// Loads a case, takes the step, saves; all of it against the fixture.
fn compare(case: &str) {
    let device = Device::flex().autodiff();
    let folder = tempfile::tempdir().unwrap();
    write(case, folder.path());
    let config = read_config(folder.path()).unwrap();
    let adapted = config
        .init(backbone(case, &device))
        .unwrap()
        .load_weights(folder.path())
        .unwrap();
    let before = logits(&adapted, &device);
    close(
        &stored(before.clone()),
        &EXPECTED[&format!("{case}/logits_before")],
        5e-5,
        case,
    );
    if config.method.merges() {
        let merged = adapted
            .merge()
            .unwrap()
            .forward(tensor(&EXPECTED["pixel_values"], &device));
        close(&stored(merged), &EXPECTED[&format!("{case}/logits_before")], 5e-5, case);
    }
    let labels = Tensor::<1, Int>::from_ints([1, 3], &device);
    let loss = CrossEntropyLossConfig::new().init(&device).forward(before, labels);
    let grads = GradientsParams::from_grads(loss.backward(), &adapted);
    let adapted = SgdConfig::new().init().step(0.1, adapted, grads);
    close(
        &stored(logits(&adapted, &device)),
        &EXPECTED[&format!("{case}/logits_after")],
        5e-5,
        case,
    );
    adapted.save(folder.path()).unwrap();
    let ours = read_tensors(&folder.path().join(WEIGHTS_FILE)).unwrap();
    let (before, after) = (under(&format!("{case}/before/")), under(&format!("{case}/after/")));
    assert!(ours.keys().eq(after.keys()), "{case}");
    let mut moved = 0;
    for (name, theirs) in &after {
        close(&ours[name], theirs, 2e-6, &format!("{case}: {name}"));
        moved += usize::from(before[name] != *theirs);
    }
    let fixed = if case == "vera" { 2 } else { 0 };
    assert_eq!(moved, after.len() - fixed, "{case}");
}

#[test]
fn every_case_agrees_with_pytorch() {
    assert!(CONFIGS.len() > 32);
    CONFIGS.keys().for_each(|case| compare(case));
}

#[test]
fn adalora_cuts_the_values_that_peft_cuts() {
    let device = Device::flex().autodiff();
    let folder = tempfile::tempdir().unwrap();
    let run = json("tuners/adalora_run.json");
    fs::write(folder.path().join(CONFIG_FILE), run["config"].to_string()).unwrap();
    write_tensors(&folder.path().join(WEIGHTS_FILE), &under("adalora_run/before/")).unwrap();
    let mut adapted = Adapted::load(backbone("adalora", &device), folder.path()).unwrap();
    let config = adapted.config().settings::<AdaLoraConfig>().unwrap().clone();
    let mut allocator = RankAllocator::new(&config).unwrap();
    let labels = Tensor::<1, Int>::from_ints([1, 3], &device);
    let mut cuts = 0;
    for (step, theirs) in run["steps"].as_array().unwrap().iter().enumerate() {
        let loss = CrossEntropyLossConfig::new()
            .init(&device)
            .forward(logits(&adapted, &device), labels.clone());
        let loss = loss + config.penalty(&adapted).unwrap();
        let value = loss.clone().into_scalar::<f64>();
        assert!(
            (value - theirs["loss"].as_f64().unwrap()).abs() < 2e-5,
            "step {step}: {value}"
        );
        let grads = GradientsParams::from_grads(loss.backward(), &adapted);
        allocator.observe(&adapted, &grads);
        adapted = SgdConfig::new().init().step(0.1, adapted, grads);
        adapted = allocator.allocate(step, adapted);
        let left: Vec<Vec<u8>> = adapted
            .bank()
            .factors
            .iter()
            .map(|site| {
                site.matrix("e")
                    .into_data()
                    .iter::<f32>()
                    .map(|e| u8::from(e != 0.0))
                    .collect()
            })
            .collect();
        assert_eq!(serde_json::json!(left), theirs["left"], "step {step}");
        cuts += left.iter().flatten().filter(|left| **left == 0).count();
    }
    assert!(cuts > 40);
    adapted.save(folder.path()).unwrap();
    let ours = read_tensors(&folder.path().join(WEIGHTS_FILE)).unwrap();
    for (name, theirs) in under("adalora_run/after/") {
        close(
            &ours[&format!("base_model.model.{}", name.trim_start_matches("base_model.model."))],
            &theirs,
            2e-5,
            &name,
        );
    }
}

#[test]
fn pissa_and_olora_start_from_peft_s_product() {
    let device = Device::flex();
    let cases = [
        ("pissa", "pissa"),
        ("pissa", "pissa_niter_16"),
        ("pissa_rslora", "pissa"),
        ("olora", "olora"),
    ];
    for (case, init) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut config = CONFIGS[case].clone();
        config["init_lora_weights"] = init.into();
        fs::write(folder.path().join(CONFIG_FILE), config.to_string()).unwrap();
        let config = read_config(folder.path()).unwrap();
        let fresh = config.init(backbone(case, &device)).unwrap();
        let theirs = under(&format!("{case}/product/"));
        assert_eq!(theirs.len(), 2);
        for (group, factors) in fresh.bank().groups().iter().zip(&fresh.bank().factors) {
            let product = factors.matrix("b").matmul(factors.matrix("a")).mul_scalar(group.scale);
            close(&stored(product), &theirs[&group.name], 2e-5, init);
        }
        // The residual starts at nothing, whatever the product.
        let frozen = fresh.backbone().forward(tensor(&EXPECTED["pixel_values"], &device));
        logits(&fresh, &device)
            .into_data()
            .assert_approx_eq::<f32>(&frozen.into_data(), Tolerance::absolute(1e-5));
    }
}
