//! The bench program.

use std::process::Command;

use experiments::tools::bench::Line;

fn bench(args: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_bench")).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_line_for_each_workload_method_and_round() {
    let (ok, out, err) = bench(&[
        "--workload=vit-tiny-step,adapter",
        "--method=wegeft,lora",
        "--batch=1",
        "--r=4",
        "--seconds=0.01",
        "--rounds=2",
        "--threads=2",
    ]);
    assert!(ok, "{err}");
    let lines: Vec<Line> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named: Vec<_> = lines
        .iter()
        .map(|line| (line.workload.as_str(), line.method.as_str()))
        .collect();
    let round = [
        ("vit-tiny-step", "wegeft"),
        ("vit-tiny-step", "lora"),
        ("adapter", "wegeft"),
        ("adapter", "lora"),
    ];
    assert_eq!(named, round.repeat(2));
    for line in lines {
        assert!(0.0 < line.min_seconds && line.min_seconds <= line.median_seconds);
        assert!(line.first_seconds.is_some_and(|first| first > 0.0));
        assert!(line.gemm_seconds > 0.0 && line.passes >= 3 && line.threads == 2 && line.tokens == 197);
    }
}

#[test]
fn burn_s_own_lora_and_full_fine_tuning_run_too() {
    let (ok, out, err) = bench(&[
        "--workload=vit-tiny-step,vit-tiny-forward",
        "--method=burn-lora,full",
        "--checkpointing=balanced",
        "--batch=1",
        "--seconds=0.01",
    ]);
    assert!(ok, "{err}");
    assert_eq!(out.lines().count(), 4);
}

#[test]
fn what_more_of_everything_costs_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scaling.svg");
    let (ok, out, err) = bench(&[
        &format!("--scaling={}", file.display()),
        "--batch=1",
        "--r=2",
        "--seconds=0.01",
        "--threads=2",
    ]);
    assert!(ok, "{err}");
    let sweeps: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named: Vec<_> = sweeps.iter().map(|sweep| sweep["of"].as_str().unwrap()).collect();
    assert_eq!(named, ["adapted sites", "rank", "generators"]);
    for sweep in sweeps {
        assert_eq!(sweep["points"].as_array().unwrap().len(), 7);
    }
    assert_eq!(std::fs::read_to_string(file).unwrap().matches("<circle").count(), 21);
}

#[test]
fn what_is_unknown_is_named() {
    for (args, name) in [
        (["--workload=vit-xxl-step", "--method=lora"], "vit-xxl-step"),
        (["--workload=llama", "--method=lora"], "llama"),
        (["--workload=adapter", "--method=dora"], "dora"),
    ] {
        let (ok, _, err) = bench(&args);
        assert!(!ok && err.contains(name), "{err}");
    }
}

#[test]
fn only_a_backend_that_launches_kernels_is_counted() {
    let (ok, out, err) = bench(&["--count", "--device=flex"]);
    assert!(
        !ok && out.is_empty() && err.contains("flex launches no kernels"),
        "{err}"
    );
    let (ok, _, err) = bench(&["--count", "--seconds=1"]);
    assert!(!ok && err.contains("--seconds"), "{err}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_as_such() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(["--workload=adapter", "--method=lora", "--batch=1", "--seconds=0"]);
    let output = command.stdout(full).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && err.contains("cannot write to standard output") && !err.contains("no result"),
        "{err}"
    );
}
