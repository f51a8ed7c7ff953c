//! The record of a finished trial in the format of PEFT's method_comparison, so that it can be added to that table. Field names
//! and their order are that comparison's; fields without a counterpart here are null.

use chrono::Utc;
use datasets::language::metamath::Comparison;
use serde_json::{Value, json};
use wegeft::storage::{CONFIG_FILE, WEIGHTS_FILE};

use crate::language::corpus::Finished;
use crate::language::valid::Validated;
use crate::run::files::{read_json, read_lines, write_json};
use crate::run::outcome::{FORGETTING, Outcome};

fn bytes(mb: f64) -> u64 {
    (mb * 1e6) as u64
}

/// Writes `peft_result.json` into the folder of a trial that trained an adapter; `settings` are the run's.
///
/// # Errors
/// A file that cannot be read or written.
pub fn write(finished: &Finished, settings: &toml::Table, protocol: Comparison) -> Result<(), String> {
    let adapter = finished.folder.join("adapter");
    let config: Option<Value> = read_json(&adapter.join(CONFIG_FILE), "train again")?;
    let (Some(config), Some(outcome)) = (config, finished.outcomes.first()) else {
        return Ok(());
    };
    let (metrics, valid_seconds) = metrics(finished, settings, outcome)?;
    let train_seconds = outcome.training_seconds.unwrap_or_default();
    let test_seconds: f64 = finished.outcomes.iter().map(|outcome| outcome.seconds).sum();
    let weights = std::fs::metadata(adapter.join(WEIGHTS_FILE)).map_or(0, |data| data.len());
    let (mean, percentile) = finished.memory_mb.unzip();
    let number = |field: &str| settings.get(field).cloned();
    let unknown = json!({ "sha": null, "created_at": null });
    let result = json!({
        "run_info": {
            "created_at": Utc::now().format("%Y-%m-%dT%H:%M:%S+00:00").to_string(),
            "total_time": train_seconds + test_seconds,
            "experiment_name": format!("{}/{}", outcome.method, outcome.model.as_deref().unwrap_or("generated")),
            "peft_branch": null,
            "train_config": {
                "model_id": outcome.model,
                "dtype": dtype(settings.get("dtype").and_then(toml::Value::as_str).unwrap_or_default()),
                "max_seq_length": number("max_length"),
                "batch_size": batch_size(settings),
                "batch_size_eval": number("eval_batch_size"),
                "max_steps": metrics.last().map(|last| last["step"].clone()),
                "eval_steps": number("eval_steps"),
                "compile": false,
                "use_gc": number("gradient_checkpointing"),
                "query_template": protocol.prompt("{query}"),
                "seed": outcome.seed,
                "grad_norm_clip": number("max_grad_norm"),
                "optimizer_type": "AdamW",
                "optimizer_kwargs": { "lr": outcome.learning_rate, "weight_decay": outcome.weight_decay },
                "lr_scheduler": number("lr_scheduler"),
                "use_amp": false,
                "autocast_adapter_dtype": true,
                "generation_kwargs": { "max_new_tokens": number("max_new_tokens") },
                "attn_implementation": null,
                "init_kv_cache_prefix": null,
            },
            "peft_config": config,
            "error_msg": "",
        },
        "train_info": {
            "accelerator_memory_reserved_avg": mean.map(bytes),
            "accelerator_memory_max": outcome.peak_mb.map(bytes),
            "accelerator_memory_reserved_99th": percentile.map(bytes),
            "train_time": train_seconds - valid_seconds,
            "file_size": weights,
            "num_trainable_params": finished.trained_params,
            "num_total_params": finished.model_params + finished.trained_params,
            "status": "success",
            "metrics": metrics,
        },
        "meta_info": {
            "model_info": unknown,
            "dataset_info": { "metamath": unknown, "gsm8k": unknown },
            "package_info": {
                "transformers-version": null,
                "transformers-commit-hash": null,
                "peft-version": null,
                "peft-commit-hash": null,
                "datasets-version": null,
                "datasets-commit-hash": null,
                "bitsandbytes-version": null,
                "bitsandbytes-commit-hash": null,
                "torch-version": null,
                "torch-commit-hash": null,
                "wegeft-version": env!("CARGO_PKG_VERSION"),
            },
            "system_info": {
                "system": std::env::consts::OS,
                "release": null,
                "version": null,
                "machine": std::env::consts::ARCH,
                "processor": null,
                "accelerator": number("device"),
            },
            "pytorch_info": null,
        },
    });
    write_json(&finished.folder.join("peft_result.json"), &result)
}

fn batch_size(settings: &toml::Table) -> i64 {
    let field = |name: &str| settings.get(name).and_then(toml::Value::as_integer).unwrap_or(1);
    field("batch_size") * field("gradient_accumulation_steps")
}

/// PyTorch's name of a type.
fn dtype(name: &str) -> &str {
    match name {
        "bf16" => "bfloat16",
        "f16" => "float16",
        _ => "float32",
    }
}

/// A row for every evaluation, one of the test after them, and the seconds that the evaluations took.
fn metrics(finished: &Finished, settings: &toml::Table, outcome: &Outcome) -> Result<(Vec<Value>, f64), String> {
    let batch = batch_size(settings);
    let (mut rows, mut seconds) = (Vec::new(), 0.0);
    let lines = read_lines::<Value>(&finished.folder.join("metrics.jsonl"))?;
    for (_, line) in lines.iter().filter(|(_, line)| line["split"] == "train") {
        let step = line["step"].as_u64().unwrap_or_default();
        let mut row = json!({ "step": step, "train loss": line["loss"], "train samples": step as i64 * batch });
        if let Some(valid) = Validated::read(finished.folder, step as usize)? {
            seconds += valid.seconds;
            row["valid accuracy"] = json!(valid.accuracy);
            row["eval time"] = json!(valid.seconds);
            row["mem reserved avg"] = json!(valid.memory_mb.map(bytes));
        }
        rows.push(row);
    }
    let last = rows.last().cloned().unwrap_or_default();
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
    rows.push(test);
    Ok((rows, seconds))
}
