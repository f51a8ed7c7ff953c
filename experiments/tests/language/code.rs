//! `code`: verdicts as HumanEval's own checker has them, files of samples, and what is refused.

use std::path::{Path, PathBuf};

use datasets::language::code;
use experiments::sandbox::Limits;
use serde_json::Value;

use crate::program::{fails, run, succeeds, text};
use crate::sandbox::python;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/code")
        .join(name)
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn verdicts_are_those_of_human_eval_s_checker() {
    let limits = Limits {
        seconds: 3.0,
        ..Limits::default()
    };
    let Some(python) = python(limits) else { return };
    let tasks = code::read(&fixture("problems.jsonl")).unwrap();
    for sample in lines(&fixture("samples.jsonl")) {
        let task = tasks.iter().find(|task| sample["task_id"] == task.id).unwrap();
        let ended = python
            .run(&task.program(sample["completion"].as_str().unwrap()))
            .unwrap();
        assert_eq!(
            ended.passed,
            sample["passed"] == true,
            "{}: {}",
            sample["what"],
            ended.result
        );
        // A process that ends by itself is no program that took too long, as the checker has it.
        if !ended.result.contains("ended by itself") {
            assert_eq!(ended.result, sample["result"].as_str().unwrap(), "{}", sample["what"]);
        }
    }
}

#[test]
fn a_file_of_samples_is_scored_without_a_model() {
    if python(Limits::default()).is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (out, samples) = (dir.path().join("run"), dir.path().join("samples.jsonl"));
    let solution = |task: usize, right: bool| {
        let solutions = [
            "    return [2 * n for n in numbers]\n",
            "    return max(words, key=len)\n",
        ];
        let completion = if right { solutions[task] } else { "    return 1\n" };
        serde_json::json!({ "task_id": format!("Sample/{task}"), "completion": completion }).to_string() + "\n"
    };
    let whole = [(0, true), (0, false), (1, false), (1, false)]
        .map(|(task, right)| solution(task, right))
        .concat();
    std::fs::write(&samples, &whole).unwrap();
    let data = fixture("problems.jsonl");
    let [out, samples, data] = [&out, &samples, &data].map(|path| path.to_str().unwrap().to_string());
    let args = ["--data", &data, "--score", &samples, "--k", "1,2,5", "--out", &out];
    fails("code", &args, &["--allow-code-execution", "sandbox"]);
    let args = [&args[..], &["--allow-code-execution"]].concat();
    let printed = succeeds("code", &args);
    assert!(printed.contains("HumanEval pass@2"), "{printed}");
    let summary = std::fs::read_to_string(Path::new(&out).join("summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(
        (&summary[0]["metric"], &summary[0]["value"]),
        (&"pass@1".into(), &25.0.into())
    );
    assert_eq!(
        (&summary[1]["task"], &summary[1]["value"]),
        (&"HumanEval pass@2".into(), &50.0.into())
    );
    assert_eq!(summary.as_array().unwrap().len(), 2, "no pass@5 of two samples");
    let answers = lines(&Path::new(&out).join("samples/HumanEval.jsonl"));
    assert_eq!(answers[0]["details"]["result"], "passed");
    assert_eq!(answers[0]["other_verdicts"][0]["correct"], false);
    assert!(
        answers[1]["details"]["result"]
            .as_str()
            .unwrap()
            .starts_with("failed: ")
    );
    // Cut after the first task, it goes on there.
    let path = Path::new(&out).join("samples/HumanEval.jsonl");
    let mut first = lines(&path).remove(0);
    first["details"]["result"] = "kept".into();
    let changed = first.to_string();
    first.as_object_mut().unwrap().remove("crc32c");
    let go_on = |first: &str| {
        std::fs::write(&path, format!("{first}\n")).unwrap();
        std::fs::remove_file(Path::new(&out).join("summary.json")).unwrap();
        succeeds("code", &args);
        let again = lines(&path);
        (again.len(), again[0]["details"]["result"].clone())
    };
    assert_eq!(go_on(&first.to_string()), (2, "kept".into()));
    // A result that does not match its checksum is not believed.
    assert_eq!(go_on(&changed), (2, "passed".into()));
    // Samples for unknown tasks, and tasks without a sample.
    std::fs::write(
        &samples,
        solution(0, true) + "{\"task_id\": \"x\", \"completion\": \"\"}\n",
    )
    .unwrap();
    let other = dir.path().join("other").display().to_string();
    let args = [
        "--data",
        &data,
        "--score",
        &samples,
        "--allow-code-execution",
        "--out",
        &other,
    ];
    fails(
        "code",
        &args,
        &["samples.jsonl:2", "task 'x' is none of the benchmark's"],
    );
    std::fs::write(&samples, solution(0, true)).unwrap();
    fails("code", &args, &["1 of the 2 tasks", "Sample/1", "--ignore-incomplete"]);
    succeeds("code", &[&args[..], &["--ignore-incomplete"]].concat());
}

const QUICK: [&str; 9] = [
    "--sets",
    "one-step",
    "--train-limit",
    "8",
    "--test-limit",
    "4",
    "--epochs",
    "1",
    "--method",
];

#[test]
fn the_generated_tasks_need_no_python_and_run_in_it_where_it_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run").display().to_string();
    let args = [&QUICK[..], &["none,wegeft", "--out", &out]].concat();
    let printed = succeeds("code", &args);
    assert!(printed.contains("one-step") && printed.contains("pass@1"), "{printed}");
    let samples = lines(&Path::new(&out).join("wegeft/one-step.samples.jsonl"));
    assert_eq!((samples.len(), &samples[0]["task_id"]), (4, &"one-step/0".into()));
    for answer in lines(&Path::new(&out).join("wegeft/one-step.jsonl")) {
        assert_eq!(answer["details"]["task_id"], format!("one-step/{}", answer["index"]));
        assert!(answer["extracted"].is_string() && answer["details"]["result"].is_string());
    }
    let other = dir.path().join("other").display().to_string();
    let args = [
        &QUICK[..],
        &[
            "none",
            "--allow-code-execution",
            "--samples",
            "2",
            "--temperature",
            "0.5",
            "--k",
            "1,2",
        ],
    ]
    .concat();
    let output = run("code", &[&args[..], &["--out", &other]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let answers = lines(&Path::new(&other).join("none/one-step.jsonl"));
    assert_eq!(
        (
            answers[0]["measures"][0]["name"].as_str(),
            &answers[0]["others"].as_array().unwrap().len()
        ),
        (Some("pass@2"), &1)
    );
    assert_eq!(lines(&Path::new(&other).join("none/one-step.samples.jsonl")).len(), 8);
}

#[test]
fn what_no_run_can_be_made_with_is_said_before_anything_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().display().to_string();
    let out = dir.path().join("run").display().to_string();
    let of = |args: &[&str]| {
        [args, &["--out", &out]]
            .concat()
            .iter()
            .map(|a| a.to_string())
            .collect::<Vec<_>>()
    };
    let refused = |args: &[&str], parts: &[&str]| {
        let args = of(args);
        fails("code", &args.iter().map(String::as_str).collect::<Vec<_>>(), parts);
    };
    refused(&["--data", &data, "--method", "none"], &["--allow-code-execution"]);
    refused(
        &["--data", &data, "--allow-code-execution"],
        &["no training file", "--train-file"],
    );
    refused(&["--score", "x"], &["--score needs --data"]);
    refused(&["--task", "four-step"], &["'four-step'", "one-step, two-step, groups"]);
    refused(&["--program-timeout", "0"], &["'program_timeout' is 0"]);
    refused(&["--k", "0"], &["'k' is 0"]);
    refused(&["--top-p", "0"], &["'top_p' is 0"]);
    refused(&["--drop-longer", "0"], &["'drop_longer' is 0"]);
    if python(Limits::default()).is_none() {
        return;
    }
    let refused = |args: &[&str], parts: &[&str]| {
        refused(&[args, &["--allow-code-execution", "--method", "none"]].concat(), parts)
    };
    refused(&["--data", &data], &["holds none of HumanEval.jsonl"]);
    let bad = dir.path().join("HumanEval.jsonl");
    std::fs::write(&bad, "{\"task_id\": \"a\", \"prompt\": \"\"}\n").unwrap();
    refused(&["--data", &data], &["HumanEval.jsonl:1: no field 'entry_point'"]);
    refused(&["--data", &data, "--task", "MBPP"], &["'MBPP' is unknown"]);
}
