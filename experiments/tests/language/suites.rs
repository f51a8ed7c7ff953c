//! `commonsense` and `arithmetic` on the small model that ships.

use std::path::Path;

use serde_json::{Value, json};

use crate::program::{fails, run, succeeds, text};

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

const QUICK: [&str; 8] = [
    "--train-limit",
    "16",
    "--test-limit",
    "5",
    "--batch-size",
    "4",
    "--epochs",
    "1",
];

#[test]
fn a_sample_set_is_trained_for_answered_and_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let args = [
        &[
            "--sets",
            "one-step",
            "--method",
            "none,wegeft",
            "--out",
            out.to_str().unwrap(),
        ],
        &QUICK[..],
    ]
    .concat();
    let printed = succeeds("arithmetic", &args);
    assert!(
        printed.contains("| method") && printed.contains("one-step") && printed.contains("average"),
        "{printed}"
    );
    let summary: Value = serde_json::from_str(&read(&out.join("summary.json"))).unwrap();
    assert_eq!(summary.as_array().unwrap().len(), 2);
    assert!(summary[1]["tokens_per_second"].is_number() && summary[1]["questions"] == 5);
    let answers = out.join("wegeft/one-step.jsonl");
    let whole = read(&answers);
    for line in whole.lines() {
        let answer: Value = serde_json::from_str(line).unwrap();
        for field in ["index", "prompt", "output", "gold", "extracted", "correct"] {
            assert!(answer.get(field).is_some(), "{field}: {line}");
        }
        assert!(answer["prompt"].as_str().unwrap().ends_with("### Response:\n"));
    }
    // What a kill in the middle of a set leaves: some answers, a torn line, no outcome of that set. One of the answers was
    // changed since: it is asked for again.
    let mut kept: String = whole.lines().take(2).map(|line| format!("{line}\n")).collect();
    let at = kept.rfind("\"gold\":\"").unwrap() + "\"gold\":\"".len();
    kept.insert(at, '1');
    std::fs::write(&answers, kept + "{\"index\": 2, \"pro").unwrap();
    std::fs::write(
        out.join("summary.json"),
        serde_json::to_string(&json!([summary[0]])).unwrap(),
    )
    .unwrap();
    succeeds("arithmetic", &args);
    assert_eq!(read(&answers), whole);
    assert!(succeeds("arithmetic", &args).contains("is finished"));
    let report = read(&out.join("report.html"));
    assert!(report.contains("<svg") && report.contains("one-step"));
}

#[test]
fn files_of_llm_adapters_are_read_as_they_are_and_published_rows_stand_beside_ours() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("run"));
    let item = |i: usize| {
        let truth = i.is_multiple_of(2);
        json!({
            "instruction": format!("Please answer the following question with true or false, question: is {i} even?\n\nAnswer format: true/false"),
            "input": "", "output": format!("the correct answer is {truth}"), "answer": truth.to_string(),
        })
    };
    std::fs::create_dir_all(data.join("boolq")).unwrap();
    let items: Vec<Value> = (0..8).map(item).collect();
    for file in ["train.json", "test.json"] {
        std::fs::write(data.join("boolq").join(file), serde_json::to_string(&items).unwrap()).unwrap();
    }
    let train = data.join("boolq/train.json");
    let base = ["--data", data.to_str().unwrap(), "--sets", "boolq"];
    let args = [
        &base[..],
        &[
            "--out",
            out.to_str().unwrap(),
            "--method",
            "lora",
            "--train-file",
            train.to_str().unwrap(),
        ],
        &QUICK,
    ]
    .concat();
    let printed = succeeds("commonsense", &args);
    for part in [
        "BoolQ",
        "most likely option",
        "published",
        "GIFT QKVUD r64",
        "DoRA half",
    ] {
        assert!(printed.contains(part), "'{part}' is not in: {printed}");
    }
    let answer: Value = serde_json::from_str(read(&out.join("lora/BoolQ.jsonl")).lines().next().unwrap()).unwrap();
    assert_eq!(answer["choice"]["log_likelihoods"].as_array().unwrap().len(), 2);
    // The adapter by itself gives the same answers.
    let adapter = out.join("lora/adapter");
    let again = dir.path().join("again");
    let args = [
        &base[..],
        &[
            "--out",
            again.to_str().unwrap(),
            "--adapter",
            adapter.to_str().unwrap(),
            "--test-limit",
            "5",
        ],
    ]
    .concat();
    succeeds("commonsense", &args);
    assert_eq!(
        read(&again.join("adapter/BoolQ.jsonl")),
        read(&out.join("lora/BoolQ.jsonl"))
    );
    // A suite trains on the sets' files that are there, and says which are not.
    let out = dir.path().join("other");
    let all = [
        "--data",
        data.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
        "--method",
        "lora",
    ];
    let printed = succeeds("commonsense", &[&all[..], &QUICK].concat());
    for part in [
        "no test.json of PIQA, SIQA",
        "no train.json for PIQA, SIQA",
        "8 examples",
    ] {
        assert!(printed.contains(part), "'{part}' is not in: {printed}");
    }
    fails(
        "commonsense",
        &[
            "--data",
            data.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
            "--sets",
            "piqa",
        ],
        &["no test.json of PIQA", "folder piqa"],
    );
    std::fs::remove_file(train).unwrap();
    // Before the model is evaluated as it is: that may take hours.
    let out = dir.path().join("none");
    let args = [&base[..], &["--out", out.to_str().unwrap(), "--method", "none,lora"]].concat();
    fails("commonsense", &args, &["boolq/train.json", "--train-file"]);
    fails(
        "commonsense",
        &[&args[..], &["--target-modules", "nowhere"]].concat(),
        &["nowhere"],
    );
    assert!(!out.join("none").exists());
}

#[test]
fn options_are_compared_only_where_there_are_some() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let said = |program: &str| {
        let args = ["--likelihood", "--dry-run", "--out", out.to_str().unwrap()];
        let output = run(program, &args);
        assert!(output.status.success(), "{program}: {}", text(&output.stderr));
        text(&output.stderr)
    };
    assert_eq!(
        said("arithmetic").trim_end(),
        "--likelihood has no effect: no question has options"
    );
    assert_eq!(said("commonsense"), "");
}

#[test]
fn beams_answer_too() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "--sets",
        "groups",
        "--method",
        "none",
        "--num-beams",
        "4",
        "--test-limit",
        "3",
        "--out",
    ];
    succeeds(
        "arithmetic",
        &[&args[..], &[dir.path().join("run").to_str().unwrap()]].concat(),
    );
}
