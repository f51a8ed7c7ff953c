//! Flags that were given although nothing in the run reads them: each is one line on standard error.

use crate::cli::output::no_effect;
use crate::methods;

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

/// A line for each such flag. `settings`: those of the run; `given` tells whether the command line has a field; `set`: the
/// tables of `--set`; `tests`: the program tests an adapter that --adapter names, and does not train it.
pub fn lines(settings: &toml::Table, given: &dyn Fn(&str) -> bool, set: &[toml::Table], tests: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let methods: Vec<&str> = settings
        .get("method")
        .and_then(toml::Value::as_array)
        .map(|names| names.iter().filter_map(toml::Value::as_str).collect())
        .unwrap_or_default();
    if settings.contains_key("adapter") {
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
        if given(flag) && settings.contains_key(switch) && !is_on(switch) {
            lines.push(unread(flag, &format!("it needs --{switch}")));
        }
    }
    if given("fewer_tokens") && !settings.contains_key("data") && !settings.contains_key("train_file") {
        lines.push(unread("fewer_tokens", "the generated questions are not filtered"));
    }
    if given("ignore_incomplete") && !settings.contains_key("score") {
        lines.push(unread("ignore_incomplete", "it needs --score"));
    }
    let is_greedy = settings.get("temperature").and_then(toml::Value::as_float) == Some(0.0);
    if given("top_p") && is_greedy {
        lines.push(unread("top_p", "at temperature 0 the likeliest token is taken"));
    }
    if given("max_image_pixels") && !settings.contains_key("data") {
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

fn unread(field: &str, why: &str) -> String {
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
        let read = "data = 'd'\nscore = 's'\ntemperature = 0.7";
        assert!(found(read, &["fewer_tokens", "ignore_incomplete", "top_p"], "").is_empty());
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
