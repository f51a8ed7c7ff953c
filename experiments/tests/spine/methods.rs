//! Every method of the table, swept, with three seeds, two processes and a resumption, in both wings.

use std::path::Path;

use crate::{json, make_task, succeeds, sums};

/// The methods that have a place in a language model that is a Llama: no biases, no places for edits of activations.
const LANGUAGE: &str = "full,wegeft,wegeft_unshared,lora,rslora,lora-plus,lora_fa,dora,pissa,olora,vera,ia3";

fn adapters(out: &Path, task: &str, methods: &[&str]) -> Vec<Vec<u8>> {
    let path = |method: &str, seed: usize| {
        let folder = out.join(task).join(method).join(format!("seed-{seed}"));
        folder.join("adapter/adapter_model.safetensors")
    };
    let seeds = [1, 2, 3];
    let of_method = |method: &&str| seeds.map(|seed| std::fs::read(path(method, seed)).unwrap());
    methods.iter().flat_map(of_method).collect()
}

#[test]
fn vtab_runs_every_method_swept_with_seeds_and_jobs() {
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path(), "halves", 4);
    let methods: Vec<&str> = experiments::methods::names().collect();
    let names = methods.join(",");
    let out = dir.path().join("run");
    let args = "vtab --task halves --epochs 1 --batch-size 4 --sweep --sweep-lr 1e-3 --sweep-weight-decay 0 --seed 1,2,3 \
                --jobs 2 --r 4 --lora-r 4 --set vera.r=8 --set houlsby.r=8 --set pfeiffer.r=8 --method";
    let files = [
        &names,
        "--data",
        dir.path().to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ];
    let args: Vec<&str> = args.split_whitespace().chain(files).collect();
    let said = succeeds(&args);
    assert!(said.contains(" ± "), "{said}");
    let summary = json(&out.join("summary.json"));
    assert_eq!(summary.as_array().unwrap().len(), 3 * methods.len());
    let first = adapters(&out, "halves", &methods);
    // Some trials are missing: the rest stays as it is.
    for folder in ["halves/dora/seed-2", "halves/linear/seed-1"] {
        std::fs::remove_dir_all(out.join(folder)).unwrap();
    }
    succeeds(&args);
    assert!(adapters(&out, "halves", &methods) == first, "resumed trials differ");
    let report = dir.path().join("report");
    let said = succeeds(&["report", out.to_str().unwrap(), "--out", report.to_str().unwrap()]);
    assert!(said.contains(" ± "), "{said}");
}

#[test]
fn finetune_runs_every_method_swept_with_seeds_and_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("sums.jsonl");
    sums(&data, 8);
    let out = dir.path().join("run");
    let args = "finetune --epochs 1 --batch-size 4 --validation 0.3 --sweep --sweep-lr 1e-3 --seed 1,2,3 --jobs 2 --r 4 \
                --lora-r 4 --set vera.r=8 --method";
    let files = [
        LANGUAGE,
        "--train-file",
        data.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ];
    let args: Vec<&str> = args.split_whitespace().chain(files).collect();
    let said = succeeds(&args);
    assert!(said.contains(" ± "), "{said}");
    let methods: Vec<String> = LANGUAGE.split(',').map(|name| name.replace('-', "_")).collect();
    let methods: Vec<&str> = methods.iter().map(String::as_str).collect();
    assert_eq!(
        json(&out.join("summary.json")).as_array().unwrap().len(),
        3 * methods.len()
    );
    assert_eq!(json(&out.join("lora_plus/tuning.json"))["chosen"]["lr"], 1e-3);
    let first = adapters(&out, "", &methods);
    for folder in ["dora/seed-2", "full/seed-1"] {
        std::fs::remove_dir_all(out.join(folder)).unwrap();
    }
    succeeds(&args);
    assert!(adapters(&out, "", &methods) == first, "resumed trials differ");
}
