//! Run folders: settings, metrics, answers, results, checkpoints.

use std::path::Path;

use burn::lr_scheduler::LrSchedulerRecord;
use burn::module::Module;
use burn::nn::LinearConfig;
use burn::optim::OptimizerRecord;
use burn::tensor::Device;
use burn::train::Interrupter;
use burn::train::checkpoint::Checkpointer;
use experiments::cli::settings::Layer;
use experiments::language::evaluation::Answer;
use experiments::report::rows;
use experiments::run::clock::Clock;
use experiments::run::files::{keep_lines, read_json};
use experiments::run::grid::Best;
use experiments::run::outcome::Outcome;
use experiments::run::sealed_lines;
use experiments::train::checkpoints::{RECORDS, RecordFiles, last_whole};
use experiments::train::metrics_file::{Log, MetricsFile};
use experiments::train::watch::SharedWatch;
use serde_json::json;

use crate::harness::Reader;
use crate::written;

pub const READERS: &[Reader] = &[
    Reader {
        name: "run-settings",
        seeds: || {
            let text = "seed = [42]\nmethod = [\"lora\", \"wegeft\"]\nlearning_rate = 5e-3\nr = 16\ndata = \"x\"\n\
                        [methods.lora]\nr = 8\ntarget_modules = [\"attn.proj\"]\n";
            vec![text.as_bytes().to_vec()]
        },
        repair: None,
        read: |folder, bytes| Layer::read(&written(folder, "config.toml", bytes))?.table().map(drop),
    },
    Reader {
        name: "metrics",
        seeds: || {
            let lines = "{\"epoch\":1,\"split\":\"train\",\"step\":2,\"loss\":0.5,\"accuracy\":50.0}\n\
                         {\"epoch\":1,\"split\":\"valid\",\"step\":2,\"loss\":0.5,\"accuracy\":50.0}\n";
            vec![lines.as_bytes().to_vec()]
        },
        repair: None,
        read: |folder, bytes| {
            let path = written(folder, "metrics.jsonl", bytes);
            let watch = SharedWatch::new(Best::Lowest, Some(1));
            let log = Log {
                path: &path,
                rounds_done: 1,
                judged_by: "loss",
                every: 1,
                steps: 4,
                quiet: true,
                round: "epoch",
            };
            MetricsFile::open(&log, Interrupter::new(), watch.clone(), Clock::open(folder, true))?;
            let _ = (watch.best(), watch.is_over());
            Ok(())
        },
    },
    Reader {
        name: "seconds",
        seeds: || vec![b"12.5".to_vec()],
        repair: None,
        read: |folder, bytes| {
            written(folder, "seconds.json", bytes);
            Clock::open(folder, true).total();
            Ok(())
        },
    },
    Reader {
        name: "answers",
        seeds: || {
            let line = json!({
                "index": 0, "prompt": "1 + 1?", "output": "2", "gold": "2", "extracted": "2", "correct": true,
                "choice": { "chosen": "a", "correct": true, "log_likelihoods": [-1.5, -2.0] }, "score": 0.5, "others": ["3"],
            });
            let plain = json!({
                "index": 1, "prompt": "1 + 2?", "output": "3", "gold": "3", "extracted": null, "correct": false, "choice": null,
            });
            vec![
                format!("{line}\n{plain}\n").into_bytes(),
                format!("{plain}\n").into_bytes(),
            ]
        },
        repair: None,
        read: |folder, bytes| {
            let path = written(folder, "set.jsonl", bytes);
            let lines = sealed_lines::read::<Answer>(&path)?;
            keep_lines(&path, &lines)
        },
    },
    Reader {
        name: "summary",
        seeds: || {
            let row = json!([{
                "experiment": "vtab", "task": "digits", "group": "natural", "method": "lora", "trainable_params": 10,
                "percent_trainable": 0.5, "metric": "top1", "value": 50.5, "seconds": 1.5, "peak_mb": 33.0, "lr": 0.001,
                "weight_decay": 0.0, "seed": 42,
            }]);
            vec![serde_json::to_vec_pretty(&row).unwrap()]
        },
        repair: None,
        read: |folder, bytes| {
            let path = written(folder, "summary.json", bytes);
            let _ = read_json::<Vec<Outcome>>(&path, "remove it");
            rows::read(&[path]).map(drop)
        },
    },
    checkpoint::<0>("checkpoint-model"),
    checkpoint::<1>("checkpoint-optim"),
    checkpoint::<2>("checkpoint-scheduler"),
];

const fn checkpoint<const R: usize>(name: &'static str) -> Reader {
    Reader {
        name,
        seeds: || {
            let folder = tempfile::tempdir().unwrap();
            vec![records(folder.path())[R].clone()]
        },
        repair: Some(checksum),
        read: |folder, bytes| {
            if !folder.join("model-1.bpk").exists() {
                records(folder);
            }
            written(folder, &format!("{}-1.bpk", RECORDS[R]), bytes);
            last_whole(folder).and_then(|found| found.map(drop).ok_or_else(|| "there is none".into()))
        },
    }
}

/// The checksum at a checkpoint's end.
fn checksum(bytes: &mut [u8]) {
    if let Some((rest, end)) = bytes.split_last_chunk_mut::<12>() {
        end[..4].copy_from_slice(&crc32c::crc32c(rest).to_le_bytes());
        end[4..].copy_from_slice(b"checksum");
    }
}

/// Writes a checkpoint into `folder`; its three files.
fn records(folder: &Path) -> [Vec<u8>; 3] {
    let save = |record: &'static str| RecordFiles::new(folder, record);
    let model = LinearConfig::new(4, 3).init(&Device::flex());
    save("model").save(1, model.into_record()).unwrap();
    save("optim").save(1, OptimizerRecord::default()).unwrap();
    save("scheduler").save(1, LrSchedulerRecord::new()).unwrap();
    RECORDS.map(|record| std::fs::read(save(record).path(1)).unwrap())
}
