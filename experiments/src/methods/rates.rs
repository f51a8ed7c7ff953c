//! Learning rates and weight decays of the methods, fixed or as a grid.

use super::settings::{OwnSettings, Wing};
use crate::cli::table::distinct;
use crate::run::sweep::Sweep;
use crate::train::settings::Training;

/// Peak learning rate and weight decay of a method without a sweep.
pub fn rates(training: &Training, own: &OwnSettings, method: &str) -> (f64, f64) {
    let own = own.get(method);
    (
        own.and_then(|own| own.learning_rate).unwrap_or(training.learning_rate),
        own.and_then(|own| own.weight_decay).unwrap_or(training.weight_decay),
    )
}

/// Learning rates of WeGeFT in the released vision code's sweeps.
const WEGEFT_LR: [f64; 6] = [1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3];
/// Learning rates of all other methods there.
const OTHER_LR: [f64; 6] = [5e-4, 1e-3, 1.5e-3, 2.5e-3, 5e-3, 1e-2];
/// Weight decays there; VPT and BitFit are tuned without any.
const WEIGHT_DECAY: [f64; 4] = [0.01, 1e-3, 1e-4, 0.0];

/// The points (learning rate, weight decay) of a method's grid: those of the settings, or else those of the released
/// vision code. For language models, which that code does not tune, the default is 0.5, 1 and 2 times the learning
/// rate.
pub fn grid(training: &Training, sweep: &Sweep, own: &OwnSettings, method: &str, wing: Wing) -> Vec<(f64, f64)> {
    let mine = own.get(method).cloned().unwrap_or_default();
    let (rate, decay) = rates(training, own, method);
    let default: (Vec<f64>, Vec<f64>) = match wing {
        Wing::Vision => (
            if method.starts_with("wegeft") {
                WEGEFT_LR
            } else {
                OTHER_LR
            }
            .to_vec(),
            match method {
                "vpt" | "vpt_shallow" | "bitfit" => vec![0.0],
                _ => WEIGHT_DECAY.to_vec(),
            },
        ),
        Wing::Language | Wing::Text => (vec![rate / 2.0, rate, 2.0 * rate], vec![decay]),
    };
    let given = |own: Option<Vec<f64>>, all: &[f64], default: Vec<f64>| match own {
        Some(values) => values,
        None if !all.is_empty() => all.to_vec(),
        None => default,
    };
    let rates = given(mine.sweep_lr, &sweep.sweep_lr, default.0);
    let decays = given(mine.sweep_weight_decay, &sweep.sweep_weight_decay, default.1);
    let points = rates.iter().flat_map(|lr| decays.iter().map(|decay| (*lr, *decay)));
    // A point that is given twice is trained once.
    distinct(points)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::settings::defaults;

    #[test]
    fn grids_are_the_published_ones_unless_told_otherwise() {
        let training: Training = defaults();
        let mut sweep: Sweep = defaults();
        let mut own = OwnSettings::new();
        let points = |sweep: &Sweep, own: &OwnSettings, method: &str| grid(&training, sweep, own, method, Wing::Vision);
        assert_eq!(points(&sweep, &own, "wegeft").len(), 24);
        assert_eq!(points(&sweep, &own, "wegeft")[0], (1e-4, 0.01));
        assert_eq!(points(&sweep, &own, "lora").last(), Some(&(1e-2, 0.0)));
        assert_eq!(points(&sweep, &own, "vpt").len(), 6);
        sweep.sweep_lr = vec![0.1, 0.1];
        assert_eq!(points(&sweep, &own, "bitfit"), [(0.1, 0.0)]);
        let lora = own.entry("lora".into()).or_default();
        (lora.sweep_lr, lora.sweep_weight_decay) = (Some(vec![1.0, 2.0]), Some(vec![0.5]));
        assert_eq!(points(&sweep, &own, "lora"), [(1.0, 0.5), (2.0, 0.5)]);
        assert_eq!(points(&sweep, &own, "wegeft")[0].0, 0.1);
    }
}
