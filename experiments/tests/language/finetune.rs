//! `finetune` on the small model that ships.

use std::path::Path;

use serde_json::Value;
use wegeft::storage::{read_tensors, write_tensors};

use crate::program::{fails, run_in, succeeds, text};

/// A file of sums, one JSON object a line, `extra` lines after them.
pub fn sums(path: &Path, count: usize, extra: &str) {
    let line = |i: usize| {
        let (a, b) = (1 + i % 9, 1 + i / 9 % 9);
        format!(
            "{{\"instruction\": \"Add {a} and {b}.\", \"input\": \"\", \"output\": \"The sum is {}.\"}}\n",
            a + b
        )
    };
    let lines: String = (0..count).map(line).collect();
    std::fs::write(path, lines + extra).unwrap();
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const QUICK: [&str; 12] = [
    "--epochs",
    "2",
    "--batch-size",
    "4",
    "--r",
    "8",
    "--alpha",
    "16",
    "--learning-rate",
    "0.01",
    "--warmup-ratio",
    "0",
];

#[test]
fn a_file_becomes_an_adapter_and_what_was_left_out_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("sums.jsonl"), dir.path().join("run"));
    let long = "word ".repeat(200);
    let extra = format!(
        "{{\"prompt\": \"Say\", \"completion\": \"\"}}\n{{\"prompt\": \"{long}\", \"completion\": \" end\"}}\n\
         {{\"prompt\": \"Say\", \"completion\": \" {long}\"}}\n"
    );
    sums(&data, 37, &extra);
    let args = [
        "--train-file",
        data.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
        "--max-length",
        "100",
    ];
    let more = [
        "--validation",
        "0.2",
        "--eval-steps",
        "3",
        "--keep",
        "best",
        "--accumulation",
        "2",
    ];
    let args = [&args[..], &QUICK, &more].concat();
    let printed = succeeds("finetune", &args);
    for part in [
        "38 examples",
        "1 cut at max_length",
        "1 dropped, their prompts longer than max_length",
        "1 dropped, their responses empty",
        "estimated memory",
    ] {
        assert!(printed.contains(part), "'{part}' is not in: {printed}");
    }
    let summary: Value = serde_json::from_str(&std::fs::read_to_string(out.join("summary.json")).unwrap()).unwrap();
    let outcome = &summary[0];
    assert_eq!(
        (outcome["experiment"].as_str(), outcome["method"].as_str()),
        (Some("finetune"), Some("wegeft"))
    );
    for field in [
        "task",
        "trainable_params",
        "percent_trainable",
        "metric",
        "seconds",
        "tokens_per_second",
        "seed",
    ] {
        assert!(!outcome[field].is_null(), "{field}");
    }
    assert!(out.join("report.html").is_file() && out.join("config.toml").is_file());
    assert!(out.join("wegeft/adapter/adapter_config.json").is_file());
    // 30 sequences are 8 batches, 4 steps an epoch; a round is 3 steps.
    let metrics = lines(&out.join("wegeft/metrics.jsonl"));
    let steps: Vec<_> = metrics
        .iter()
        .filter(|line| line["split"] == "train")
        .map(|line| line["step"].as_u64())
        .collect();
    assert_eq!(steps, [Some(3), Some(6), Some(8)]);
    let losses: Vec<f64> = metrics
        .iter()
        .filter(|line| line["split"] == "valid")
        .map(|line| line["loss"].as_f64().unwrap())
        .collect();
    assert!(losses[2] < losses[0], "{losses:?}");
    let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
    assert!((outcome["value"].as_f64().unwrap() - best).abs() < 1e-9);
    assert!(succeeds("finetune", &args).contains("is finished"));
    // The adapter names its model.
    let adapter = out.join("wegeft/adapter");
    let args = [
        "--adapter",
        adapter.to_str().unwrap(),
        "--prompt",
        "Add 1 and 2.",
        "--max-new-tokens",
        "4",
    ];
    let model = format!("{}/../datasets/language-model", env!("CARGO_MANIFEST_DIR"));
    let named = [&args[..], &["--model", &model]].concat();
    assert_eq!(succeeds("generate", &args), succeeds("generate", &named));
}

#[test]
fn packed_rows_train_the_same_examples() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("sums.jsonl");
    sums(&data, 20, "");
    let trained = |out: &str, more: &[&str]| {
        let out = dir.path().join(out);
        let fixed = ["--train-file", data.to_str().unwrap(), "--out", out.to_str().unwrap()];
        // All examples in one step, so that both runs see the same ones.
        let size = QUICK.map(|value| if value == "4" { "20" } else { value });
        let printed = succeeds("finetune", &[&fixed[..], &size, more].concat());
        let losses = lines(&out.join("wegeft/metrics.jsonl"));
        (printed, losses.last().unwrap()["loss"].as_f64().unwrap())
    };
    let (_, plain) = trained("plain", &[]);
    let (printed, packed) = trained("packed", &["--packing"]);
    assert!(printed.contains("20 examples packed into "), "{printed}");
    assert!((plain - packed).abs() < 1e-4, "{plain} {packed}");
}

#[test]
fn examples_are_cut_to_the_learned_positions_of_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("gpt2");
    std::fs::create_dir(&model).unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["../crates/backbones/tests/fixtures/lm/gpt2", "tests/fixtures/generate"] {
        for entry in std::fs::read_dir(here.join(folder)).unwrap().flatten() {
            std::fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
        }
    }
    let data = dir.path().join("data.jsonl");
    let words = "red ".repeat(60);
    std::fs::write(
        &data,
        format!("{{\"prompt\": \"one \", \"completion\": \"{words}\"}}\n").repeat(2),
    )
    .unwrap();
    let printed = |method: &str, more: &[&str]| {
        let out = dir.path().join(method);
        let args = [
            "--model",
            model.to_str().unwrap(),
            "--train-file",
            data.to_str().unwrap(),
            "--template",
            "plain",
            "--epochs",
            "1",
            "--method",
            method,
            "--out",
            out.to_str().unwrap(),
        ];
        succeeds("finetune", &[&args[..], more].concat())
    };
    for (method, most, more) in [
        ("lora", 32, &["--target-modules", "c_attn", "--packing"][..]),
        ("prompt_tuning", 12, &[]),
        ("prefix_tuning", 12, &[]),
    ] {
        let printed = printed(method, more);
        for part in [
            format!("max_length is {most} instead of 512"),
            format!("2 examples, {} tokens; 2 cut at max_length", 2 * most),
        ] {
            assert!(printed.contains(&part), "'{part}' is not in: {printed}");
        }
    }
}

#[test]
fn several_devices_train_as_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("sums.jsonl");
    // A last batch that is smaller, and rows of different lengths, so that shares have different numbers of target tokens.
    sums(
        &data,
        13,
        "{\"prompt\": \"Say it\", \"completion\": \" again and again and again\"}\n",
    );
    let trained = |name: &str, more: &[&str]| {
        let out = dir.path().join(name);
        let fixed = ["--train-file", data.to_str().unwrap(), "--out", out.to_str().unwrap()];
        let clipped = ["--gradient-accumulation-steps", "2", "--max-grad-norm", "0.1"];
        succeeds("finetune", &[&fixed[..], &QUICK, &clipped, more].concat());
        let adapter = out.join("wegeft/adapter/adapter_model.safetensors");
        let losses = lines(&out.join("wegeft/metrics.jsonl"))
            .into_iter()
            .map(|line| line["loss"].as_f64().unwrap());
        (
            wegeft::storage::read_tensors(&adapter).unwrap(),
            losses.collect::<Vec<_>>(),
        )
    };
    let one = trained("one", &[]);
    // AdamW divides gradients by their own size, so that rounding shows in the few elements whose gradient is almost 0.
    for (devices, of_loss, of_weights) in [
        ("flex,flex", 1e-6, 1e-4),
        ("flex,flex,flex", 1e-6, 1e-4),
        ("flex,ndarray", 1e-4, 5e-3),
    ] {
        let several = trained(devices, &["--devices", devices]);
        assert_eq!(one.1.len(), several.1.len());
        for (one, several) in one.1.iter().zip(&several.1) {
            // Of the loss: 1e-6 of 6.7 is 14 steps of an f32, and processors round sums in different orders.
            assert!(
                (one - several).abs() < of_loss * one.abs().max(1.0),
                "{devices}: {one} {several}"
            );
        }
        for (name, one) in &one.0 {
            let pairs = one.values.iter().zip(&several.0[name].values);
            let difference = pairs.map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
            assert!(difference < of_weights, "{devices}: {name} {difference}");
        }
    }
}

#[test]
fn a_run_that_was_cut_ends_as_one_that_was_not() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("sums.jsonl");
    sums(&data, 24, "");
    let args = |out: &Path| {
        let fixed = [
            "--train-file",
            data.to_str().unwrap(),
            "--eval-steps",
            "2",
            "--method",
            "lora",
        ];
        let all = [&fixed[..], &QUICK, &["--out", out.to_str().unwrap()]].concat();
        all.into_iter().map(String::from).collect::<Vec<_>>()
    };
    let run = |out: &Path| succeeds("finetune", &args(out).iter().map(String::as_str).collect::<Vec<_>>());
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    run(&whole);
    run(&cut);
    // What a kill in the fourth round leaves: nothing of the end, and checkpoints of rounds two and three.
    for file in ["summary.json", "report.html"] {
        std::fs::remove_file(cut.join(file)).unwrap();
    }
    std::fs::remove_dir_all(cut.join("lora/adapter")).unwrap();
    let checkpoints = cut.join("lora/checkpoints");
    let last = |prefix: &str| {
        let names = std::fs::read_dir(&checkpoints)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| name.starts_with(prefix))
            .max_by_key(|name| name.len() * 1000 + name.bytes().map(usize::from).sum::<usize>())
    };
    for prefix in ["model-", "optim-", "scheduler-"] {
        std::fs::remove_file(checkpoints.join(last(prefix).unwrap())).unwrap();
    }
    run(&cut);
    let read = |out: &Path| std::fs::read(out.join("lora/adapter/adapter_model.safetensors")).unwrap();
    assert_eq!(read(&whole), read(&cut));
}

#[test]
fn what_cannot_be_trained_on_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data.jsonl");
    let out = dir.path().join("run");
    let (file, out) = (data.to_str().unwrap(), out.to_str().unwrap());
    let base = ["--train-file", file, "--out", out];
    let with = |text: &str, more: &[&str], parts: &[&str]| {
        std::fs::write(&data, text).unwrap();
        fails("finetune", &[&base[..], more].concat(), parts);
    };
    let good = "{\"prompt\": \"Say\", \"completion\": \" it\"}\n";
    fails("finetune", &base, &["cannot read", "data.jsonl"]);
    with("{\"prompt\": \"Say\",\n", &[], &["data.jsonl:1: malformed JSON"]);
    with(
        "{\"prompt\": \"Say\", \"completion\": \"\"}\n",
        &[],
        &["data.jsonl holds no example", "empty"],
    );
    with(good, &["--max-length", "1"], &["max_length 1", "raise max_length"]);
    with("{\"question\": \"x\"}\n", &[], &["data.jsonl:1", "question", "--field"]);
    with(good, &["--field", "prompt"], &["field=name"]);
    with(
        good,
        &["--memory-limit", "1"],
        &["needs about", "more than the 1 MB", "lower batch_size"],
    );
    with(good, &["--model", "/nonexistent/model"], &["/nonexistent/model"]);
    with(
        "{\"instruction\": \"Say\", \"output\": \"it\"}\n",
        &["--template", "chat"],
        &["chat template", "another --template"],
    );
    with(good, &["--method", "none"], &["'none' trains nothing"]);
    with(good, &["--adapter", "/nonexistent/adapter"], &["/nonexistent/adapter"]);
    with(
        good,
        &["--epochs", "3", "--learning-rate", "1e30", "--warmup-ratio", "0"],
        &["lower learning_rate"],
    );
}

#[test]
fn a_damaged_model_is_named_and_the_learning_rate_is_not_blamed() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/language-model");
    std::fs::create_dir(path("model")).unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(shipped.join(file), path("model").join(file)).unwrap();
    }
    let whole = read_tensors(&shipped.join("model.safetensors")).unwrap();
    let damage = |name: &str| {
        let mut tensors = whole.clone();
        tensors.get_mut(name).unwrap().values[5] = f32::NAN;
        write_tensors(&path("model/model.safetensors"), &tensors).unwrap();
    };
    damage("model.embed_tokens.weight");
    sums(&path("sums.jsonl"), 8, "");
    let [model, data, out] = ["model", "sums.jsonl", "run"].map(|name| path(name).display().to_string());
    let args = [
        "--model",
        &model,
        "--method",
        "wegeft",
        "--train-file",
        &data,
        "--out",
        &out,
    ];
    fails(
        "finetune",
        &[&args[..], &QUICK].concat(),
        &[
            "the loss is not a number at step 1 (nor is the weight '",
            "embed_tokens.weight",
            "before anything was trained",
            "--dtype f32",
        ],
    );
    let out = path("answers").display().to_string();
    let args = [
        "--model", &model, "--method", "none", "--sets", "one-step", "--out", &out,
    ];
    fails("arithmetic", &args, &["NaN or infinite", "--dtype f32"]);
    // Of other weights, the outputs need not tell.
    damage("model.layers.2.mlp.up_proj.weight");
    let parts = ["model.safetensors", "layers.2.mlp.up_proj.weight", "NaN or infinite"];
    fails("arithmetic", &args, &parts);
}

#[test]
fn a_malformed_line_is_counted_and_named_and_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data.jsonl");
    sums(&data, 8, "");
    let mut lines: Vec<String> = std::fs::read_to_string(&data)
        .unwrap()
        .lines()
        .map(String::from)
        .collect();
    lines.insert(1, "{\"prompt\": \"Say\",".into());
    std::fs::write(&data, lines.join("\n")).unwrap();
    let out = dir.path().join("run");
    let args = ["--train-file", data.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let output = run_in(dir.path(), "finetune", &[&args[..], &QUICK].concat());
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    for part in ["1 example is left out:", "data.jsonl:2: malformed JSON", "8 examples"] {
        assert!(said.contains(part), "'{part}' is not in: {said}");
    }
}

#[test]
fn a_run_goes_on_from_another_working_folder() {
    let dir = tempfile::tempdir().unwrap();
    sums(&dir.path().join("sums.jsonl"), 8, "");
    let out = dir.path().join("run");
    let first = [&["--train-file", "sums.jsonl", "--out", "run"], &QUICK[..]].concat();
    let output = run_in(dir.path(), "finetune", &first);
    assert!(output.status.success(), "{}", text(&output.stderr));
    std::fs::remove_file(out.join("summary.json")).unwrap();
    std::fs::remove_dir_all(out.join("wegeft")).unwrap();
    let printed = succeeds("finetune", &["--resume", "--out", out.to_str().unwrap()]);
    assert!(printed.contains("8 examples"), "{printed}");
    let config: Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("wegeft/adapter/adapter_config.json")).unwrap())
            .unwrap();
    assert_eq!(config["task_type"], "CAUSAL_LM");
    assert!(config.get("base_model_name_or_path").is_some_and(Value::is_null));
}

#[test]
fn weights_of_half_precision_are_trained_on_as_those_of_f32_are() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("sums.jsonl");
    sums(&data, 16, "");
    let losses = |method: &str, dtype: &str| -> Vec<f64> {
        let out = dir.path().join(method).join(dtype);
        let files = ["--train-file", data.to_str().unwrap(), "--out", out.to_str().unwrap()];
        let chosen = ["--method", method, "--dtype", dtype];
        succeeds("finetune", &[&files[..], &chosen, &QUICK].concat());
        let metrics = lines(&out.join(method).join("metrics.jsonl"));
        metrics.iter().map(|line| line["loss"].as_f64().unwrap()).collect()
    };
    for method in ["wegeft", "lora", "full"] {
        let whole = losses(method, "f32");
        for half in ["f16", "bf16"] {
            let halves = losses(method, half);
            let (first, last) = (halves[0], *halves.last().unwrap());
            assert!(last < first - 0.3, "{method} {half}: {halves:?}");
            assert!((first - whole[0]).abs() < 0.05, "{method} {half}: {halves:?} {whole:?}");
        }
    }
}
