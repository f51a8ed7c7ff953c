//! Running the programs.

use std::path::Path;
use std::process::{Command, Output};

/// Runs one of the programs.
pub fn run(program: &str, args: &[&str]) -> Output {
    run_in(Path::new("."), program, args)
}

/// Runs one of the programs in a folder.
pub fn run_in(folder: &Path, program: &str, args: &[&str]) -> Output {
    let path = match program {
        "generate" => env!("CARGO_BIN_EXE_generate"),
        "finetune" => env!("CARGO_BIN_EXE_finetune"),
        "commonsense" => env!("CARGO_BIN_EXE_commonsense"),
        "arithmetic" => env!("CARGO_BIN_EXE_arithmetic"),
        "metamath" => env!("CARGO_BIN_EXE_metamath"),
        "glue" => env!("CARGO_BIN_EXE_glue"),
        "classify" => env!("CARGO_BIN_EXE_classify"),
        "chat" => env!("CARGO_BIN_EXE_chat"),
        "code" => env!("CARGO_BIN_EXE_code"),
        "instruct" => env!("CARGO_BIN_EXE_instruct"),
        other => panic!("{other} is no program"),
    };
    Command::new(path).args(args).current_dir(folder).output().unwrap()
}

/// Output bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a program that must succeed; what it printed.
pub fn succeeds(program: &str, args: &[&str]) -> String {
    let output = run(program, args);
    assert!(output.status.success(), "{program} {args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs a program that must fail with one sentence that holds `parts`.
pub fn fails(program: &str, args: &[&str], parts: &[&str]) {
    let output = run(program, args);
    let message = text(&output.stderr);
    assert!(!output.status.success(), "{program} {args:?} succeeded");
    assert!(!message.contains("panicked"), "{message}");
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}
