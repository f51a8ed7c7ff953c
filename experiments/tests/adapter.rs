//! The `adapter` program: every subcommand on adapters of the backbone that ships.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use backbones::load_vit;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor};
use experiments::vtab::shipped_backbone;
use wegeft::AdapterConfig;
use wegeft::storage::{Stored, Tensors, read_tensors, write_tensors};

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap()
}

fn succeeds(args: &[&str]) -> String {
    let output = run(env!("CARGO_BIN_EXE_adapter"), args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn fails(args: &[&str], part: &str) {
    let output = run(env!("CARGO_BIN_EXE_adapter"), args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && !error.contains("panicked"),
        "{args:?}: {error}"
    );
    assert!(
        error.starts_with("adapter: ") && error.contains(part),
        "{args:?}: {error}"
    );
}

/// An adapter folder after one step, so that nothing in it is zero.
fn adapter(folder: &Path, config: AdapterConfig) {
    let device = Device::flex().autodiff();
    let model = load_vit(&shipped_backbone(), None, 0.0, &device).unwrap().model;
    let config = config.with_target_modules(["attn.proj"]).with_modules_to_save(["head"]);
    let mut adapted = config.init(model.with_head(3, &device)).unwrap();
    let pixels = Tensor::random([2, 3, 32, 32], Distribution::Normal(0.0, 1.0), &device);
    for _ in 0..2 {
        let loss = adapted.bind().forward(pixels.clone()).powi_scalar(2).sum();
        let grads = GradientsParams::from_grads(loss.backward(), &adapted);
        adapted = AdamWConfig::new().init().step(0.01, adapted, grads);
    }
    adapted.save(folder).unwrap();
}

fn logits(dir: &Path, args: &[&str]) -> Vec<f32> {
    let pixels = dir.join("pixels.safetensors");
    let values = (0..2 * 3 * 32 * 32)
        .map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0)
        .collect();
    let stored = Stored {
        shape: vec![2, 3, 32, 32],
        values,
    };
    write_tensors(&pixels, &Tensors::from([("pixel_values".to_string(), stored)])).unwrap();
    let out = dir.join("out.safetensors");
    let mut all = vec![pixels.to_str().unwrap(), "--output", out.to_str().unwrap()];
    all.extend(args);
    let output = run(env!("CARGO_BIN_EXE_predict"), &all);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    read_tensors(&out).unwrap()["logits"].values.clone()
}

fn close(a: &[f32], b: &[f32]) {
    assert!(
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4),
        "{a:?} {b:?}"
    );
}

#[test]
fn every_subcommand_keeps_the_function() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { dir.path().join(name) };
    let text = |path: &PathBuf| path.to_str().unwrap().to_string();
    let (wegeft, lora, back, merged) = (path("wegeft"), path("lora"), path("back"), path("merged"));
    adapter(&wegeft, AdapterConfig::wegeft(4));
    let (wegeft, lora, back, merged) = (text(&wegeft), text(&lora), text(&back), text(&merged));
    let expected = logits(dir.path(), &["--adapter", &wegeft]);

    let shown = succeeds(&["inspect", &wegeft]);
    for part in ["WEGEFT", "wegeft_phi.weight", "[4, 128]", "4 tensors"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    let shown = succeeds(&["export-lora", &wegeft, "--out", &lora]);
    assert!(
        shown.contains("blocks.3.attn.proj") && shown.contains("4 modules"),
        "{shown}"
    );
    close(&logits(dir.path(), &["--adapter", &lora]), &expected);
    assert!(succeeds(&["inspect", &lora, "--all"]).contains("blocks.2.attn.proj.lora_A.weight"));

    let shown = succeeds(&["convert", &lora, "--out", &back, "--r", "4"]);
    assert!(
        shown.contains("blocks.*.attn.proj") && shown.contains("0.000 %"),
        "{shown}"
    );
    close(&logits(dir.path(), &["--adapter", &back]), &expected);

    let shown = succeeds(&["merge", &wegeft, "--out", &merged]);
    assert!(
        shown.contains("blocks.0.attn.proj.weight") && shown.contains("4 weights merged"),
        "{shown}"
    );
    close(&logits(dir.path(), &["--backbone", &merged]), &expected);

    let shown = succeeds(&["diff", &wegeft, &wegeft]);
    assert!(
        shown.contains("the configs are the same") && shown.contains("0.00e0"),
        "{shown}"
    );
    let backbone = shipped_backbone();
    let shown = succeeds(&["diff", &wegeft, &lora, "--backbone", backbone.to_str().unwrap()]);
    for part in [
        "peft_type",
        "second only",
        "change of weight",
        "blocks.1.attn.proj.weight",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    fails(&["inspect", "/nowhere"], "cannot read /nowhere/adapter_config.json");
    fails(&["convert", &lora, "--out", &back, "--r", "200"], "choose 1 to 128");
    fails(&["inspect", &lora, "--device", "tpu"], "--device tpu");
    std::fs::write(Path::new(&lora).join("adapter_model.safetensors"), "no").unwrap();
    fails(&["merge", &lora, "--out", &merged], "adapter_model.safetensors");
}
