//! `chat`, driven through a pipe.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::program::{fails, succeeds, text};

/// Runs `chat` with `input` on its standard input.
fn talk(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_chat"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// The small model that ships, with a chat template.
fn with_template(dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/language-model");
    let folder = dir.join("model");
    fs::create_dir_all(&folder).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(source.join(file), folder.join(file)).unwrap();
    }
    let template = "{% for m in messages %}{% if m.content == 'odd' %}{{ raise_exception('odd words') }}{% endif %}\
                    {{ m.role }}: {{ m.content }}\\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
    let config = format!("{{\"eos_token\": \"<|end|>\", \"chat_template\": \"{template}\"}}");
    fs::write(folder.join("tokenizer_config.json"), config).unwrap();
    folder
}

#[test]
fn commands_switch_adapters_and_forget() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data.jsonl");
    let lines: String = (0..24)
        .map(|_| "{\"instruction\": \"Say the word dog.\", \"output\": \"moth moth moth\"}\n")
        .collect();
    fs::write(&data, lines).unwrap();
    let out = dir.path().join("run");
    let args = [
        "--train-file",
        data.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
        "--method",
        "lora",
        "--learning-rate",
        "2e-2",
        "--epochs",
        "6",
        "--batch-size",
        "8",
    ];
    succeeds("finetune", &args);
    let adapter = format!("mine={}", out.join("lora/adapter").display());
    let said = |input: &str| {
        let output = talk(&["--adapter", &adapter, "--max-new-tokens", "8"], input);
        assert!(output.status.success(), "{}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    };
    let (with, _) = said("Say the word dog.\n");
    assert!(with.contains("moth"), "{with}");
    let (without, notes) = said("/adapter off\nSay the word dog.\n");
    assert!(
        !without.contains("moth") && notes.contains("no adapter"),
        "{without} {notes}"
    );
    let (back, notes) = said("/adapter off\n/adapter mine\nSay the word dog.\n");
    assert_eq!((&back, notes.contains("adapter mine")), (&with, true));
    // What was said before counts, until it is forgotten.
    let (twice, _) = said("Say the word dog.\n/reset\nSay the word dog.\n");
    assert_eq!(twice, format!("{with}{with}"));
    let (_, notes) = said("/help\n/what\n/adapter other\n/system Be short.\n/system\n/quit\nnever\n");
    for part in [
        "/adapter on|off|NAME",
        "no command /what",
        "no adapter 'other'",
        "there are: mine",
        "is set",
        "no system message",
    ] {
        assert!(notes.contains(part), "'{part}' is not in: {notes}");
    }
}

#[test]
fn chat_templates_carry_the_conversation_and_models_without_one_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let model = with_template(dir.path());
    let output = talk(
        &[
            "--model",
            model.to_str().unwrap(),
            "--max-new-tokens",
            "6",
            "--system",
            "Be brief.",
        ],
        "What is 3 + 4?\nodd\nAnd 5 + 6?",
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    // A message that the template refuses is told of, and the conversation goes on.
    assert!(text(&output.stderr).contains("odd words"), "{}", text(&output.stderr));
    assert!(text(&output.stdout).lines().count() >= 2, "{}", text(&output.stdout));
    fs::write(model.join("tokenizer_config.json"), "{\"eos_token\": \"<|end|>\"}").unwrap();
    fails(
        "chat",
        &["--model", model.to_str().unwrap()],
        &["chat template", "--template alpaca"],
    );
    fails(
        "chat",
        &["--adapter", "off=x"],
        &["'off' cannot be the name of an adapter"],
    );
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_chat"))
        .args(["--max-new-tokens", "4"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut input = child.stdin.take().unwrap();
    for _ in 0..3 {
        // The program may be gone by then.
        let _ = input.write_all(b"Say the word dog.\n");
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success() && !text(&output.stderr).contains("panicked"),
        "{}",
        text(&output.stderr)
    );
}
