//! Sentence tasks that this module makes, for runs without data: in words that the small language model which ships with
//! the repository has read, in questions that it was never asked.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::TextItem;
use crate::glue::{Label, Metric};
use crate::language::sample::claims::{Claim, Things};
use crate::language::sample::facts::{COUNTED, NAMES};

/// A task.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleTask {
    /// Its name.
    pub name: &'static str,
    /// Classes; none for scores.
    pub classes: &'static [&'static str],
    /// Its metrics, that by which runs are compared first.
    pub metrics: &'static [Metric],
    /// Texts to train on.
    pub train: Vec<TextItem<Label>>,
    /// Others to judge by.
    pub valid: Vec<TextItem<Label>>,
}

/// Names of the tasks.
pub const NAMED: [&str; 3] = ["claims", "answers", "likeness"];

const TRAIN: usize = 768;
const VALID: usize = 200;

/// The task of that name; `None` if there is none.
pub fn task(name: &str) -> Option<SampleTask> {
    let (make, classes, metrics): (Make, &[&str], &[Metric]) = match name {
        "claims" => (claim, &["wrong", "right"], &[Metric::Matthews, Metric::Accuracy]),
        "answers" => (answer, &["no_answer", "answer"], &[Metric::Accuracy, Metric::F1]),
        "likeness" => (likeness, &[], &[Metric::Pearson, Metric::Spearman]),
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

/// Makes text number `index` about some things.
type Make = fn(&mut StdRng, Things, usize) -> TextItem<Label>;

/// Whether a statement is so; other things are judged by than are trained on.
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

/// Somebody with a number of things.
struct Owner {
    name: &'static str,
    count: u32,
    things: &'static str,
}

impl Owner {
    fn any(rng: &mut StdRng) -> Self {
        Self {
            name: NAMES[rng.random_range(0..NAMES.len())],
            count: rng.random_range(1..=20),
            things: COUNTED[rng.random_range(0..COUNTED.len())],
        }
    }

    fn said(&self) -> String {
        format!("{} had {} {}.", self.name, self.count, self.things)
    }
}

/// Whether the second text says what the first one asks: it names other people where it does not.
fn answer(rng: &mut StdRng, _things: Things, index: usize) -> TextItem<Label> {
    let answered = index.is_multiple_of(2);
    let names: Vec<&'static str> = NAMES.choose_multiple(rng, 4).copied().collect();
    let of = |rng: &mut StdRng, name: &'static str| Owner {
        name,
        ..Owner::any(rng)
    };
    let mut said = [of(rng, names[0]), of(rng, names[1]), of(rng, names[2])].map(|owner| owner.said());
    said.swap(0, rng.random_range(0..3));
    let asked = if answered {
        names[rng.random_range(0..3)]
    } else {
        names[3]
    };
    TextItem {
        text: format!("What did {asked} have?"),
        pair: Some(format!(" {}", said.join(" "))),
        label: Some(Label::Class(usize::from(answered))),
    }
}

/// How alike two sentences are, 0 to 5: the same things count 2.5, the same number 1.5, the same person 1.
fn likeness(rng: &mut StdRng, _things: Things, _index: usize) -> TextItem<Label> {
    let first = Owner::any(rng);
    let other = Owner::any(rng);
    let second = Owner {
        name: if rng.random_bool(0.5) { first.name } else { other.name },
        count: if rng.random_bool(0.5) { first.count } else { other.count },
        things: if rng.random_bool(0.5) {
            first.things
        } else {
            other.things
        },
    };
    let score = 2.5 * f32::from(u8::from(first.things == second.things))
        + 1.5 * f32::from(u8::from(first.count == second.count))
        + f32::from(u8::from(first.name == second.name));
    TextItem {
        text: first.said(),
        pair: Some(format!(" {}", second.said())),
        label: Some(Label::Score(score)),
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
                assert!(numbers.filter(|score| *score == 5.0).count() > 5);
            }
        }
        assert_eq!(task("nothing"), None);
    }
}
