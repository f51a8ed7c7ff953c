//! Flags that were given although nothing in the run reads them: each is one line on standard error.

use crate::cli::output::no_effect;
use crate::methods::{self, NONE};

/// Flags of a training.
const TRAINING: &[&str] = &[
    "epochs",
    "learning_rate",
    "weight_decay",
    "lr_scheduler",
    "warmup_ratio",
    "gradient_accumulation_steps",
    "max_grad_norm",
    "gradient_checkpointing",
    "keep",
    "eval_steps",
    "early_stopping_patience",
    "validation",
    "train_limit",
    "packing",
    "sweep",
    "sweep_lr",
    "sweep_weight_decay",
    "tune_epochs",
];

/// Flags that are read while a model answers, beside those of a training.
const ANSWERING: &[&str] = &[
    "method",
    "model",
    "dtype",
    "adapter",
    "train_file",
    "max_length",
    "batch_size",
    "form",
    "eval_batch_size",
    "max_new_tokens",
    "num_beams",
    "samples",
    "temperature",
    "top_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "likelihood",
];

/// Flags about a judge behind an address.
const JUDGE: &[&str] = &[
    "judge_model",
    "judge_prompts",
    "judge_retries",
    "judge_wait",
    "judge_timeout",
    "judge_parallel",
    "judge_price",
];

/// A line for each such flag. `settings`: those of the run; `given` tells whether the command line has a field; `set`: the
/// tables of `--set`; `tests`: the program tests an adapter that --adapter names, and does not train it.
pub fn lines(settings: &toml::Table, given: &dyn Fn(&str) -> bool, set: &[toml::Table], tests: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let methods: Vec<&str> = settings
        .get("method")
        .and_then(toml::Value::as_array)
        .map(|names| names.iter().filter_map(toml::Value::as_str).collect())
        .unwrap_or_default();
    let has = |field: &str| settings.contains_key(field);
    if has("score") {
        let all = TRAINING.iter().chain(methods::FLAGS).chain(ANSWERING);
        for flag in all.filter(|flag| given(flag)) {
            lines.push(unread(flag, "--score loads no model"));
        }
        if !set.is_empty() {
            lines.push("--set has no effect: --score loads no model".into());
        }
        return lines;
    }
    if has("adapter") {
        for flag in methods::FLAGS.iter().chain(&["method"]).filter(|flag| given(flag)) {
            lines.push(unread(flag, "the adapter has its own settings"));
        }
        for flag in TRAINING.iter().filter(|flag| tests && given(flag)) {
            lines.push(unread(flag, "an existing adapter is tested, not trained"));
        }
        if !set.is_empty() {
            lines.push("--set has no effect: the adapter has its own settings".into());
        }
    } else {
        for flag in methods::FLAGS.iter().filter(|flag| given(flag)) {
            if !methods.iter().any(|method| methods::reads_flag(method, flag)) {
                lines.push(unread(
                    flag,
                    &format!("no method of this run reads it ({})", methods.join(", ")),
                ));
            }
        }
        let named = set
            .iter()
            .filter_map(|table| table.get("methods")?.as_table())
            .flat_map(|methods| methods.keys());
        for name in named.map(|name| name.replace('-', "_")) {
            if !methods.contains(&name.as_str()) {
                lines.push(format!("--set {name}.… has no effect: --method does not name {name}"));
            }
        }
        // What is held out may be evaluated on, whether or not something is trained.
        let of_trainings = TRAINING
            .iter()
            .filter(|flag| !["validation", "train_limit"].contains(flag));
        for flag in of_trainings.filter(|flag| methods == [NONE] && given(flag)) {
            lines.push(unread(flag, "--method none trains nothing"));
        }
    }
    let is_on = |field: &str| match settings.get(field) {
        Some(toml::Value::Boolean(on)) => *on,
        Some(toml::Value::Integer(count)) => *count > 0,
        _ => false,
    };
    for (flag, switch) in [
        ("sweep_lr", "sweep"),
        ("sweep_weight_decay", "sweep"),
        ("tune_epochs", "sweep"),
        ("randaugment_magnitude", "randaugment"),
    ] {
        if given(flag) && has(switch) && !is_on(switch) && methods != [NONE] {
            lines.push(unread(flag, &format!("it needs --{switch}")));
        }
    }
    if given("fewer_tokens") && !has("data") && !has("train_file") {
        lines.push(unread("fewer_tokens", "the generated questions are not filtered"));
    }
    if given("ignore_incomplete") {
        lines.push(unread("ignore_incomplete", "it needs --score"));
    }
    for flag in JUDGE.iter().filter(|flag| given(flag) && !has("judge_url")) {
        lines.push(unread(flag, "it needs --judge-url"));
    }
    if given("gamed_baselines") && !has("judge_url") && !has("judge_file") {
        lines.push(unread("gamed_baselines", "it needs --judge-url or --judge-file"));
    }
    for flag in ["program_timeout", "program_memory"] {
        if given(flag) && !given("allow_code_execution") {
            lines.push(unread(flag, "no program is run without --allow-code-execution"));
        }
    }
    let is_greedy = settings.get("temperature").and_then(toml::Value::as_float) == Some(0.0);
    if given("top_p") && is_greedy {
        lines.push(unread("top_p", "at temperature 0 the likeliest token is taken"));
    }
    if given("max_image_pixels") && !has("data") {
        lines.push(unread("max_image_pixels", "the sample's images are small"));
    }
    if given("gradient_checkpointing") && !methods.is_empty() && methods.iter().all(|method| *method == "linear") {
        lines.push(unread(
            "gradient_checkpointing",
            "linear probing trains no layer below the head",
        ));
    }
    if given("warmup_ratio") && settings.get("lr_scheduler").and_then(toml::Value::as_str) == Some("paper") {
        lines.push(unread("warmup_ratio", "the schedule 'paper' has its own warm-up"));
    }
    lines
}

/// The line about one field.
pub fn unread(field: &str, why: &str) -> String {
    no_effect(&format!("--{}", field.replace('_', "-")), why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_that_nothing_reads_is_named() {
        let found = |settings: &str, given: &[&str], set: &str| {
            let set: toml::Table = toml::from_str(set).unwrap();
            lines(
                &toml::from_str(settings).unwrap(),
                &|field| given.contains(&field),
                &[set].into_iter().filter(|set| !set.is_empty()).collect::<Vec<_>>(),
                true,
            )
        };
        let settings = "method = ['lora']\nsweep = false\nlr_scheduler = 'paper'\nrandaugment = 0";
        let all = [
            "r",
            "lora_r",
            "lora_dropout",
            "weight_dropout",
            "sweep_lr",
            "warmup_ratio",
            "randaugment_magnitude",
            "max_image_pixels",
        ];
        let said = found(settings, &all, "[methods.dora]\nr = 4");
        let named = [
            "--r ",
            "--weight-dropout",
            "--set dora",
            "--sweep-lr",
            "--max-image-pixels",
            "--randaugment-m",
            "--warmup-ratio",
        ];
        assert_eq!(said.len(), named.len(), "{said:?}");
        for name in named {
            assert!(said.iter().any(|line| line.starts_with(name)), "{name}: {said:?}");
        }
        let evaluation = found("temperature = 0.0", &["fewer_tokens", "ignore_incomplete", "top_p"], "");
        assert_eq!(evaluation.len(), 3, "{evaluation:?}");
        let scored = "data = 'd'\nscore = 's'\ntemperature = 0.0";
        let said = found(scored, &["ignore_incomplete", "k", "top_p", "epochs"], "");
        assert_eq!(
            said,
            [
                "--epochs has no effect: --score loads no model",
                "--top-p has no effect: --score loads no model"
            ]
        );
        let read = "data = 'd'\ntemperature = 0.7";
        assert!(found(read, &["fewer_tokens", "top_p"], "").is_empty());
        let judge = ["judge_model", "judge_price", "gamed_baselines"];
        assert_eq!(found("", &judge, "").len(), 3);
        assert_eq!(found("judge_file = 'f'", &judge, "").len(), 2);
        assert!(found("judge_url = 'u'", &judge, "").is_empty());
        assert_eq!(found("", &["program_timeout"], "").len(), 1);
        assert!(found("", &["program_timeout", "allow_code_execution"], "").is_empty());
        assert_eq!(found("method = ['none']", &["epochs", "validation"], "").len(), 1);
        assert!(found("method = ['none', 'linear']", &["epochs"], "").is_empty());
        let read = "data = 'd'\nmethod = ['lora', 'wegeft']\nsweep = true\nlr_scheduler = 'linear'\nrandaugment = 2";
        assert!(found(read, &all, "[methods.lora]\nr = 4").is_empty());
        assert_eq!(found("method = ['linear']", &["target_modules"], "").len(), 1);
        let existing = "method = ['linear']\nadapter = 'a'\nsweep = true";
        let said = found(
            existing,
            &["r", "method", "epochs", "batch_size"],
            "[methods.lora]\nr = 4",
        );
        for name in ["--r ", "--method", "--epochs", "--set"] {
            assert!(said.iter().any(|line| line.starts_with(name)), "{name}: {said:?}");
        }
        assert_eq!(said.len(), 4, "{said:?}");
    }
}
