//! Every method of the table, swept, with three seeds, in two processes, interrupted and gone on with, in both wings.

#[cfg(unix)]
use std::path::{Path, PathBuf};

#[cfg(unix)]
use experiments::methods::{Wing, names};

#[cfg(unix)]
use crate::{fails, interrupt, json, make_task, start};
use crate::{succeeds, sums};

/// Ranks and sizes that fit the small models.
#[cfg(unix)]
const SMALL: [&str; 13] = [
    "--r=4",
    "--lora-r=4",
    "--set=vera.r=8",
    "--set=houlsby.r=8",
    "--set=pfeiffer.r=8",
    "--set=oft.block_size=8",
    "--set=boft.block_size=4",
    "--set=adalora.tinit=0",
    "--sweep",
    "--sweep-lr=1e-3",
    "--seed=1,2,3",
    "--jobs=2",
    "--epochs=1",
];

/// Folders of finished trials in a run folder.
#[cfg(unix)]
fn finished(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(finished(&path)),
            false if path.ends_with("outcome.json") => found.push(folder.to_path_buf()),
            false => {}
        }
    }
    found
}

#[cfg(unix)]
fn adapters(out: &Path, task: &str, methods: &[&str]) -> Vec<Vec<u8>> {
    let path = |method: &str, seed: usize| {
        let folder = out.join(task).join(method).join(format!("seed-{seed}"));
        folder.join("adapter/adapter_model.safetensors")
    };
    let seeds = [1, 2, 3];
    let of_method = |method: &&str| seeds.map(|seed| std::fs::read(path(method, seed)).unwrap());
    methods.iter().flat_map(of_method).collect()
}

/// Starts the run, interrupts it in its midst, goes on with it, and once more with some trials missing: the rest stays, what
/// is made again is the same.
#[cfg(unix)]
fn cut_and_resumed(args: &[&str], out: &Path, task: &str, methods: &[&str]) {
    let child = start(args);
    let begun = std::time::Instant::now();
    while finished(out).len() < methods.len() {
        assert!(begun.elapsed().as_secs() < 300, "the trials never came");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    interrupt(child, "-TERM");
    let before = finished(out);
    assert!(before.len() < 4 * methods.len(), "all was done before it was cut");
    let said = succeeds(args);
    assert!(said.contains(" ± "), "{said}");
    let summary = json(&out.join("summary.json"));
    assert_eq!(summary.as_array().unwrap().len(), 3 * methods.len());
    let first = adapters(out, task, methods);
    for folder in ["dora/seed-2", "adalora/seed-1"] {
        std::fs::remove_dir_all(out.join(task).join(folder)).unwrap();
    }
    succeeds(args);
    assert!(adapters(out, task, methods) == first, "resumed trials differ");
}

#[cfg(unix)]
#[test]
fn vtab_runs_every_method_swept_with_seeds_and_jobs() {
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path(), "halves", 4);
    let methods: Vec<&str> = names(Wing::Vision).collect();
    let all = methods.join(",");
    let out = dir.path().join("run");
    let (data, place) = (dir.path().to_str().unwrap(), out.to_str().unwrap());
    let args = [
        "vtab",
        "--task",
        "halves",
        "--batch-size",
        "4",
        "--sweep-weight-decay",
        "0",
    ];
    let args = [&args[..], &["--method", &all, "--data", data, "--out", place], &SMALL].concat();
    cut_and_resumed(&args, &out, "halves", &methods);
    let report = dir.path().join("report");
    let said = succeeds(&["report", place, "--out", report.to_str().unwrap()]);
    assert!(said.contains(" ± "), "{said}");
}

#[cfg(unix)]
#[test]
fn finetune_runs_every_method_swept_with_seeds_and_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("sums.jsonl");
    sums(&data, 8);
    // The small model that ships is a Llama and has no biases.
    let methods: Vec<&str> = names(Wing::Language).filter(|name| *name != "bitfit").collect();
    let all = methods.join(",").replace("lora_plus", "lora-plus");
    let out = dir.path().join("run");
    let (data, place) = (data.to_str().unwrap(), out.to_str().unwrap());
    let args = ["finetune", "--batch-size", "4", "--validation", "0.3", "--packing"];
    let args = [
        &args[..],
        &["--method", &all, "--train-file", data, "--out", place],
        &SMALL,
    ]
    .concat();
    cut_and_resumed(&args, &out, "", &methods);
    assert_eq!(
        json(&out.join("lora_plus/tuning.json"))["chosen"]["learning_rate"],
        1e-3
    );
    let args = ["finetune", "--train-file", data, "--method", "bitfit", "--epochs", "1"];
    let no = dir.path().join("no");
    fails(
        &[&args[..], &["--out", no.to_str().unwrap()]].concat(),
        &["method bitfit", "no"],
    );
}

/// An adapter trained with packed rows answers as one of plain rows does, and the KV cache changes nothing.
#[test]
fn edits_of_activations_train_on_packed_rows_and_generate() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("sums.jsonl");
    sums(&data, 24);
    let data = data.to_str().unwrap();
    let out = dir.path().join("run");
    let methods = "loreft,direft,houlsby,pfeiffer,layer_norm,prompt_tuning,prefix_tuning";
    let args = [
        "finetune",
        "--train-file",
        data,
        "--method",
        methods,
        "--packing",
        "--epochs",
        "2",
    ];
    let more = [
        "--batch-size",
        "2",
        "--lora-r",
        "4",
        "--learning-rate",
        "1e-2",
        "--out",
        out.to_str().unwrap(),
    ];
    succeeds(&[&args[..], &more].concat());
    let generate = |adapter: Option<&str>| {
        let folder = adapter.map(|method| out.join(method).join("adapter"));
        let mut args = vec![
            "generate",
            "--prompt",
            "Add 1 and 2.",
            "--template",
            "alpaca",
            "--max-new-tokens",
            "6",
        ];
        if let Some(folder) = &folder {
            args.extend(["--adapter", folder.to_str().unwrap()]);
        }
        succeeds(&args)
    };
    let frozen = generate(None);
    let answers: Vec<String> = methods.split(',').map(|method| generate(Some(method))).collect();
    assert!(answers.iter().any(|answer| *answer != frozen), "{answers:?}");
}
