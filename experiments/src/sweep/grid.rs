//! The grid of a sweep, learning rates times weight decays of a method, and the choice. The grids are those of WeGeFT's
//! released code, which writes down no rule of choice: best validation top-1.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::settings::Settings;

/// Learning rates of WeGeFT and its kin.
const WEGEFT_LR: [f64; 6] = [1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3];
/// Learning rates of all other methods.
const OTHER_LR: [f64; 6] = [5e-4, 1e-3, 1.5e-3, 2.5e-3, 5e-3, 1e-2];
/// Weight decays; VPT and BitFit are tuned without any.
const WEIGHT_DECAY: [f64; 4] = [0.01, 1e-3, 1e-4, 0.0];

/// The result of one tuning run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    /// Peak learning rate.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Best validation top-1 over the epochs, percent; 0 if the training diverged.
    pub validation: f64,
    /// The epoch of it, from 1; 0 if the training diverged.
    pub epoch: usize,
    /// Wall time.
    pub seconds: f64,
}

/// The points (learning rate, weight decay) of `method`: the settings' own, otherwise the released code's.
pub fn points(settings: &Settings, method: &str) -> Vec<(f64, f64)> {
    let own = settings.of_method(method);
    let given = |own: Option<Vec<f64>>, all: &[f64], default: &[f64]| match own {
        Some(values) => values,
        None if !all.is_empty() => all.to_vec(),
        None => default.to_vec(),
    };
    let rates: &[f64] = if method.starts_with("wegeft") {
        &WEGEFT_LR
    } else {
        &OTHER_LR
    };
    let decays: &[f64] = if matches!(method, "vpt" | "vpt_shallow" | "bitfit") {
        &[0.0]
    } else {
        &WEIGHT_DECAY
    };
    let rates = given(own.sweep_lr, &settings.sweep_lr, rates);
    let decays = given(own.sweep_weight_decay, &settings.sweep_weight_decay, decays);
    rates
        .iter()
        .flat_map(|lr| decays.iter().map(|decay| (*lr, *decay)))
        .collect()
}

/// The point to train the final run with: best validation top-1 over epochs and grid; of equals the first of the
/// grid. `None` if every run diverged.
pub fn choose(tuned: &[Tuned]) -> Option<&Tuned> {
    let best = tuned.iter().map(|t| t.validation).fold(0.0, f64::max);
    tuned.iter().find(|t| t.epoch > 0 && t.validation == best)
}

/// Best validation accuracy of a run's metrics.jsonl and its epoch; `None` if it has no validation line.
pub fn best_epoch(metrics: &Path) -> Option<(f64, usize)> {
    let text = std::fs::read_to_string(metrics).ok()?;
    text.lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|line| line["split"] == "valid")
        .filter_map(|line| Some((line["accuracy"].as_f64()?, line["epoch"].as_u64()? as usize)))
        // Of equals the first epoch.
        .fold(None, |best: Option<(f64, usize)>, (value, epoch)| match best {
            Some((top, _)) if top >= value => best,
            _ => Some((value, epoch)),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_the_published_ones_unless_told_otherwise() {
        let mut settings = Settings::default();
        assert_eq!(points(&settings, "wegeft").len(), 24);
        assert_eq!(points(&settings, "wegeft")[0], (1e-4, 0.01));
        assert_eq!(points(&settings, "lora").last(), Some(&(1e-2, 0.0)));
        assert_eq!(points(&settings, "vpt").len(), 6);
        settings.sweep_lr = vec![0.1];
        assert_eq!(points(&settings, "bitfit"), [(0.1, 0.0)]);
        let own = settings.methods.entry("lora".into()).or_default();
        (own.sweep_lr, own.sweep_weight_decay) = (Some(vec![1.0, 2.0]), Some(vec![0.5]));
        assert_eq!(points(&settings, "lora"), [(1.0, 0.5), (2.0, 0.5)]);
        assert_eq!(points(&settings, "wegeft")[0].0, 0.1);
    }

    #[test]
    fn the_best_epoch_of_the_best_point_wins_and_the_first_of_equals() {
        let tuned = |lr, validation, epoch| Tuned {
            lr,
            weight_decay: 0.0,
            validation,
            epoch,
            seconds: 1.0,
        };
        let runs = [
            tuned(1.0, 0.0, 0),
            tuned(2.0, 70.5, 9),
            tuned(3.0, 70.5, 2),
            tuned(4.0, 60.0, 1),
        ];
        assert_eq!(choose(&runs).unwrap().lr, 2.0);
        assert_eq!(choose(&runs[..1]), None);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let lines = r#"{"epoch":1,"split":"train","accuracy":99.0}
{"epoch":1,"split":"valid","accuracy":50.0}
{"epoch":2,"split":"valid","accuracy":61.5}
{"epoch":3,"split":"valid","accuracy":61.5}
"#;
        std::fs::write(&path, lines).unwrap();
        assert_eq!(best_epoch(&path), Some((61.5, 2)));
        assert_eq!(best_epoch(&dir.path().join("none")), None);
    }
}
