//! Files that have changed, and folders that cannot be read: one sentence each, never other numbers without a word.

use std::path::Path;

use serde_json::Value;

use crate::{fails, json, make_task, succeeds, sums, text, wegeft};

fn trained<'a>(root: &Path, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    make_task(root, "halves", 4);
    let fixed = [
        "vtab",
        "--method",
        "lora",
        "--epochs",
        "1",
        "--batch-size",
        "4",
        "--out",
        out,
    ];
    [&fixed[..], more].concat()
}

#[test]
fn a_flipped_bit_of_an_adapter_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("run"));
    let (data, place) = (data.to_str().unwrap(), out.to_str().unwrap());
    succeeds(&trained(Path::new(data), place, &["--data", data]));
    let adapter = out.join("halves/lora/adapter");
    let image = format!("{data}/halves/images/test0.png");
    let predict = ["predict", "--adapter", adapter.to_str().unwrap(), &image];
    succeeds(&predict);
    let weights = adapter.join("adapter_model.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    for at in [whole.len() / 2, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        std::fs::write(&weights, flipped).unwrap();
        fails(&predict, &["adapter_model.safetensors", "checksum"]);
    }
}

#[test]
fn a_damaged_adapter_of_a_finished_run_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (data, images) = (dir.path().join("data"), dir.path().join("images"));
    let (data, images) = (data.to_str().unwrap(), images.to_str().unwrap());
    let of_images = trained(Path::new(data), images, &["--data", data]);
    let (lines, texts) = (dir.path().join("sums.jsonl"), dir.path().join("texts"));
    sums(&lines, 6);
    let fixed = "finetune --method lora --lora-r 2 --epochs 1 --batch-size 2 --train-file";
    let given = [lines.to_str().unwrap(), "--out", texts.to_str().unwrap()];
    let of_texts: Vec<&str> = fixed.split_whitespace().chain(given).collect();
    for (args, trial) in [
        (of_images, format!("{images}/halves/lora")),
        (of_texts, format!("{}/lora", texts.display())),
    ] {
        succeeds(&args);
        let weights = Path::new(&trial).join("adapter/adapter_model.safetensors");
        let whole = std::fs::read(&weights).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        std::fs::write(&weights, flipped).unwrap();
        let output = wegeft(&args);
        let told = text(&output.stderr);
        assert!(
            output.status.success() && told.contains("so it is made again"),
            "{told}"
        );
        assert!(std::fs::read(&weights).unwrap() == whole, "{trial}");
        let beside = Path::new(&trial).join("adapter/classifier.json");
        if let Ok(classifier) = std::fs::read(&beside) {
            std::fs::remove_file(&beside).unwrap();
            succeeds(&args);
            assert!(std::fs::read(&beside).unwrap() == classifier);
        }
        let told = text(&wegeft(&args).stderr);
        assert!(!told.contains("made again"), "{told}");
    }
}

#[test]
fn a_pretraining_that_is_refused_leaves_the_finished_one() {
    let dir = tempfile::tempdir().unwrap();
    let args = "pretrain-lm --steps 2 --batch-size 2 --max-length 16 --vocab-size 300 --d-model 64 --depth 1 --out";
    let args: Vec<&str> = args.split_whitespace().chain([dir.path().to_str().unwrap()]).collect();
    succeeds(&args);
    fails(&[&args[..], &["--learning-rate", "0.1"]].concat(), &["other flags"]);
    assert!(dir.path().join("training/trained.json").is_file());
    assert!(succeeds(&args).contains("has the model of 2 steps"));
}

#[test]
fn an_image_that_was_edited_between_two_starts_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("run"));
    let (data, place) = (data.to_str().unwrap(), out.to_str().unwrap());
    let args = trained(Path::new(data), place, &["--data", data]);
    succeeds(&args);
    // Another image of as many bytes: only its content tells.
    let path = format!("{data}/halves/images/train8000.png");
    let bytes = std::fs::read(&path).unwrap();
    let mut edited = bytes.clone();
    let last = edited.len() - 20;
    edited[last] ^= 1;
    std::fs::write(&path, &edited).unwrap();
    std::fs::remove_dir_all(out.join("halves")).unwrap();
    fails(&args, &["other data"]);
    std::fs::write(&path, bytes).unwrap();
    succeeds(&args);
}

#[test]
fn what_killed_runs_were_writing_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("run"));
    let (data, place) = (data.to_str().unwrap(), out.to_str().unwrap());
    let args = trained(Path::new(data), place, &["--data", data]);
    // In a folder that no run was in, they could be those of any program.
    succeeds(&args);
    let strays = [".tmpAbCd12", "halves/lora/checkpoints/.tmpZZZ999"].map(|name| out.join(name));
    for stray in &strays {
        std::fs::create_dir_all(stray.parent().unwrap()).unwrap();
        std::fs::write(stray, "torn").unwrap();
    }
    succeeds(&args);
    assert!(strays.iter().all(|stray| !stray.exists()));
}

#[cfg(unix)]
#[test]
fn a_task_that_cannot_be_read_is_not_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("run"));
    let (data, place) = (data.to_str().unwrap(), out.to_str().unwrap());
    let args = trained(Path::new(data), place, &["--data", data]);
    let broken = Path::new(data).join("broken");
    std::fs::create_dir(&broken).unwrap();
    // A link to itself can be read by nobody, root included.
    std::os::unix::fs::symlink("train800.txt", broken.join("train800.txt")).unwrap();
    fails(&args, &["broken"]);
    std::fs::remove_dir_all(&broken).unwrap();
    succeeds(&args);
}

#[test]
fn images_above_the_given_size_and_columns_without_parquet_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("run"));
    let (data, place) = (data.to_str().unwrap(), out.to_str().unwrap());
    let args = trained(Path::new(data), place, &["--data", data]);
    fails(
        &[&args[..], &["--max-image-pixels", "1000"]].concat(),
        &["1024", "pixels"],
    );
    let image = format!("{data}/halves/images/test0.png");
    fails(
        &["predict", &image, "--max-image-pixels", "1000"],
        &["test0.png", "pixels"],
    );
    fails(
        &[&args[..], &["--image-field", "img"]].concat(),
        &["--image-field", "parquet"],
    );
    let sample = [&args[..7], &["--label-field", "y", "--out", place]].concat();
    fails(&sample, &["--label-field", "--data"]);
}

#[test]
fn weights_of_half_precision_train_in_both_wings() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    make_task(&data, "halves", 4);
    let mut values = Vec::new();
    for dtype in ["f32", "bf16", "f16"] {
        let out = dir.path().join(dtype);
        let args = [
            "vtab",
            "--method",
            "lora,full",
            "--epochs",
            "2",
            "--batch-size",
            "4",
            "--dtype",
            dtype,
        ];
        let files = ["--data", data.to_str().unwrap(), "--out", out.to_str().unwrap()];
        succeeds(&[&args[..], &files].concat());
        let lines = std::fs::read_to_string(out.join("halves/lora/metrics.jsonl")).unwrap();
        let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        values.push(first["loss"].as_f64().unwrap());
        assert_eq!(json(&out.join("summary.json")).as_array().unwrap().len(), 2);
    }
    // The frozen weights were rounded, and little else changed.
    for value in &values[1..] {
        assert!(
            (value - values[0]).abs() < 0.05 * values[0] && *value != values[0],
            "{values:?}"
        );
    }
}

#[test]
fn help_on_help_is_help() {
    let help = succeeds(&["help"]);
    assert!(help.contains("commonsense"));
    for flag in ["-h", "--help"] {
        assert_eq!(succeeds(&["help", flag]), help);
    }
    let version = succeeds(&["vtab", "--version"]);
    assert!(
        version.contains("vtab") && version.contains("backends: flex"),
        "{version}"
    );
    let commonsense = succeeds(&["commonsense", "--help"]);
    let alpha = commonsense.split("--alpha").nth(1).unwrap().split("--").next().unwrap();
    assert_eq!(alpha.matches("[default").count(), 1, "{alpha}");
    for (program, has, lacks) in [("vtab", "vpt_shallow", "none,"), ("finetune", "loreft", "vpt_shallow")] {
        let long = succeeds(&[program, "--help"]);
        let methods = long.split("--method").nth(1).unwrap().split("\n\n").next().unwrap();
        assert!(methods.contains(has) && !methods.contains(lacks), "{methods}");
    }
}
