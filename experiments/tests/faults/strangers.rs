//! Files that others made: nothing in them leads out of their folder, overwrites anything, or steers terminal or browser.

use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use super::needs::two_colours;
use super::table::{MERGE, VISION, named};
use super::work::{fails_with_a_sentence, files_below, folder, stderr, wegeft};

const PRECIOUS: &str = "do not touch";

#[test]
fn links_in_a_run_folder_are_not_followed() {
    let dir = folder();
    let precious = dir.path().join("precious");
    let home = dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    for (number, place) in [
        ".lock",
        "config.toml",
        "data.json",
        "summary.json",
        "report.html",
        "colours/wegeft/seed-1/metrics.jsonl",
        "colours/wegeft/seed-1/outcome.json",
        "colours/wegeft/seed-1/checkpoints/model-1.bpk",
        "colours/wegeft/seed-1/adapter/adapter_model.safetensors",
        "colours/wegeft/seed-1/adapter",
        "colours",
    ]
    .iter()
    .enumerate()
    {
        std::fs::write(&precious, PRECIOUS).unwrap();
        let out = dir.path().join(format!("out-{number}"));
        let link = out.join(place);
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        let is_folder = !place.contains('.');
        symlink(if is_folder { &home } else { &precious }, &link).unwrap();
        let output = VISION.done(dir.path(), &out);
        let message = fails_with_a_sentence(&output, place);
        assert!(
            message.contains("is a link out of the run folder"),
            "{place}: {message}"
        );
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), PRECIOUS, "{place}");
        assert_eq!(std::fs::read_dir(&home).unwrap().count(), 0, "{place}");
        std::fs::remove_file(&link).unwrap();
        let output = VISION.done(dir.path(), &out);
        assert!(output.status.success(), "{place}: {}", stderr(&output));
    }
}

#[test]
fn links_in_other_output_folders_are_replaced() {
    let dir = folder();
    let precious = dir.path().join("precious");
    std::fs::write(&precious, PRECIOUS).unwrap();
    let out = dir.path().join("merged");
    let names = ["config.json", "model.safetensors", "tokenizer.json"];
    // Of an earlier merge: a folder of another model is refused.
    assert!(MERGE.done(dir.path(), &out).status.success());
    for name in names {
        std::fs::remove_file(out.join(name)).unwrap();
        symlink(&precious, out.join(name)).unwrap();
    }
    let output = MERGE.done(dir.path(), &out);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), PRECIOUS);
    for name in names {
        assert!(!out.join(name).is_symlink(), "{name}");
    }
}

#[test]
fn a_run_replaces_nothing_of_others() {
    let dir = folder();
    for (number, (name, text, part)) in [
        ("model.safetensors", "x", "of a model or an adapter"),
        ("config.json", "{\"model_type\": \"llama\"}", "of a model or an adapter"),
        ("adapter_config.json", "{}", "of a model or an adapter"),
        ("summary.json", "{\"rows\": 3}", "is not of a run"),
        ("config.toml", "title = 'a page'", "is not of a run"),
        ("data.json", "[1, 2]", "made by another program"),
        (
            "colours/wegeft/seed-1/adapter/adapter_config.json",
            "{}",
            "is not of a training",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let out = dir.path().join(format!("out-{number}"));
        let path = out.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        // Of another program, which may still be at it.
        std::fs::write(out.join(".tmpAbC123"), "x").unwrap();
        let message = fails_with_a_sentence(&VISION.done(dir.path(), &out), name);
        assert!(
            message.contains(part) && message.contains(name) && message.contains("another --out"),
            "{message}"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{name}");
        assert!(out.join(".tmpAbC123").exists(), "{name}");
    }
}

#[test]
fn images_of_others_are_not_replaced_by_maps() {
    let dir = folder();
    let [work] = named(["visualize"]);
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let place = out.join("00-1");
    std::fs::write(&place, PRECIOUS).unwrap();
    let message = fails_with_a_sentence(&work.done(dir.path(), &out), "a file");
    assert!(message.contains("out/00-1 is a file"), "{message}");
    std::fs::remove_file(&place).unwrap();
    symlink(dir.path(), &place).unwrap();
    let message = fails_with_a_sentence(&work.done(dir.path(), &out), "a link");
    assert!(message.contains("out/00-1 is a link"), "{message}");
    std::fs::remove_file(&place).unwrap();
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("input.png"), PRECIOUS).unwrap();
    let message = fails_with_a_sentence(&work.done(dir.path(), &out), "an image");
    assert!(
        message.contains("00-1: input.png there is not of an earlier"),
        "{message}"
    );
    assert_eq!(std::fs::read_to_string(place.join("input.png")).unwrap(), PRECIOUS);
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 1);
}

/// A finished run folder of someone else, its names an attack.
fn hostile(out: &Path, task: &str, method: &str) {
    std::fs::create_dir_all(out).unwrap();
    let outcome = json!([{
        "experiment": "vtab", "task": task, "group": task, "method": method, "model": "<img src=x onerror=alert(1)>",
        "trainable_params": 10, "percent_trainable": 0.1, "metric": "top1\u{1b}[31m", "value": 50.0, "validation": 50.0,
        "seconds": 1.0, "peak_mb": 10.0, "lr": 0.1, "weight_decay": 0.0, "seed": 1,
    }]);
    std::fs::write(out.join("summary.json"), outcome.to_string()).unwrap();
}

#[test]
fn a_report_of_a_stranger_s_runs_steers_neither_terminal_nor_browser() {
    let dir = folder();
    let (runs, out) = (dir.path().join("runs"), dir.path().join("report"));
    let script = "</td><script>alert(1)</script>";
    hostile(&runs.join("a"), script, "\u{1b}]0;owned\u{7}wegeft");
    hostile(&runs.join("b"), "digits", "<svg onload=alert(1)>");
    hostile(&runs.join("c"), "digits", "lora\u{202e}\u{1b}[2J");
    let output = wegeft()
        .arg("report")
        .arg(&runs)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        printed.contains("digits") && !printed.contains(['\u{1b}', '\u{7}']),
        "{printed:?}"
    );
    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(html.contains("&lt;script&gt;alert"), "{html}");
    for attack in ["<script>alert", "<img src=x", "<svg onload"] {
        assert!(!html.contains(attack), "{attack}: {html}");
    }
}

#[test]
fn names_in_results_do_not_lead_a_report_to_other_files() {
    let dir = folder();
    let out = dir.path().join("run");
    let first = VISION.done(dir.path(), &out);
    assert!(first.status.success(), "{}", stderr(&first));
    // A file of another folder that looks like the samples that the page shows.
    let elsewhere = dir.path().join("secret/wegeft/seed-1");
    std::fs::create_dir_all(&elsewhere).unwrap();
    let picture = "data:image/png;base64,U0VDUkVU";
    let sample = |picture: &str| json!([{ "picture": picture, "label": "x", "predicted": "x", "probability": 1.0 }]);
    std::fs::write(elsewhere.join("samples.json"), sample(picture).to_string()).unwrap();
    let trial = out.join("colours/wegeft/seed-1");
    let outcome = trial.join("outcome.json");
    let mut result: serde_json::Value = serde_json::from_slice(&std::fs::read(&outcome).unwrap()).unwrap();
    result["task"] = json!(dir.path().join("secret").to_str().unwrap());
    std::fs::write(&outcome, result.to_string()).unwrap();
    let watched = sample("https://example.org/watch.png");
    std::fs::write(out.join("colours/wegeft/seed-2/samples.json"), watched.to_string()).unwrap();
    let again = VISION.done(dir.path(), &out);
    assert!(again.status.success(), "{}", stderr(&again));
    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(!html.contains("U0VDUkVU") && !html.contains("example.org"), "{html}");
}

#[test]
fn links_in_a_circle_end_a_search_for_runs() {
    let dir = folder();
    let runs = dir.path().join("runs");
    hostile(&runs.join("a"), "digits", "lora");
    for name in ["x", "y", "z"] {
        symlink(&runs, runs.join(name)).unwrap();
    }
    let out = dir.path().join("report");
    let output = wegeft()
        .arg("report")
        .arg(&runs)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 result;"));
}

#[test]
fn a_list_names_no_image_outside_its_folder() {
    let dir = folder();
    let data = dir.path().join("data");
    two_colours(&data);
    let outside = dir.path().join("outside.png");
    std::fs::copy(data.join("colours/images/0.png"), &outside).unwrap();
    let list = data.join("colours/train800.txt");
    let lines = std::fs::read_to_string(&list).unwrap();
    for name in [
        outside.to_str().unwrap(),
        "../../outside.png",
        "images/../../../outside.png",
    ] {
        std::fs::write(&list, format!("{name} 0\n{lines}")).unwrap();
        let out = dir.path().join("out");
        let message = fails_with_a_sentence(&VISION.done(dir.path(), &out), name);
        assert!(
            message.contains("train800.txt") && message.contains("leads out of its folder"),
            "{message}"
        );
    }
}

#[test]
fn a_checkpoint_s_index_names_no_file_outside_its_folder() {
    let dir = folder();
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/language-model");
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(shipped.join(name), model.join(name)).unwrap();
    }
    std::fs::copy(
        shipped.join("model.safetensors"),
        dir.path().join("outside.safetensors"),
    )
    .unwrap();
    let absolute = dir.path().join("outside.safetensors");
    for name in ["../outside.safetensors", absolute.to_str().unwrap()] {
        let index = json!({ "weight_map": { "model.embed_tokens.weight": name } });
        std::fs::write(model.join("model.safetensors.index.json"), index.to_string()).unwrap();
        let mut command = wegeft();
        command.args(["generate", "--prompt", "hi", "--model"]).arg(&model);
        let message = fails_with_a_sentence(&command.output().unwrap(), name);
        assert!(message.contains("weight_map"), "{message}");
    }
}

/// The members of an archive are read where they are: nothing is unpacked.
#[test]
fn a_member_of_an_archive_leaves_no_file_anywhere() {
    let dir = folder();
    let adapter = dir.path().join("a/b/c/adapter");
    std::fs::create_dir_all(&adapter).unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/policy/pickled");
    std::fs::copy(
        fixtures.join("adapter_config.json"),
        adapter.join("adapter_config.json"),
    )
    .unwrap();
    let archive = std::fs::read(fixtures.join("adapter_model.bin")).unwrap();
    let (name, evil) = (b"adapter_model/", b"../../../evil/");
    let mut changed = archive.clone();
    for at in 0..archive.len() - name.len() {
        if archive[at..].starts_with(name) {
            changed[at..at + evil.len()].copy_from_slice(evil);
        }
    }
    assert_ne!(changed, archive);
    std::fs::write(adapter.join("adapter_model.bin"), changed).unwrap();
    let output = wegeft().args(["adapter", "inspect"]).arg(&adapter).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(std::fs::read_dir(&adapter).unwrap().count(), 2);
    assert!(!dir.path().join("a/evil").exists() && !dir.path().join("evil").exists());
}

#[test]
fn names_in_a_stranger_s_adapter_do_not_steer_the_terminal() {
    let dir = folder();
    let run = dir.path().join("run");
    let trained = VISION.done(dir.path(), &run);
    assert!(trained.status.success(), "{}", stderr(&trained));
    let adapter = run.join("colours/wegeft/seed-1/adapter");
    let image = dir.path().join("data/colours/images/1.png");
    let change = |file: &str, field: &str, value: serde_json::Value| {
        let path = adapter.join(file);
        let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        json[field] = value;
        std::fs::write(&path, json.to_string()).unwrap();
    };
    let is_steered = |text: &[u8]| {
        let text = String::from_utf8_lossy(text).into_owned();
        text.contains(|c: char| c.is_control() && c != '\n')
    };
    change(
        "classifier.json",
        "classes",
        json!(["\u{1b}]0;owned\u{7}cat", "\u{9b}2Jdog"]),
    );
    for more in [&[][..], &["--json"]] {
        let mut command = wegeft();
        let output = command
            .arg("predict")
            .arg(&image)
            .arg("--adapter")
            .arg(&adapter)
            .args(more)
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(printed.contains("dog") && !is_steered(&output.stdout), "{printed:?}");
    }
    change("adapter_config.json", "peft_type", json!("\u{1b}[2J\r"));
    let output = wegeft().args(["adapter", "inspect"]).arg(&adapter).output().unwrap();
    let message = fails_with_a_sentence(&output, "a method's name");
    assert!(
        message.contains("peft_type") && !is_steered(&output.stderr),
        "{message:?}"
    );
}

/// Not in a message, not in a file of the cache, whatever the server answers.
#[test]
fn the_token_is_in_no_message_and_in_no_file() {
    let dir = folder();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (mut stream, status) in listener.incoming().flatten().zip([401, 403, 404, 418].iter().cycle()) {
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            let reply = format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = std::io::Write::write_all(&mut stream, reply.as_bytes());
        }
    });
    let token = "hf_SecretOfMine";
    let home = dir.path().join("home");
    for _ in 0..4 {
        let mut command = wegeft();
        command.args(["predict", "x.png", "--model", "org/tiny"]);
        command
            .env("HF_HOME", &home)
            .env("HF_ENDPOINT", &address)
            .env("HF_TOKEN", token);
        let output = command.env("HF_HUB_OFFLINE", "0").output().unwrap();
        let message = fails_with_a_sentence(&output, "a refusal");
        assert!(message.contains("org/tiny") && !message.contains(token), "{message}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains(token));
    }
    for path in files_below([home]) {
        if let Ok(bytes) = std::fs::read(&path) {
            let found = bytes.windows(token.len()).any(|window| window == token.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
}
