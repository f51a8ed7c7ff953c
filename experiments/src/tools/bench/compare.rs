//! Runs the same workloads in PyTorch with Hugging Face PEFT, alternating with ours: the script in benches/peers, run
//! with the user's own Python.

use std::path::Path;
use std::process::{Command, Stdio};

use super::Args;
use super::choice::{Method, Work, name};
use crate::cli::program::prefix;
use crate::run::files::replace;

const SCRIPT: &str = include_str!("../../../../benches/peers/pytorch.py");

/// Times the workloads in `args` on both sides and prints a table.
///
/// # Errors
/// Workloads or methods that PyTorch has not, a Python that does not exist or lacks PyTorch, a measurement that fails.
pub fn compare(args: &Args, python: &Path) -> Result<(), String> {
    // `adapter` has no counterpart there.
    let works = args.workload.iter().filter(|work| **work != Work::Adapter);
    let works: Vec<String> = works.map(|work| work.name()).collect();
    if works.is_empty() || args.method.contains(&Method::BurnLora) {
        return Err("--compare: PyTorch has neither --workload adapter nor --method burn-lora; choose others".into());
    }
    let shown = python.display();
    let modules = "import torch, transformers, peft";
    let found = Command::new(python)
        .args(["-c", modules])
        .stderr(Stdio::piped())
        .output()
        .map_err(|e| format!("--compare {shown}: cannot start it: {e}; name a Python that has PyTorch"))?;
    if !found.status.success() {
        let said = String::from_utf8_lossy(&found.stderr);
        let last = said.lines().last().unwrap_or("it fails").to_string();
        return Err(format!(
            "--compare {shown}: '{modules}' fails ({last}); install them (benches/peers/requirements.txt) or name another \
             Python"
        ));
    }
    let folder = tempfile::tempdir().map_err(|e| format!("cannot make a temporary folder: {e}"))?;
    let script = folder.path().join("pytorch.py");
    replace(&script, SCRIPT.as_bytes())?;
    let program = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    let mut run = Command::new(python);
    run.arg(&script).arg("--bench").arg(program);
    for word in prefix() {
        run.args(["--bench", word]);
    }
    let methods: Vec<String> = args.method.iter().map(|method| method.name()).collect();
    run.args([
        format!("--workload={}", works.join(",")),
        format!("--method={}", methods.join(",")),
        format!("--tokens={}", args.tokens()),
        format!("--dtype={}", name(args.dtype())),
        format!("--r={}", args.r()),
        format!("--seconds={}", args.seconds),
        format!("--warm-up={}", args.warm_up),
        format!("--rounds={}", args.rounds),
        format!("--device={}", args.device),
    ]);
    run.args(args.batch.map(|batch| format!("--batch={batch}")));
    run.args(args.model.as_ref().map(|model| format!("--model={model}")));
    run.args(args.threads.map(|threads| format!("--threads={threads}")));
    let status = run.status().map_err(|e| format!("--compare {shown}: {e}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("--compare {shown}: a measurement failed")),
    }
}
