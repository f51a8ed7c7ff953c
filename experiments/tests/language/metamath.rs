//! `metamath` in both protocols.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::program::{fails, succeeds};

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn metamathqa_is_trained_on_and_gsm8k_answered_in_both_protocols() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let rows: Vec<Value> = (1..20)
        .map(|n| {
            json!({"query": format!("What is {n} + 1?"), "response": format!("{n} + 1 = {}\n#### {}\nThe answer is: {}", n + 1, n + 1, n + 1),
                "type": if n % 4 == 0 { "MATH_AnsAug" } else { "GSM_AnsAug" }})
        })
        .collect();
    fs::write(data.join("MetaMathQA-395K.json"), serde_json::to_string(&rows).unwrap()).unwrap();
    let tests: String = (1..4)
        .map(|n| {
            json!({"question": format!("What is {n} + 2?"), "answer": format!("so\n#### {}", n + 2)}).to_string() + "\n"
        })
        .collect();
    fs::write(data.join("test.jsonl"), tests).unwrap();
    let valid = data.join("gsm8k-train.jsonl");
    fs::copy(data.join("test.jsonl"), &valid).unwrap();
    let general = data.join("general.txt");
    fs::write(&general, "A robin is a bird.\n\nA trout has scales and fins.\n").unwrap();
    for (protocol, prompt, count) in [
        ("lora-ga", "Q: What is 1 + 2?\nA:  ", "15 examples; 4 of other kinds"),
        (
            "peft",
            "Question: What is 1 + 2? Think step by step.\nAnswer:",
            "19 examples",
        ),
    ] {
        let out = data.join(protocol);
        let args = [
            "--data",
            data.to_str().unwrap(),
            "--protocol",
            protocol,
            "--method",
            "none,wegeft",
            "--r",
            "4",
            "--epochs",
            "1",
            "--batch-size",
            "4",
            "--max-new-tokens",
            "4",
            "--eval-steps",
            "2",
            "--valid-file",
            valid.to_str().unwrap(),
            "--general-file",
            general.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ];
        let printed = succeeds("metamath", &args);
        assert!(printed.contains(count) && printed.contains("forgetting"), "{printed}");
        let answers = fs::read_to_string(out.join("wegeft/GSM8K.jsonl")).unwrap();
        let first: Value = serde_json::from_str(answers.lines().next().unwrap()).unwrap();
        assert_eq!(first["prompt"], prompt);
        let summary = json_of(&out.join("summary.json"));
        assert_eq!(summary[0]["scores"]["forgetting"], 0.0);
        assert!(summary[1]["scores"]["forgetting"].as_f64().unwrap() != 0.0);
        let result = json_of(&out.join("wegeft/peft_result.json"));
        let info = &result["train_info"];
        let (last, evaluations) = info["metrics"].as_array().unwrap().split_last().unwrap();
        // Every two steps and at the end, as the questions' answers beside it say.
        let steps: Vec<u64> = evaluations.iter().map(|row| row["step"].as_u64().unwrap()).collect();
        assert_eq!((steps[0], steps[1]), (2, 4));
        assert_eq!(steps.last(), last["step"].as_u64().as_ref());
        for (row, step) in evaluations.iter().zip(&steps) {
            let answers = fs::read_to_string(out.join(format!("wegeft/valid/{step}.jsonl"))).unwrap();
            let right = answers.lines().filter(|line| line.contains("\"correct\":true")).count();
            assert_eq!(row["valid accuracy"], right as f64 / 3.0, "{row}");
            assert!(
                row["eval time"].as_f64().unwrap() > 0.0 && row["mem reserved avg"].is_u64(),
                "{row}"
            );
        }
        let config = &result["run_info"]["train_config"];
        assert_eq!(
            (
                &config["dtype"],
                &config["eval_steps"],
                &config["batch_size"],
                &config["max_steps"]
            ),
            (&json!("float32"), &json!(2), &json!(4), &last["step"])
        );
        assert!(config["query_template"].as_str().unwrap().contains("{query}"));
        for field in [
            "accelerator_memory_reserved_avg",
            "accelerator_memory_max",
            "accelerator_memory_reserved_99th",
            "file_size",
        ] {
            assert!(info[field].as_u64().is_some_and(|bytes| bytes > 0), "{field}: {info}");
        }
        assert!(info["accelerator_memory_reserved_avg"].as_u64() <= info["accelerator_memory_reserved_99th"].as_u64());
        assert_eq!(
            (&info["status"], &result["run_info"]["peft_config"]["peft_type"]),
            (&json!("success"), &json!("WeGeFT"))
        );
        assert!(
            last["test accuracy"].is_number() && last["train total tokens"].as_u64().is_some_and(|tokens| tokens > 100)
        );
        assert!(!out.join("none/peft_result.json").exists());
    }
    fs::write(data.join("test.jsonl"), "{\"question\": \"a\", \"answer\": \"five\"}\n").unwrap();
    let args = [
        "--data",
        data.to_str().unwrap(),
        "--out",
        data.join("bad").to_str().unwrap(),
    ]
    .map(String::from);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    fails("metamath", &args, &["test.jsonl", "1", "####"]);
    fails("metamath", &["--valid-file", "x.jsonl"], &["--valid-file", "--data"]);
    fails(
        "metamath",
        &["--train-file", "x.json", "--out", args[3]],
        &["--test-file"],
    );
}
