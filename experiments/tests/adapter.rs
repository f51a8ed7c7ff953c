//! The `adapter` program: every subcommand on adapters of the backbone that ships, and on one of a tiny Llama
//! (tests/fixtures/lm/make.py).

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use backbones::load_vit;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor};
use experiments::cli::shipped;
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
    let start = format!("adapter {}: ", args[0]);
    assert!(error.starts_with(&start) && error.contains(part), "{args:?}: {error}");
}

/// An adapter folder after one step, so that nothing in it is zero.
fn adapter(folder: &Path, config: AdapterConfig) {
    let device = Device::flex().autodiff();
    let model = load_vit(&shipped::backbone().unwrap(), None, 0.0, &device)
        .unwrap()
        .model;
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
    let mut all = vec![pixels.to_str().unwrap(), "--out", out.to_str().unwrap()];
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
fn a_folder_that_another_process_writes_into_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (from, out) = (dir.path().join("wegeft"), dir.path().join("out"));
    adapter(&from, AdapterConfig::wegeft(4));
    std::fs::create_dir(&out).unwrap();
    let other = std::fs::File::create(out.join(".lock")).unwrap();
    other.lock().unwrap();
    let (from, place) = (from.to_str().unwrap(), out.to_str().unwrap());
    let count = || std::fs::read_dir(&out).unwrap().count();
    for more in [&["merge"][..], &["export-lora"], &["convert", "--r", "4"]] {
        fails(&[more, &[from, "--out", place]].concat(), "is in use by");
        assert_eq!(count(), 1, "{more:?}");
    }
    drop(other);
    succeeds(&["export-lora", from, "--out", place]);
    // The adapter alone, with the name of the program: no file of the lock.
    assert_eq!(count(), 3);
    // It replaces its own result, and not that of another subcommand.
    succeeds(&["export-lora", from, "--out", place]);
    for more in [&["merge"][..], &["convert", "--r", "4"]] {
        fails(
            &[more, &[from, "--out", place]].concat(),
            "holds adapter_config.json of another model or adapter; choose another folder",
        );
    }
    assert_eq!(count(), 3);
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
    let backbone = shipped::backbone().unwrap();
    let shown = succeeds(&["diff", &wegeft, &lora, "--backbone", backbone.to_str().unwrap()]);
    for part in [
        "peft_type",
        "second only",
        "change of weight",
        "blocks.1.attn.proj.weight",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    // A result would replace what it is made of.
    let same = format!("{wegeft}/../wegeft");
    let own = format!("--out {same} holds the adapter itself");
    for subcommand in ["merge", "export-lora", "convert"] {
        fails(&[subcommand, &wegeft, "--out", &same], &own);
    }
    close(&logits(dir.path(), &["--adapter", &wegeft]), &expected);

    fails(&["inspect", "/nowhere"], "cannot read /nowhere/adapter_config.json");
    fails(&["convert", &lora, "--out", &back, "--r", "200"], "choose 1 to 128");
    fails(&["inspect", &lora, "--device", "tpu"], "--device tpu");
    let file = Path::new(&lora).join("adapter_model.safetensors");
    let mut tensors = read_tensors(&file).unwrap();
    let b = tensors.iter_mut().find(|(name, _)| name.ends_with("lora_B.weight"));
    b.unwrap().1.values[0] = f32::NAN;
    write_tensors(&file, &tensors).unwrap();
    let none = text(&path("none"));
    fails(&["export-lora", &lora, "--out", &none], "NaN or infinite");
    assert!(!path("none").exists());
    std::fs::write(&file, "no").unwrap();
    fails(&["merge", &lora, "--out", &merged], "adapter_model.safetensors");
}

/// A folder with the tiny Llama and a word tokenizer, and its WeGeFT adapter.
fn language(dir: &Path) -> (String, String) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let copy = |from: &str, to: &str| {
        std::fs::create_dir_all(dir.join(to)).unwrap();
        for entry in std::fs::read_dir(fixtures.join(from)).unwrap().flatten() {
            let path = entry.path();
            if path.is_file() {
                std::fs::copy(&path, dir.join(to).join(path.file_name().unwrap())).unwrap();
            }
        }
        dir.join(to).to_str().unwrap().to_string()
    };
    copy("generate", "llama");
    (copy("lm/model", "llama"), copy("lm/wegeft", "wegeft"))
}

fn language_logits(dir: &Path, model: &str, adapter: Option<&str>) -> Vec<f32> {
    let (ids, out) = (dir.join("ids.safetensors"), dir.join("logits.safetensors"));
    let bytes: Vec<u8> = [3i64, 17, 5, 42, 8].iter().flat_map(|id| id.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::I64, vec![5], &bytes).unwrap();
    std::fs::write(&ids, safetensors::serialize([("input_ids", view)], None).unwrap()).unwrap();
    let (ids, out) = (ids.to_str().unwrap(), out.to_str().unwrap());
    let mut args = vec!["--model", model, "--input-ids", ids, "--logits", out];
    args.extend(adapter.into_iter().flat_map(|adapter| ["--adapter", adapter]));
    let output = run(env!("CARGO_BIN_EXE_generate"), &args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bytes = std::fs::read(out).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = file.tensor("logits").unwrap().data().chunks_exact(4);
    values
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect()
}

#[test]
fn every_subcommand_keeps_the_function_of_a_language_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (model, wegeft) = language(dir.path());
    let (lora, back, merged, half) = (path("lora"), path("back"), path("merged"), path("half"));
    let on = ["--backbone", &model];
    let expected = language_logits(dir.path(), &model, Some(&wegeft));
    assert!(succeeds(&["inspect", &wegeft]).contains("self_attn.q_proj.wegeft_phi.weight"));

    let shown = succeeds(&[&["export-lora", &wegeft, "--out", &lora], &on[..]].concat());
    assert!(
        shown.contains("model.layers.1.mlp.down_proj") && shown.contains("10 modules"),
        "{shown}"
    );
    close(&language_logits(dir.path(), &model, Some(&lora)), &expected);

    // The exported adapter says which model it is for.
    let shown = succeeds(&["convert", &lora, "--out", &back, "--r", "4"]);
    assert!(shown.contains("all") && shown.contains("0.000 %"), "{shown}");
    close(&language_logits(dir.path(), &model, Some(&back)), &expected);

    let shown = succeeds(&[&["merge", &wegeft, "--out", &merged], &on[..]].concat());
    assert!(
        shown.contains("model.layers.0.self_attn.q_proj.weight") && shown.contains("10 weights merged"),
        "{shown}"
    );
    close(&language_logits(dir.path(), &merged, None), &expected);
    let names = |folder: &str| -> Vec<String> {
        let tensors = read_tensors(&Path::new(folder).join("model.safetensors")).unwrap();
        tensors.into_keys().collect()
    };
    assert_eq!(names(&merged), names(&model));
    assert!(Path::new(&merged).join("tokenizer.json").is_file());
    succeeds(&["merge", &lora, "--out", &half, "--dtype", "bf16"]);
    let config = std::fs::read_to_string(Path::new(&half).join("config.json")).unwrap();
    assert!(config.contains("bfloat16"), "{config}");
    let size = |folder: &str| {
        std::fs::metadata(Path::new(folder).join("model.safetensors"))
            .unwrap()
            .len()
    };
    assert!(size(&half) < size(&merged) * 6 / 10);
    let off = language_logits(dir.path(), &half, None);
    assert!(off.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 0.1));

    let shown = succeeds(&[&["diff", &wegeft, &lora], &on[..]].concat());
    assert!(
        shown.contains("change of weight") && shown.contains("model.layers.1.mlp.up_proj.weight"),
        "{shown}"
    );
    assert!(!shown.contains("embed_tokens"), "{shown}");

    fails(
        &[&["merge", &wegeft, "--out", &model], &on[..]].concat(),
        "choose another folder",
    );
    fails(&["merge", &lora, "--out", &merged, "--dtype", "f64"], "--dtype");
    fails(
        &["merge", &lora, "--out", &merged, "--backbone", "/nowhere"],
        "/nowhere",
    );
    std::fs::remove_dir_all(&model).unwrap();
    fails(&["merge", &lora, "--out", &merged], "--model");
}
