//! The length-controlled win rate of AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475): a logistic model of the
//! preference, with terms for the author, the difference in length and the difficulty of the instruction; the rate is
//! the model's prediction at equal length.
//!
//! As in AlpacaEval's own code: an L1 penalty whose strength is chosen by cross-validation over 5 folds of
//! instructions, no intercept besides the author's term. With the authors' file of baselines of unnatural length
//! (df_gamed.csv), the logistic model has the term for the instruction's difficulty, and these baselines get a weight
//! of 0.2; without it, it has only the other two terms.

use std::collections::BTreeMap;
use std::path::Path;

use datasets::language::records;

/// A comparison with the baseline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compared {
    /// Number of the instruction in the benchmark.
    pub index: usize,
    /// 1 if the model's answer is preferred, 0 if the baseline's is; between them if the judge is uncertain.
    pub preference: f64,
    /// Characters of the baseline's answer.
    pub baseline: usize,
    /// Characters of the model's answer.
    pub length: usize,
}

/// The authors' comparisons with baselines that were asked for longer or shorter answers.
#[derive(Debug, Clone, Default)]
pub struct Gamed {
    rows: Vec<Row>,
    difficulty: BTreeMap<usize, f64>,
}

/// A row of the logistic model: its terms, the preference, its weight.
#[derive(Debug, Clone, Copy)]
struct Row {
    terms: [f64; 3],
    preference: f64,
    weight: f64,
}

/// Weight of both gamed baselines together.
const GAMED: f64 = 0.2;
const FOLDS: usize = 5;

impl Gamed {
    /// Reads df_gamed.csv.
    ///
    /// # Errors
    /// A file that cannot be read or lacks a column.
    pub fn read(path: &Path) -> Result<Self, String> {
        let mut gamed = Self::default();
        for record in records::read(path).map_err(|e| e.to_string())? {
            let number = |name: &str| -> Result<f64, String> {
                let text = record.required(name).map_err(|e| e.to_string())?;
                let number = text.parse().ok().filter(|number: &f64| number.is_finite());
                number.ok_or_else(|| {
                    record
                        .error(format!("field '{name}' is '{text}', expected a number"))
                        .to_string()
                })
            };
            let own = record.text("not_gamed_baseline").map_err(|e| e.to_string())?;
            let difficulty = number("instruction_difficulty")?;
            gamed.difficulty.entry(number("index")? as usize).or_insert(difficulty);
            gamed.rows.push(Row {
                terms: [
                    number("std_delta_len")?.tanh(),
                    difficulty,
                    f64::from(u8::from(own.is_some_and(|own| own.eq_ignore_ascii_case("true")))),
                ],
                preference: number("preference")?,
                weight: GAMED / 2.0,
            });
        }
        Ok(gamed)
    }
}

/// The rate in percent; `None` for fewer than two comparisons.
///
/// # Errors
/// An instruction of unknown difficulty.
pub fn win_rate(compared: &[Compared], gamed: Option<&Gamed>) -> Result<Option<f64>, String> {
    if compared.len() < 2 {
        return Ok(None);
    }
    let difference = |c: &Compared| c.baseline as f64 - c.length as f64;
    let mean = compared.iter().map(difference).sum::<f64>() / compared.len() as f64;
    let variance = compared.iter().map(|c| (difference(c) - mean).powi(2)).sum::<f64>() / (compared.len() - 1) as f64;
    let deviation = if variance > 0.0 { variance.sqrt() } else { 1.0 };
    let difficulty = |c: &Compared| match gamed {
        None => Ok(0.0),
        Some(gamed) => gamed.difficulty.get(&c.index).copied().ok_or_else(|| {
            format!(
                "--gamed-baselines has no difficulty for instruction {}; it covers only AlpacaEval's own instructions",
                c.index
            )
        }),
    };
    let own = compared.iter().map(|c| {
        Ok(Row {
            terms: [(difference(c) / deviation).tanh(), difficulty(c)?, 1.0],
            preference: c.preference,
            weight: 1.0,
        })
    });
    let mut rows = gamed.map_or(Vec::new(), |gamed| gamed.rows.clone());
    rows.extend(own.collect::<Result<Vec<Row>, String>>()?);
    let model = chosen(&rows);
    let predicted = compared
        .iter()
        .map(|c| Ok(logistic(model[1] * difficulty(c)? + model[2])));
    let predicted = predicted.collect::<Result<Vec<f64>, String>>()?;
    Ok(Some(100.0 * predicted.iter().sum::<f64>() / predicted.len() as f64))
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The logistic model whose penalty predicts held-out rows best.
fn chosen(rows: &[Row]) -> [f64; 3] {
    let strengths = (0..10).map(|i| 10f64.powf(-4.0 + 8.0 * f64::from(i) / 9.0));
    let folds = FOLDS.min(rows.len());
    let mut best = (f64::INFINITY, 1.0);
    for strength in strengths {
        let losses = (0..folds).map(|fold| {
            // scikit-learn assigns groups of equal size to folds starting with the last group.
            let held = |at: usize| (rows.len() - 1 - at) % folds == fold;
            let part = |wanted: bool| -> Vec<Row> {
                let of_part = rows.iter().enumerate().filter(|(at, _)| held(*at) == wanted);
                of_part.map(|(_, row)| *row).collect()
            };
            let model = fitted(&part(false), strength);
            let held_out = part(true);
            held_out.iter().map(|row| row.weight * loss(row, &model)).sum::<f64>() / held_out.len() as f64
        });
        let mean = losses.sum::<f64>() / folds as f64;
        if mean < best.0 {
            best = (mean, strength);
        }
    }
    fitted(rows, best.1)
}

fn score(row: &Row, model: &[f64; 3]) -> f64 {
    row.terms.iter().zip(model).map(|(term, weight)| term * weight).sum()
}

fn loss(row: &Row, model: &[f64; 3]) -> f64 {
    let p = logistic(score(row, model)).clamp(1e-15, 1.0 - 1e-15);
    -(row.preference * p.ln() + (1.0 - row.preference) * (1.0 - p).ln())
}

/// Minimizes |model| + `strength` · weighted loss by coordinate descent with Newton steps, halved until they reduce the
/// objective.
fn fitted(rows: &[Row], strength: f64) -> [f64; 3] {
    let mut model = [0.0f64; 3];
    let objective = |model: &[f64; 3]| {
        let losses: f64 = rows.iter().map(|row| row.weight * loss(row, model)).sum();
        model.iter().map(|weight| weight.abs()).sum::<f64>() + strength * losses
    };
    let mut now = objective(&model);
    for _ in 0..1000 {
        let before = now;
        for at in 0..model.len() {
            let (mut slope, mut curve) = (0.0, 1e-12);
            for row in rows {
                let p = logistic(score(row, &model));
                slope += strength * row.weight * (p - row.preference) * row.terms[at];
                curve += strength * row.weight * p * (1.0 - p) * row.terms[at] * row.terms[at];
            }
            // The Newton step, shrunk towards 0 by the L1 penalty.
            let aim = model[at] - slope / curve;
            let shrunk = aim.signum() * (aim.abs() - 1.0 / curve).max(0.0);
            let mut step = shrunk - model[at];
            for _ in 0..40 {
                let mut tried = model;
                tried[at] += step;
                let value = objective(&tried);
                if value <= now {
                    (model, now) = (tried, value);
                    break;
                }
                step /= 2.0;
            }
        }
        if before - now <= 1e-12 * before.abs().max(1.0) {
            break;
        }
    }
    model
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every second answer is as long as the baseline's; the others win by their length alone.
    fn by_length(count: usize) -> Vec<Compared> {
        let of = |index: usize| Compared {
            index,
            preference: if index.is_multiple_of(2) {
                f64::from(u8::from(index.is_multiple_of(4)))
            } else {
                1.0
            },
            baseline: 500,
            length: if index.is_multiple_of(2) { 500 } else { 1500 },
        };
        (0..count).map(of).collect()
    }

    #[test]
    fn what_length_alone_wins_is_taken_away() {
        let compared = by_length(200);
        let plain = 100.0 * compared.iter().map(|c| c.preference).sum::<f64>() / 200.0;
        let controlled = win_rate(&compared, None).unwrap().unwrap();
        assert!(plain == 75.0 && (controlled - 50.0).abs() < 3.0, "{plain} {controlled}");
        assert_eq!(win_rate(&compared[..1], None).unwrap(), None);
    }

    #[test]
    fn the_fit_is_the_least_of_its_objective() {
        let row = |x: f64, preference| Row {
            terms: [x, 0.0, 1.0],
            preference,
            weight: 1.0,
        };
        let rows = [
            row(0.5, 1.0),
            row(-0.5, 0.0),
            row(0.3, 0.8),
            row(-0.2, 0.6),
            row(0.9, 1.0),
        ];
        let model = fitted(&rows, 10.0);
        let objective = |model: &[f64; 3]| {
            model.iter().map(|w| w.abs()).sum::<f64>() + 10.0 * rows.iter().map(|row| loss(row, model)).sum::<f64>()
        };
        for at in [0, 2] {
            for step in [-1e-3, 1e-3] {
                let mut other = model;
                other[at] += step;
                assert!(objective(&other) > objective(&model), "{model:?}");
            }
        }
        assert_eq!(model[1], 0.0);
        // A strong penalty sets everything to 0.
        assert_eq!(fitted(&rows, 1e-4), [0.0; 3]);
    }
}
