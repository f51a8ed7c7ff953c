//! Generated sentence tasks for runs without data. They use words that the small shipped language model has seen, in
//! questions that it has not.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::TextItem;
use crate::glue::{Label, Metric};
use crate::language::sample::claims::{Claim, Things};
use crate::language::sample::facts::{COUNTED, KINDS, NAMES, TRAINED, with_article};

/// A task.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleTask {
    /// Its name.
    pub name: &'static str,
    /// Classes; none for scores.
    pub classes: &'static [&'static str],
    /// Its metrics; runs are compared by the first one.
    pub metrics: &'static [Metric],
    /// Texts to train on.
    pub train: Vec<TextItem<Label>>,
    /// Texts for validation.
    pub valid: Vec<TextItem<Label>>,
}

/// Names of the tasks.
pub const NAMED: [&str; 3] = ["claims", "follows", "amounts"];

const TRAIN: usize = 768;
const VALID: usize = 200;

/// The task of that name; `None` if there is none.
pub fn task(name: &str) -> Option<SampleTask> {
    let (make, classes, metrics): (Make, &[&str], &[Metric]) = match name {
        "claims" => (claim, &["wrong", "right"], &[Metric::Matthews, Metric::Accuracy]),
        "follows" => (
            follows,
            &["not_entailment", "entailment"],
            &[Metric::Accuracy, Metric::F1],
        ),
        "amounts" => (amount, &[], &[Metric::Pearson, Metric::Spearman]),
        _ => return None,
    };
    let name = NAMED.into_iter().find(|known| *known == name)?;
    let mut rng = StdRng::seed_from_u64(42);
    let mut seen = HashSet::new();
    let mut distinct = |count: usize, things: Things| {
        let mut items = Vec::with_capacity(count);
        while items.len() < count {
            let item = make(&mut rng, things, items.len());
            if seen.insert((item.text.clone(), item.pair.clone())) {
                items.push(item);
            }
        }
        items
    };
    Some(SampleTask {
        name,
        classes,
        metrics,
        train: distinct(TRAIN, Things::Trained),
        valid: distinct(VALID, Things::Others),
    })
}

/// Generates text number `index` about the given things.
type Make = fn(&mut StdRng, Things, usize) -> TextItem<Label>;

/// Whether a statement is true; validation uses other things than training.
fn claim(rng: &mut StdRng, things: Things, index: usize) -> TextItem<Label> {
    let truth = index.is_multiple_of(2);
    let make = *[Claim::of_kind, Claim::of_property, Claim::of_use]
        .choose(rng)
        .unwrap_or(&(Claim::of_kind as fn(&mut StdRng, Things, bool) -> Claim));
    let claim = make(rng, things, truth);
    TextItem {
        text: format!(
            "{} said that {}.",
            NAMES[rng.random_range(0..NAMES.len())],
            claim.statement
        ),
        pair: None,
        label: Some(Label::Class(usize::from(truth))),
    }
}

/// Whether the second sentence follows from the first: it states what all members of the same kind, or of another kind,
/// have or do.
fn follows(rng: &mut StdRng, things: Things, index: usize) -> TextItem<Label> {
    let truth = index.is_multiple_of(2);
    let own = rng.random_range(0..KINDS.len());
    let members = match things {
        Things::All => &KINDS[own].members[..],
        Things::Trained => &KINDS[own].members[..TRAINED],
        Things::Others => &KINDS[own].members[TRAINED..],
    };
    let member = members[rng.random_range(0..members.len())];
    let other = match truth {
        true => own,
        false => (own + rng.random_range(1..KINDS.len())) % KINDS.len(),
    };
    let name = NAMES[rng.random_range(0..NAMES.len())];
    TextItem {
        text: format!("{name} had {}.", with_article(member)),
        pair: Some(format!(" The {member} {}.", KINDS[other].property)),
        label: Some(Label::Class(usize::from(truth))),
    }
}

/// One eighth of the number of things that somebody has in the end, so that scores range from 0 to 5.
fn amount(rng: &mut StdRng, _things: Things, _index: usize) -> TextItem<Label> {
    let name = NAMES[rng.random_range(0..NAMES.len())];
    let things = COUNTED[rng.random_range(0..COUNTED.len())];
    let (a, b) = (rng.random_range(1..=20_u8), rng.random_range(1..=20_u8));
    TextItem {
        text: format!("{name} had {a} {things} and got {b} more."),
        pair: None,
        label: Some(Label::Score(f32::from(a + b) / 8.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_trained_on_and_judged_by_and_classes_are_balanced() {
        for name in NAMED {
            let made = task(name).unwrap();
            assert_eq!(made, task(name).unwrap());
            let key = |item: &TextItem<Label>| (item.text.clone(), item.pair.clone());
            let trained: HashSet<_> = made.train.iter().map(key).collect();
            assert_eq!((made.train.len(), made.valid.len()), (TRAIN, VALID));
            assert_eq!(trained.len(), TRAIN);
            assert!(made.valid.iter().all(|item| !trained.contains(&key(item))), "{name}");
            let numbers = made.valid.iter().map(|item| item.label.unwrap().number());
            if !made.classes.is_empty() {
                assert_eq!(numbers.sum::<f64>(), VALID as f64 / 2.0, "{name}");
            } else {
                assert!(numbers.clone().all(|score| (0.0..=5.0).contains(&score)));
                assert!(numbers.filter(|score| *score > 4.0).count() > 5);
            }
        }
        assert_eq!(task("nothing"), None);
    }
}
