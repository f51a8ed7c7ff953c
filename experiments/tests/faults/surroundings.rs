//! What a program finds around it: no output, folders that go, files that cannot be read, numbers that are none.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::needs::two_colours;
use super::table::{VISION, WORKS, each, named};
use super::work::{fails_with_a_sentence, files_below, fixture, folder, redirected, root, stderr, wegeft};

#[test]
fn closed_outputs_change_no_result() {
    let dir = folder();
    let uncut = dir.path().join("uncut");
    assert!(VISION.done(dir.path(), &uncut).status.success());
    let expected = VISION.results(&uncut);
    for (number, how) in [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full"]
        .iter()
        .enumerate()
    {
        let out = dir.path().join(format!("out-{number}"));
        let output = redirected(&VISION.command(dir.path(), &out), how);
        assert!(output.status.success(), "{how}: {output:?}");
        assert_eq!(VISION.results(&out), expected, "{how}");
    }
    // A reader that goes away after the first line.
    let out = dir.path().join("head");
    let mut command = VISION.command(dir.path(), &out);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait_with_output().unwrap().status.success());
    assert_eq!(VISION.results(&out), expected);
}

#[cfg(target_os = "linux")]
#[test]
fn results_that_cannot_be_printed_are_there_all_the_same() {
    let dir = folder();
    let out = dir.path().join("out");
    let output = redirected(&VISION.command(dir.path(), &out), ">/dev/full");
    let message = fails_with_a_sentence(&output, "a full output");
    assert!(message.contains("standard output"), "{message}");
    assert!(out.join("summary.json").is_file() && out.join("report.html").is_file());
}

#[cfg(target_os = "linux")]
#[test]
fn every_tool_says_that_its_results_cannot_be_printed() {
    let dir = folder();
    let tools = [
        "report",
        "export-lora",
        "convert",
        "merge-vision",
        "predict",
        "visualize",
        "man",
    ];
    for work in named(tools) {
        let out = dir.path().join(work.name);
        let output = redirected(&work.command(dir.path(), &out), ">/dev/full");
        let message = fails_with_a_sentence(&output, work.name);
        assert!(message.contains("standard output"), "{message}");
        assert!(!work.results(&out).is_empty(), "{}", work.name);
    }
    let adapter = dir.path().join("vision/colours/wegeft/seed-1/adapter");
    let adapter = adapter.to_str().unwrap();
    let image = dir.path().join("data/colours/images/1.png");
    for arguments in [
        &["completions", "bash"][..],
        &["adapter", "inspect", adapter],
        &["adapter", "diff", adapter, adapter],
        &["predict", image.to_str().unwrap(), "--adapter", adapter],
        &["generate", "--prompt", "hi", "--max-new-tokens", "2"],
    ] {
        let mut command = wegeft();
        command.args(arguments);
        let place = format!("{arguments:?}");
        let message = fails_with_a_sentence(&redirected(&command, ">/dev/full"), &place);
        assert!(message.contains("standard output"), "{place}: {message}");
        // Without any output, there is nobody to tell.
        let output = redirected(&command, "<&- >&- 2>&-");
        assert_eq!(output.status.code(), Some(0), "{place}");
    }
}

#[test]
fn a_limit_on_file_sizes_is_told() {
    let dir = folder();
    let pages = dir.path().join("pages");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 1; exec \"$@\"", "sh"]);
    let output = command.arg(wegeft().get_program()).arg("man").arg(&pages).output();
    let message = fails_with_a_sentence(&output.unwrap(), "a limit on file sizes");
    assert!(message.contains("too large") && message.contains("pages"), "{message}");
    assert_eq!(std::fs::read_dir(&pages).unwrap().count(), 0);
}

#[test]
fn a_folder_that_goes_while_a_run_is_in_it_ends_it_with_a_sentence() {
    let dir = folder();
    let out = dir.path().join("out");
    let data = dir.path().join("data");
    two_colours(&data);
    let mut command = wegeft();
    command.args([
        "vtab",
        "--task",
        "colours",
        "--method",
        "wegeft",
        "--r",
        "2",
        "--batch-size",
        "6",
    ]);
    command
        .args(["--epochs", "100000", "--model", &fixture("vit"), "--data"])
        .arg(&data)
        .arg("--out")
        .arg(&out);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&out.join("colours/wegeft/metrics.jsonl"));
    while out.exists() {
        // The run makes files while they are removed.
        let _ = std::fs::remove_dir_all(&out);
    }
    let output = child.wait_with_output().unwrap();
    let message = fails_with_a_sentence(&output, "a folder that is gone");
    assert!(message.contains("cannot write"), "{message}");
}

fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{} never came",
            path.display()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(debug_assertions)]
#[test]
fn a_read_only_folder_is_told_before_anything_is_trained() {
    let dir = folder();
    each(WORKS, |work| {
        let out = dir.path().join(format!("out-{}", work.name));
        let mut command = work.command(dir.path(), &out);
        let output = command.env("WEGEFT_FAULT", "1+:EROFS").output().unwrap();
        let message = fails_with_a_sentence(&output, work.name);
        assert!(
            message.contains("Read-only file system") && message.contains(out.to_str().unwrap()),
            "{}: {message}",
            work.name
        );
    });
}

#[test]
fn a_folder_in_the_place_of_a_file_is_named() {
    let dir = folder();
    let data = dir.path().join("data");
    for name in ["val200.txt", "test.txt", "images/3.png"] {
        two_colours(&data);
        let path = data.join("colours").join(name);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let output = VISION.done(dir.path(), &dir.path().join("out"));
        let message = fails_with_a_sentence(&output, name);
        assert!(message.contains(name), "{name}: {message}");
        std::fs::remove_dir_all(&data).unwrap();
    }
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let model = dir.path().join(format!("model-{name}"));
        std::fs::create_dir_all(model.join(name)).unwrap();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/language-model");
        for other in ["config.json", "model.safetensors", "tokenizer.json"] {
            if other != name {
                std::fs::copy(shipped.join(other), model.join(other)).unwrap();
            }
        }
        let mut command = wegeft();
        command.args(["generate", "--prompt", "hi", "--model"]).arg(&model);
        let output = command.output().unwrap();
        let message = stderr(&output);
        // What it has loaded before is told there too.
        assert_eq!(output.status.code(), Some(1), "{name}: {message}");
        assert!(
            message.contains(name) && !message.contains("panicked"),
            "{name}: {message}"
        );
    }
}

/// A clock that goes backwards cannot matter: times are of the monotonic clock, and nothing compares those of files.
#[test]
fn no_result_depends_on_the_time_of_day() {
    let folders = [
        "crates/wegeft/src",
        "crates/backbones/src",
        "crates/capture/src",
        "crates/kernels/src",
        "crates/files/src",
        "datasets/src",
        "experiments/src",
    ];
    for path in files_below(folders.map(|folder| root().join(folder))) {
        // A chat template may ask for the date, a file for others says when it was made, and a temporary file that
        // somebody may still write to stays.
        let may = [
            "chat_template/python.rs",
            "suites/peft_result.rs",
            "instruct/outputs.rs",
            "tools/own_file.rs",
        ];
        if path.extension().is_none_or(|ending| ending != "rs") || may.iter().any(|may| path.ends_with(may)) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for asked in ["SystemTime", "Local::now", "Utc::now", ".modified()"] {
            assert!(!text.contains(asked), "{} asks for {asked}", path.display());
        }
    }
}

#[test]
fn a_training_that_diverges_says_at_which_step_and_where() {
    let dir = folder();
    let out = dir.path().join("out");
    let mut command = VISION.command(dir.path(), &out);
    let output = command.args(["--learning-rate", "1e30"]).output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    for part in [
        "the loss is not a number at step ",
        "(nor is the gradient of 'head.",
        "lower learning_rate",
    ] {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
    assert!(!out.join("summary.json").exists());
}

#[test]
fn factors_that_the_last_step_spoils_are_no_result() {
    let dir = folder();
    let out = dir.path().join("out");
    let examples = dir.path().join("examples.jsonl");
    std::fs::write(&examples, "{\"prompt\": \"Add 1 and 1.\", \"completion\": \"2\"}\n").unwrap();
    // One step, whose loss is that of the start, and no validation.
    let mut command = wegeft();
    command.args([
        "finetune",
        "--method",
        "lora",
        "--lora-r",
        "2",
        "--epochs",
        "1",
        "--validation",
        "0",
    ]);
    command.args(["--learning-rate", "1e39", "--warmup-ratio", "0", "--train-file"]);
    command.arg(&examples).arg("--out").arg(&out);
    for _ in 0..2 {
        let output = command.output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("is not finite after the last step"), "{message}");
        assert!(!out.join("summary.json").exists());
    }
}

#[test]
fn a_validation_that_is_not_finite_names_the_tensor() {
    let dir = folder();
    let data = dir.path().join("data");
    two_colours(&data);
    let mut command = wegeft();
    command.args([
        "vtab", "--task", "colours", "--method", "wegeft", "--r", "2", "--epochs", "1",
    ]);
    command.args([
        "--batch-size",
        "12",
        "--learning-rate",
        "1e39",
        "--warmup-ratio",
        "0",
        "--data",
    ]);
    command.arg(&data).arg("--out").arg(dir.path().join("out"));
    command.args(["--model", &fixture("vit")]);
    let output = command.output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("is not a number at step 1 ('") && message.contains("' is not either)"),
        "{message}"
    );
}

#[test]
fn factors_that_no_gradient_reaches_are_named() {
    let dir = folder();
    super::needs::examples(dir.path());
    let mut command = wegeft();
    command.args([
        "finetune",
        "--method",
        "wegeft",
        "--r",
        "2",
        "--epochs",
        "1",
        "--batch-size",
        "12",
    ]);
    command.args(["--validation", "0", "--train-file"]);
    command
        .arg(dir.path().join("examples.jsonl"))
        .arg("--out")
        .arg(dir.path().join("out"));
    let output = command.output().unwrap();
    let message = stderr(&output);
    assert!(output.status.success(), "{message}");
    // Two steps, the first of them at a learning rate of 0: phi is still zero in the second one.
    for part in [
        "no gradient reaches 'model.layers.0.",
        ".psi'",
        "in the first 2 steps: it is not trained",
    ] {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}
