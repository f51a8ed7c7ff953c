//! The record of a finished trial in the format of PEFT's method_comparison, so that it can be added to that table.

use chrono::Utc;
use serde_json::{Value, json};
use wegeft::storage::{CONFIG_FILE, WEIGHTS_FILE};

use crate::language::corpus::Finished;
use crate::run::files::{read_json, read_lines, write_json};
use crate::run::outcome::FORGETTING;

/// Writes `peft_result.json` into the folder of a trial that trained an adapter; `settings` are the run's.
///
/// # Errors
/// A file that cannot be read or written.
pub fn write(finished: &Finished, settings: &toml::Table) -> Result<(), String> {
    let adapter = finished.folder.join("adapter");
    let config: Option<Value> = read_json(&adapter.join(CONFIG_FILE), "train again")?;
    let (Some(config), Some(outcome)) = (config, finished.outcomes.first()) else {
        return Ok(());
    };
    let train_seconds = outcome.training_seconds.unwrap_or_default();
    let test_seconds: f64 = finished.outcomes.iter().map(|outcome| outcome.seconds).sum();
    let weights = std::fs::metadata(adapter.join(WEIGHTS_FILE)).map_or(0, |data| data.len());
    let bytes = |mb: f64| (mb * 1e6) as u64;
    let (mean, percentile) = finished.memory_mb.unzip();
    let lines = read_lines::<Value>(&finished.folder.join("metrics.jsonl"))?;
    let batch = settings
        .get("batch_size")
        .and_then(toml::Value::as_integer)
        .unwrap_or(1);
    let rounds = lines.iter().filter(|(_, line)| line["split"] == "train");
    let mut metrics: Vec<Value> = rounds
        .map(|(_, line)| {
            let step = line["step"].as_i64().unwrap_or_default();
            json!({ "step": step, "train loss": line["loss"], "train samples": step * batch })
        })
        .collect();
    let last = metrics.last().cloned().unwrap_or_default();
    let mut test = json!({
        "step": last["step"],
        "test accuracy": outcome.value.map(|percent| percent / 100.0),
        "train loss": last["train loss"],
        "train samples": last["train samples"],
        "train total tokens": finished.tokens,
    });
    if let Some(forgetting) = outcome.scores.get(FORGETTING) {
        test["forgetting"] = json!(forgetting);
    }
    metrics.push(test);
    let number = |field: &str| settings.get(field).cloned();
    let result = json!({
        "run_info": {
            "created_at": Utc::now().format("%Y-%m-%dT%H:%M:%S+00:00").to_string(),
            "total_time": train_seconds + test_seconds,
            "experiment_name": format!("{}/{}", outcome.method, outcome.model.as_deref().unwrap_or("generated")),
            "peft_branch": Value::Null,
            "train_config": {
                "model_id": outcome.model,
                "dtype": number("dtype"),
                "max_seq_length": number("max_length"),
                "batch_size": batch,
                "batch_size_eval": number("eval_batch_size"),
                "max_steps": last["step"],
                "eval_steps": number("eval_steps"),
                "seed": outcome.seed,
                "grad_norm_clip": number("max_grad_norm"),
                "optimizer_type": "AdamW",
                "optimizer_kwargs": { "lr": outcome.learning_rate, "weight_decay": outcome.weight_decay },
                "lr_scheduler": number("lr_scheduler"),
                "generation_kwargs": { "max_new_tokens": number("max_new_tokens") },
            },
            "peft_config": config,
            "error_msg": "",
        },
        "train_info": {
            "accelerator_memory_reserved_avg": mean.map(bytes),
            "accelerator_memory_max": outcome.peak_mb.map(bytes),
            "accelerator_memory_reserved_99th": percentile.map(bytes),
            "train_time": train_seconds,
            "file_size": weights,
            "num_trainable_params": finished.trained_params,
            "num_total_params": finished.model_params + finished.trained_params,
            "status": "success",
            "metrics": metrics,
        },
        "meta_info": {
            "model_info": { "sha": Value::Null, "created_at": Value::Null },
            "dataset_info": {
                "metamath": { "sha": Value::Null, "created_at": Value::Null },
                "gsm8k": { "sha": Value::Null, "created_at": Value::Null },
            },
            // PEFT's reader needs these names; packages that are not used here are null.
            "package_info": {
                "transformers-version": Value::Null,
                "peft-version": Value::Null,
                "datasets-version": Value::Null,
                "bitsandbytes-version": Value::Null,
                "torch-version": Value::Null,
                "wegeft-version": env!("CARGO_PKG_VERSION"),
            },
            "system_info": {
                "system": std::env::consts::OS,
                "machine": std::env::consts::ARCH,
                "accelerator": number("device"),
            },
            "pytorch_info": Value::Null,
        },
    });
    write_json(&finished.folder.join("peft_result.json"), &result)
}
