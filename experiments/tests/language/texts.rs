//! `glue` and `classify`: encoders and decoders with a head, on generated tasks, GLUE's files and tables of users.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::program::{fails, run, succeeds};

/// A tiny BERT with a tokenizer of words.
fn bert(dir: &Path) -> PathBuf {
    let folder = dir.join("bert");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/backbones/tests/fixtures/encoder/bert");
    fs::create_dir_all(&folder).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture.join(file), folder.join(file)).unwrap();
    }
    let words = [
        "[PAD]", "[CLS]", "[SEP]", "[UNK]", "good", "bad", "the", "film", "was", "very", "not", "it", "is",
    ];
    let vocab: serde_json::Map<String, Value> = words
        .iter()
        .zip(0..)
        .map(|(word, id)| (word.to_string(), json!(id)))
        .collect();
    let special = |token: &str, id: u32| json!({"id": token, "ids": [id], "tokens": [token]});
    let piece = |kind: &str, id: &str, type_id: u32| json!({kind: {"id": id, "type_id": type_id}});
    let tokenizer = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
        "post_processor": {"type": "TemplateProcessing",
            "single": [piece("SpecialToken", "[CLS]", 0), piece("Sequence", "A", 0), piece("SpecialToken", "[SEP]", 0)],
            "pair": [piece("SpecialToken", "[CLS]", 0), piece("Sequence", "A", 0), piece("SpecialToken", "[SEP]", 0),
                piece("Sequence", "B", 1), piece("SpecialToken", "[SEP]", 1)],
            "special_tokens": {"[CLS]": special("[CLS]", 1), "[SEP]": special("[SEP]", 2)}},
        "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": vocab}});
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    folder
}

/// Sentences that are good or bad by one word.
fn opinions(count: usize) -> impl Iterator<Item = (String, usize)> {
    const FRAMES: [&str; 4] = [
        "the film was WORD",
        "it is very WORD",
        "it was WORD film",
        "the film is very WORD",
    ];
    (0..count).map(|index| {
        let label = index % 2;
        let word = ["bad", "good"][label];
        (FRAMES[index / 2 % FRAMES.len()].replace("WORD", word), label)
    })
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn json_of(path: PathBuf) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn generated_tasks_are_learned_by_the_model_that_ships() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let args = [
        "--task",
        "claims,amounts",
        "--method",
        "none,linear,wegeft",
        "--train-limit",
        "48",
        "--epochs",
        "1",
        "--out",
        text(&out),
    ];
    let printed = succeeds("glue", &args);
    for part in [
        "claims",
        "amounts",
        "matthews",
        "pearson",
        "spearman",
        "accuracy",
        "mean over 2 tasks",
    ] {
        assert!(printed.contains(part), "'{part}' is not in: {printed}");
    }
    let summary = json_of(out.join("summary.json"));
    assert_eq!(summary.as_array().unwrap().len(), 6);
    assert!(summary[0]["value"].is_number() && summary[0]["scores"]["accuracy"].is_number());
    let config = json_of(out.join("claims/wegeft/adapter/adapter_config.json"));
    assert_eq!(
        (&config["task_type"], &config["modules_to_save"]),
        (&json!("SEQ_CLS"), &json!(["score"]))
    );
    let description = json_of(out.join("claims/wegeft/adapter/text_classifier.json"));
    assert_eq!(description["id2label"], json!({"0": "wrong", "1": "right"}));
    assert!(
        fs::read_to_string(out.join("report.html"))
            .unwrap()
            .contains("said that")
    );
    assert!(succeeds("glue", &args).contains("is finished"));
    let dry = succeeds(
        "glue",
        &["--task", "claims", "--dry-run", "--out", text(&dir.path().join("dry"))],
    );
    assert!(
        dry.contains("trainable beside the head") && dry.contains("s of training"),
        "{dry}"
    );
}

#[test]
fn glue_s_files_are_trained_on_and_answered_in_glue_s_form() {
    let dir = tempfile::tempdir().unwrap();
    let model = bert(dir.path());
    let data = dir.path().join("glue");
    let sst = data.join("SST-2");
    fs::create_dir_all(&sst).unwrap();
    let lines: String = opinions(64).map(|(text, label)| format!("{text}\t{label}\n")).collect();
    for part in ["train", "dev"] {
        fs::write(sst.join(format!("{part}.tsv")), format!("sentence\tlabel\n{lines}")).unwrap();
    }
    let unlabelled: String = opinions(5)
        .enumerate()
        .map(|(index, (text, _))| format!("{index}\t{text}\n"))
        .collect();
    fs::write(sst.join("test.tsv"), format!("index\tsentence\n{unlabelled}")).unwrap();
    let sts = data.join("STS-B");
    fs::create_dir_all(&sts).unwrap();
    let pairs: String = (0..24)
        .map(|index| {
            format!(
                "it is good\tit is {}\t{}\n",
                ["bad", "good"][index % 2],
                5 * (index % 2)
            )
        })
        .collect();
    for part in ["train", "dev"] {
        fs::write(
            sts.join(format!("{part}.tsv")),
            format!("sentence1\tsentence2\tscore\n{pairs}"),
        )
        .unwrap();
    }
    let out = dir.path().join("run");
    let base = [
        "--data",
        text(&data),
        "--model",
        text(&model),
        "--learning-rate",
        "2e-2",
    ];
    let args = [
        &base[..],
        &[
            "--method",
            "lora,wegeft",
            "--r",
            "4",
            "--epochs",
            "6",
            "--batch-size",
            "8",
            "--out",
            text(&out),
        ],
    ]
    .concat();
    let printed = succeeds("glue", &args);
    for part in [
        "tasks: SST-2, STS-B",
        "published",
        "GIFT QV r32",
        "STS-B: no predictions for its test sets",
    ] {
        assert!(printed.contains(part), "'{part}' is not in: {printed}");
    }
    let summary = json_of(out.join("summary.json"));
    let accuracy = summary[0]["value"].as_f64().unwrap();
    assert!(accuracy > 90.0, "{accuracy}: one word says it");
    let answers = fs::read_to_string(out.join("SST-2/lora/predictions/SST-2.tsv")).unwrap();
    assert_eq!(answers.lines().next(), Some("index\tprediction"));
    assert_eq!(answers.lines().count(), 6);
    // The adapter by itself gives the same value, and a sweep tunes on texts that are held out.
    let again = dir.path().join("again");
    let adapter = out.join("SST-2/lora/adapter");
    let args = [
        &base[..],
        &["--task", "sst-2", "--adapter", text(&adapter), "--out", text(&again)],
    ]
    .concat();
    succeeds("glue", &args);
    assert_eq!(json_of(again.join("summary.json"))[0]["value"], summary[0]["value"]);
    let swept = dir.path().join("swept");
    let args = [
        &base[..],
        &[
            "--task",
            "rte,sst-2",
            "--method",
            "lora",
            "--sweep",
            "--sweep-lr",
            "1e-3,2e-2",
            "--validation",
            "0.25",
            "--epochs",
            "2",
            "--gradient-checkpointing",
            "--out",
            text(&swept),
        ],
    ]
    .concat();
    fails("glue", &args, &["no RTE/dev.tsv"]);
    let args: Vec<&str> = args
        .iter()
        .map(|arg| if *arg == "rte,sst-2" { "sst-2" } else { arg })
        .collect();
    succeeds("glue", &args);
    let summary = json_of(swept.join("summary.json"));
    assert!(summary[0]["validation"].is_number() && summary[0]["value"].is_number());
    assert!(swept.join("SST-2/lora/tuning.json").is_file());
    fails(
        "glue",
        &["--data", text(&data), "--task", "glu", "--out", text(&out)],
        &["'glu' is no GLUE task", "SST-2"],
    );
    fails(
        "glue",
        &["--task", "sst-2", "--out", text(&out)],
        &["'sst-2'", "--data"],
    );
}

#[test]
fn a_table_of_texts_gives_a_classifier_for_new_texts() {
    let dir = tempfile::tempdir().unwrap();
    let model = bert(dir.path());
    let train = dir.path().join("reviews.csv");
    let rows: String = opinions(80)
        .map(|(text, label)| format!("\"{text}\",{}\n", ["awful", "great"][label]))
        .collect();
    fs::write(&train, format!("review,verdict\n{rows}")).unwrap();
    let out = dir.path().join("run");
    let base = [
        "--model",
        text(&model),
        "--text-field",
        "review",
        "--label-field",
        "verdict",
    ];
    let args = [
        &base[..],
        &[
            "--train-file",
            text(&train),
            "--epochs",
            "6",
            "--batch-size",
            "8",
            "--learning-rate",
            "2e-2",
            "--r",
            "4",
            "--out",
            text(&out),
        ],
    ]
    .concat();
    let output = run("classify", &args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for part in ["3 labels (no, maybe, yes)", "2 labels (awful, great)"] {
        assert!(said.contains(part), "'{part}' is not in: {said}");
    }
    let summary = json_of(out.join("summary.json"));
    assert!(
        summary[0]["value"].as_f64().unwrap() > 85.0 && summary[0]["questions"] == 8,
        "{summary}"
    );
    let adapter = out.join("reviews/wegeft/adapter");
    // New texts have no label, and the adapter knows the model and the field.
    let new = dir.path().join("new.jsonl");
    fs::write(
        &new,
        "{\"review\": \"it is very good\"}\n{\"review\": \"it is very bad\"}\n",
    )
    .unwrap();
    let answers = dir.path().join("answers");
    succeeds(
        "classify",
        &[
            "--adapter",
            text(&adapter),
            "--test-file",
            text(&new),
            "--out",
            text(&answers),
        ],
    );
    let lines = fs::read_to_string(answers.join("new/adapter/predictions/new.jsonl")).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&lines[0]["label"], &lines[1]["label"]),
        (&json!("great"), &json!("awful"))
    );
    assert!(lines[0]["probabilities"]["great"].as_f64().unwrap() > 0.5);
    // Bad input: one sentence with file and line.
    let bad = dir.path().join("bad.csv");
    let fails_on = |content: &str, more: &[&str], parts: &[&str]| {
        fs::write(&bad, content).unwrap();
        let out = dir.path().join("bad");
        let args = [&base[..], &["--train-file", text(&bad), "--out", text(&out)], more].concat();
        fails("classify", &args, parts);
    };
    fails_on(
        "review,label\ngood,a\n",
        &[],
        &["bad.csv", "'verdict'", "review, label"],
    );
    fails_on(
        "review,verdict\ngood,\nbad,NaN\n",
        &[],
        &["bad.csv:2: field 'verdict' holds no label"],
    );
    fails_on("review,verdict\ngood,a\nbad,a\n", &[], &["'a'"]);
    fails_on(
        "review,verdict\ngood,1\nbad,many\n",
        &["--regression"],
        &["bad.csv", "3", "'many' is no number"],
    );
    fs::write(&bad, "review,verdict\ngood,great\nbad,middling\n").unwrap();
    let other = dir.path().join("other");
    let args = [
        &base[..],
        &[
            "--adapter",
            text(&adapter),
            "--valid-file",
            text(&bad),
            "--out",
            text(&other),
        ],
    ]
    .concat();
    fails(
        "classify",
        &args,
        &["bad.csv", "3", "'middling' is none of awful, great"],
    );
    fails(
        "classify",
        &["--out", text(&other)],
        &["no training file", "--train-file"],
    );
}

#[test]
fn a_head_is_kept_whatever_the_order_and_the_case_of_its_labels() {
    let dir = tempfile::tempdir().unwrap();
    let model = bert(dir.path());
    // Of the first text, for each of `labels`.
    let probabilities = |of_model: [&str; 3], labels: [&str; 3]| {
        let path = model.join("config.json");
        let mut config = json_of(path.clone());
        config["id2label"] = json!(of_model);
        fs::write(path, config.to_string()).unwrap();
        let data = dir.path().join("data.csv");
        let rows = opinions(6).enumerate();
        let rows: String = rows
            .map(|(index, (text, _))| format!("{text},{}\n", labels[index % 3]))
            .collect();
        fs::write(&data, format!("text,label\n{rows}")).unwrap();
        let out = dir.path().join(labels[0]);
        let args = ["--model", text(&model), "--method", "none", "--out", text(&out)];
        let files = ["--train-file", text(&data), "--valid-file", text(&data)];
        let output = run("classify", &[&args[..], &files].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("takes its place"), "{said}");
        let lines = fs::read_to_string(out.join("data/none/predictions/data.jsonl")).unwrap();
        let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        let found = labels.map(|label| first["probabilities"][label].as_f64().unwrap());
        let best = (0..3).max_by(|a, b| found[*a].total_cmp(&found[*b])).unwrap();
        assert_eq!(first["label"], labels[best]);
        found
    };
    let outputs = probabilities(["a", "b", "c"], ["a", "b", "c"]);
    assert_ne!(outputs[0], outputs[1]);
    assert_eq!(probabilities(["NO", "maybe", "yes"], ["no", "maybe", "yes"]), outputs);
}
