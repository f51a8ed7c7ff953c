//! Long runs: memory stays flat, and processes side by side give the numbers of one.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::needs::two_colours;
use super::work::{folder, stderr, wegeft};

/// Where, and for how many steps: the CPU backends, and a GPU in a build that has it.
#[cfg(target_os = "linux")]
const DEVICES: &[(&str, usize)] = &[
    ("flex", 2_000),
    ("ndarray", 2_000),
    #[cfg(feature = "vulkan")]
    ("vulkan", 500),
    #[cfg(feature = "wgpu")]
    ("wgpu", 500),
];

/// Resident memory of a process, kB.
fn resident(child: &Child) -> Option<usize> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Runs `command`, which writes a line for each step to `metrics`; (step, kB) now and then.
fn watched(command: &mut Command, metrics: &Path) -> Vec<(usize, usize)> {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    let mut seen = Vec::new();
    while child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(1800), "it does not end");
        std::thread::sleep(Duration::from_millis(200));
        let lines = std::fs::read_to_string(metrics).unwrap_or_default();
        let steps = lines.lines().filter(|line| line.contains("\"split\":\"step\"")).count();
        if let Some(kb) = resident(&child) {
            seen.push((steps, kb));
        }
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    seen
}

/// The medians of the second and the last quarter of the steps are within 2 %.
fn is_flat(name: &str, steps: usize, seen: &[(usize, usize)]) {
    let median = |from: usize, to: usize| {
        let part = steps * from / 8..steps * to / 8;
        let mut kb: Vec<usize> = seen
            .iter()
            .filter(|(step, _)| part.contains(step))
            .map(|(_, kb)| *kb)
            .collect();
        kb.sort_unstable();
        assert!(kb.len() > 2, "{name}: too quick to be watched: {seen:?}");
        kb[kb.len() / 2] as f64
    };
    let (early, late) = (median(2, 4), median(6, 8));
    println!("{name}: {early:.0} kB after a quarter of {steps} steps, {late:.0} kB at the end");
    assert!(late <= 1.02 * early, "{name}: {early:.0} kB, then {late:.0} kB");
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "long: 2,000 steps, 500 on a GPU"]
fn faults_soak_of_vision() {
    let dir = folder();
    let data = dir.path().join("data");
    two_colours(&data);
    for &(device, steps) in DEVICES {
        let out = dir.path().join(device);
        let mut command = wegeft();
        command.args(["vtab", "--task", "colours", "--method", "wegeft", "--batch-size", "6"]);
        // Two steps per epoch.
        command
            .args(["--epochs", &(steps / 2).to_string()])
            .args(["--log-steps", "1", "--device", device, "--data"])
            .arg(&data)
            .arg("--out")
            .arg(&out);
        let metrics = out.join("colours/wegeft/metrics.jsonl");
        is_flat(&format!("vtab on {device}"), steps, &watched(&mut command, &metrics));
    }
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "long: 2,000 steps, 500 on a GPU"]
fn faults_soak_of_language() {
    let dir = folder();
    let data = dir.path().join("sums.jsonl");
    let line = |i: usize| format!("{{\"prompt\": \"Add {i} and 1.\", \"completion\": \"{}\"}}\n", i + 1);
    std::fs::write(&data, (0..40).map(line).collect::<String>()).unwrap();
    for &(device, steps) in DEVICES {
        let out = dir.path().join(device);
        let mut command = wegeft();
        command.args(["finetune", "--method", "wegeft", "--r", "2", "--batch-size", "2"]);
        // Twenty steps per epoch.
        command
            .args(["--epochs", &(steps / 20).to_string()])
            .args(["--log-steps", "1", "--device", device, "--train-file"])
            .arg(&data)
            .arg("--out")
            .arg(&out);
        is_flat(
            &format!("finetune on {device}"),
            steps,
            &watched(&mut command, &out.join("wegeft/metrics.jsonl")),
        );
    }
}

#[test]
fn two_processes_give_the_numbers_of_one_bit_for_bit() {
    let dir = folder();
    let data = dir.path().join("data");
    two_colours(&data);
    for device in ["flex", "ndarray"] {
        let adapters = ["1", "2"].map(|jobs| {
            let out = dir.path().join(format!("{device}-{jobs}"));
            let mut command = wegeft();
            command.args([
                "vtab",
                "--task",
                "colours",
                "--method",
                "wegeft,lora",
                "--batch-size",
                "6",
                "--epochs",
                "3",
            ]);
            command.args([
                "--drop-path",
                "0.2",
                "--seed",
                "1,2",
                "--jobs",
                jobs,
                "--device",
                device,
            ]);
            command
                .args(["--model", &super::work::fixture("vit"), "--data"])
                .arg(&data)
                .arg("--out")
                .arg(&out);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}", stderr(&output));
            let mut files = super::table::VISION.results(&out);
            // It says how many processes there were.
            files.remove(Path::new("config.toml"));
            files
        });
        assert_eq!(adapters[0].len(), adapters[1].len());
        assert!(adapters[0] == adapters[1], "{device}: two processes differ from one");
    }
}
