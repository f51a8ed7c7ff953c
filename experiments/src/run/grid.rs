//! The grid of a sweep (learning rates times weight decays of a method) and the choice of a point: the best validation
//! value over the epochs. WeGeFT's released code does not specify a rule.

use serde::{Deserialize, Serialize};

/// Which of two validation values is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Best {
    /// Accuracies.
    Greatest,
    /// Losses.
    Lowest,
}

impl Best {
    /// True if `new` is better than `old`.
    pub fn is_better(self, new: f64, old: f64) -> bool {
        match self {
            Self::Greatest => new > old,
            Self::Lowest => new < old,
        }
    }
}

/// The result of one tuning run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    /// Peak learning rate.
    #[serde(rename = "learning_rate", alias = "lr")]
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Best validation value over the rounds; 0 if the training diverged.
    pub validation: f64,
    /// The round with that value, counted from 1; 0 if the training diverged.
    pub epoch: usize,
    /// Wall time.
    pub seconds: f64,
}

/// The point for the final training: the best validation value over epochs and grid; in case of ties, the first point
/// of the grid. `None` if every run diverged.
pub fn choose(tuned: &[Tuned], best: Best) -> Option<&Tuned> {
    let converged = tuned.iter().filter(|tuned| tuned.epoch > 0);
    converged.reduce(
        |chosen, next| match best.is_better(next.validation, chosen.validation) {
            true => next,
            false => chosen,
        },
    )
}

/// What the rounds of a training are: epochs or, with `eval_steps`, the steps between two evaluations.
pub fn round_name(has_eval_steps: bool) -> &'static str {
    match has_eval_steps {
        true => "evaluation",
        false => "epoch",
    }
}

/// The best of some pairs (round, validation value), the first one in case of ties; `None` if there are none.
pub fn best_round(values: &[(usize, f64)], best: Best) -> Option<(usize, f64)> {
    let values = values.iter().copied();
    values.reduce(|chosen, next| match best.is_better(next.1, chosen.1) {
        true => next,
        false => chosen,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(choose(&runs, Best::Greatest).unwrap().lr, 2.0);
        assert_eq!(choose(&runs, Best::Lowest).unwrap().lr, 4.0);
        assert_eq!(choose(&runs[..1], Best::Greatest), None);
        let rounds = [(1, 50.0), (2, 61.5), (3, 61.5)];
        assert_eq!(best_round(&rounds, Best::Greatest), Some((2, 61.5)));
        assert_eq!(best_round(&rounds, Best::Lowest), Some((1, 50.0)));
    }
}
