//! One definition per setting: flags, presets, help.

use crate::{fails, make_task, succeeds, text, wegeft};

#[test]
fn help_version_completions_and_man_pages_come_from_the_same_definitions() {
    let long = succeeds(&["vtab", "--help"]);
    for part in [
        "Run:",
        "Data:",
        "Model:",
        "Adapter:",
        "Training:",
        "Sweep:",
        "Examples:",
        "--learning-rate",
        "[default: 0.01]",
        "[possible values: ",
        "--set <METHOD.FIELD=VALUE>",
    ] {
        assert!(long.contains(part), "'{part}' is not in: {long}");
    }
    assert!(!long.contains("--class-ids") && succeeds(&["fgvc", "--help"]).contains("--class-ids"));
    let short = succeeds(&["vtab", "-h"]);
    assert!(short.len() < long.len());
    let language = succeeds(&["commonsense", "--help"]);
    assert!(
        language.contains("Evaluation:") && language.contains("[default: 0.0002]"),
        "{language}"
    );
    let version = succeeds(&["--version"]);
    assert!(
        version.contains("wegeft") && version.contains("backends: flex"),
        "{version}"
    );
    for shell in ["bash", "zsh", "fish", "powershell"] {
        assert!(succeeds(&["completions", shell]).contains("learning-rate"), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    succeeds(&["man", dir.path().to_str().unwrap()]);
    let page = std::fs::read_to_string(dir.path().join("wegeft-vtab.1")).unwrap();
    assert!(page.contains("learning"), "{page}");
    // They replace pages, and nothing else.
    let man = ["man", dir.path().to_str().unwrap()];
    succeeds(&man);
    std::fs::write(dir.path().join("wegeft-vtab.1"), "a letter").unwrap();
    fails(&man, &["wegeft-vtab.1 is no man page"]);
    std::fs::remove_file(dir.path().join("wegeft-vtab.1")).unwrap();
    std::fs::write(dir.path().join("adapter_config.json"), "{}").unwrap();
    fails(&man, &["holds adapter_config.json of another model or adapter"]);
    assert!(!dir.path().join("wegeft-vtab.1").exists());
}

#[test]
fn a_flag_of_another_program_is_refused_and_a_close_one_suggested() {
    for (program, flag) in [
        ("finetune", "--max-new-tokens"),
        ("vtab", "--class-ids"),
        ("vtab", "--max-length"),
    ] {
        let code = fails(&[program, flag, "3"], &[flag, "unexpected"]);
        assert_eq!(code, 2, "{program} {flag}");
    }
    let code = fails(&["finetune", "--learning-rat", "1"], &["--learning-rate"]);
    assert_eq!(code, 2);
    assert_eq!(
        fails(&["commonsense", "--protocol", "newest"], &["'newest'", "new or old"]),
        2
    );
}

#[test]
fn presets_have_names() {
    let listed = succeeds(&["commonsense", "--list-presets"]);
    assert!(
        listed.contains("paper-commonsense-llama3") && listed.contains("old-commonsense-llama3"),
        "{listed}"
    );
    fails(
        &["vtab", "--config", "paper-vtabs"],
        &["neither a file nor a preset", "paper-vtab"],
    );
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path(), "halves", 4);
    let out = dir.path().join("run");
    let (data, out) = (dir.path().to_str().unwrap(), out.to_str().unwrap());
    succeeds(&[
        "vtab", "--config", "quick", "--data", data, "--task", "halves", "--epochs", "1", "--out", out, "-q",
    ]);
    let config = std::fs::read_to_string(format!("{out}/config.toml")).unwrap();
    assert!(
        config.contains("learning_rate = 0.005") && config.contains("epochs = 1\n"),
        "{config}"
    );
}

#[test]
fn flags_win_over_presets_and_set_over_both() {
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path(), "halves", 4);
    let preset = dir.path().join("preset.toml");
    let data = dir.path().to_str().unwrap();
    let r = |name: &str, preset_text: &str, more: &[&str]| -> serde_json::Value {
        std::fs::write(&preset, preset_text).unwrap();
        let out = dir.path().join(name);
        let fixed = [
            "vtab",
            "--config",
            preset.to_str().unwrap(),
            "--data",
            data,
            "--task",
            "halves",
            "--epochs",
            "1",
        ];
        let args = [&fixed[..], &["--method", "lora", "--out", out.to_str().unwrap()], more].concat();
        succeeds(&args);
        crate::json(&out.join("halves/lora/adapter/adapter_config.json"))["r"].clone()
    };
    let own = "[methods.lora]\nr = 4\n";
    assert_eq!(r("preset", own, &[]), 4);
    assert_eq!(r("flag", own, &["--lora-r", "2"]), 2);
    assert_eq!(r("set", own, &["--lora-r", "2", "--set", "lora.r=6"]), 6);
    assert_eq!(r("old", "lora_r = 3\nlr = 1e-3\n", &["--backbone", &shipped()]), 3);
    let config = std::fs::read_to_string(dir.path().join("flag/config.toml")).unwrap();
    assert!(config.contains("lora_r = 2") && !config.contains("r = 4"), "{config}");
    std::fs::write(&preset, "[methods.vpt]\nr = 10\n").unwrap();
    fails(
        &[
            "vtab",
            "--config",
            preset.to_str().unwrap(),
            "--out",
            dir.path().join("no").to_str().unwrap(),
        ],
        &["'r'", "methods.vpt", "tokens"],
    );
}

#[test]
fn set_takes_lists_and_says_what_a_field_holds() {
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path(), "halves", 4);
    let data = dir.path().to_str().unwrap();
    let out = dir.path().join("run");
    let fixed = [
        "vtab",
        "--data",
        data,
        "--method",
        "lora",
        "--dry-run",
        "--out",
        out.to_str().unwrap(),
    ];
    let with = |more: &[&'static str]| [&fixed[..], more].concat();
    succeeds(&with(&[
        "--sweep",
        "--set",
        "lora.sweep_lr=1e-3,2e-3",
        "--set",
        "lora.target_modules=attn.proj,mlp.fc1",
    ]));
    fails(
        &with(&["--set", "lora.r=x"]),
        &["--set lora.r=x: ", "string \"x\"", "expected a whole number"],
    );
    fails(&with(&["--set", "lora.learning_rate=fast"]), &["expected a number"]);
    succeeds(&with(&["--sweep", "--set", "lora.sweep_lr=0.01"]));
    fails(
        &with(&["--set", "lora.sweep_lr=fast"]),
        &["a number or a list of numbers"],
    );
    fails(
        &with(&["--set", "lora.sweep_lr=0,1"]),
        &["[methods.lora]: field 'sweep_lr' is 0"],
    );
    fails(
        &with(&["--set", "lora.rr=1"]),
        &["unknown field 'rr'", "did you mean 'r'"],
    );
    fails(&with(&["--sweep", "--sweep-lr", "0"]), &["field 'sweep_lr' is 0"]);
    fails(
        &with(&["--sweep", "--sweep-weight-decay", "-1"]),
        &["field 'sweep_weight_decay' is -1"],
    );
    fails(&with(&["--flip", "2"]), &["field 'flip' is 2; it must be from 0 to 1"]);
    // A number below 0 is a value, not a flag.
    fails(&with(&["--r", "-1"]), &["'--r <R>'", "a whole number of 0 or more"]);
    let preset = dir.path().join("twice.toml");
    let config = ["--config", preset.to_str().unwrap()].map(String::from);
    for (text, part) in [
        (
            "lr = 1\nlearning_rate = 2\n",
            "'learning_rate' and 'lr' are the same field",
        ),
        ("jobs = 2\n", "give --jobs on the command line"),
    ] {
        std::fs::write(&preset, text).unwrap();
        let args: Vec<&str> = fixed.iter().copied().chain(config.iter().map(String::as_str)).collect();
        fails(&args, &["twice.toml", part]);
    }
    let said = succeeds(&with(&[
        "--sweep",
        "--sweep-lr",
        "0.1,0.1,0.01",
        "--sweep-weight-decay",
        "0,0",
    ]));
    assert!(said.contains("2 tuning runs"), "{said}");
}

fn shipped() -> String {
    format!("{}/../datasets/backbone", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_dry_run_says_what_would_be_trained_and_trains_nothing() {
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path(), "halves", 4);
    let out = dir.path().join("run");
    let (data, place) = (dir.path().to_str().unwrap(), out.to_str().unwrap());
    let said = succeeds(&[
        "vtab",
        "--data",
        data,
        "--method",
        "lora,wegeft",
        "--dry-run",
        "--out",
        place,
    ]);
    for part in [
        "halves with lora: 8192 trainable",
        "halves with wegeft: 4096 trainable",
        "MB",
        "s of training",
    ] {
        assert!(said.contains(part), "'{part}' is not in: {said}");
    }
    let said = succeeds(&[
        "arithmetic",
        "--dry-run",
        "--train-limit",
        "8",
        "--task",
        "one-step",
        "--out",
        place,
    ]);
    assert!(said.contains("wegeft: ") && said.contains("MB"), "{said}");
    assert!(!out.exists());
}

#[test]
fn no_program_panics_on_a_full_standard_error() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else {
        return;
    };
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wegeft"));
    command.args(["generate", "--prompt", "Add 1 and 2.", "--max-new-tokens", "2"]);
    let output = command.stderr(full).output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    assert!(!output.stdout.is_empty());
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wegeft"));
    command.args(["generate", "--prompt", "Add 1 and 2.", "--max-new-tokens", "2"]);
    let output = command.stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot write to standard output"));
    assert!(wegeft(&["--help"]).status.success());
}
