//! Small instructions that a program can verify: how often a word is used, in which case, order and form, and what
//! comes first. The shipped model knows the words and learns what to do with them.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use super::facts::KINDS;
use super::text::capital;
use crate::language::{Example, Template};

/// A rule for a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// This number of words.
    Count(usize),
    /// Only this word.
    Only(String),
    /// Only these words, in this order.
    Order(Vec<String>),
    /// This word at the start.
    First(String),
    /// These words, possibly among others.
    Contains(Vec<String>),
}

impl Rule {
    /// Whether `response` follows it; a full stop at its end is ignored.
    pub fn is_kept(&self, response: &str) -> bool {
        let words: Vec<&str> = response.trim().trim_end_matches('.').split_whitespace().collect();
        match self {
            Self::Count(count) => words.len() == *count,
            Self::Only(word) => !words.is_empty() && words.iter().all(|other| other == word),
            Self::Order(wanted) => words == *wanted,
            Self::First(word) => words.first().is_some_and(|first| first == word),
            Self::Contains(wanted) => wanted.iter().all(|word| words.contains(&word.as_str())),
        }
    }
}

/// An instruction, its rules, and a response that follows them.
#[derive(Debug, Clone, PartialEq)]
pub struct Instructed {
    /// The instruction.
    pub instruction: String,
    /// Its rules.
    pub rules: Vec<Rule>,
    /// A response.
    pub response: String,
}

/// Instructions for training and testing.
#[derive(Debug, Clone, PartialEq)]
pub struct Instructions {
    /// Training examples.
    pub train: Vec<Example>,
    /// Name and instructions of each test set; none of them is a training example.
    pub sets: Vec<(String, Vec<Instructed>)>,
}

/// Generates a random instruction.
type Make = fn(&mut StdRng) -> Instructed;

const SETS: [(&str, Make); 5] = [
    ("count", count),
    ("case", case),
    ("order", order),
    ("prefix", prefix),
    ("format", format),
];

/// Instructions per test set.
const TESTED: usize = 40;
/// Training examples of the same kind.
const TRAINED: usize = 360;

/// 1,800 training examples and five sets of 40 instructions.
pub fn instructions() -> Instructions {
    let mut rng = StdRng::seed_from_u64(805);
    let (mut train, mut sets) = (Vec::new(), Vec::new());
    for (name, make) in SETS {
        let mut asked = HashSet::new();
        let mut tested = Vec::new();
        while tested.len() < TESTED {
            let instructed = make(&mut rng);
            if asked.insert(instructed.instruction.clone()) {
                tested.push(instructed);
            }
        }
        let mut made = 0;
        while made < TRAINED {
            let instructed = make(&mut rng);
            if !asked.contains(&instructed.instruction) {
                train.push(Example::Instruction {
                    instruction: instructed.instruction,
                    input: String::new(),
                    output: instructed.response,
                });
                made += 1;
            }
        }
        sets.push((name.to_string(), tested));
    }
    train.shuffle(&mut rng);
    Instructions { train, sets }
}

impl Instructed {
    /// The prompt of the shipped model.
    pub fn prompt(&self) -> String {
        Template::Alpaca.prompt(&self.instruction, "")
    }
}

/// This many different words.
fn words(rng: &mut StdRng, count: usize) -> Vec<String> {
    let known: Vec<&str> = KINDS.iter().flat_map(|kind| kind.members).collect();
    let chosen = known.choose_multiple(rng, count);
    chosen.map(|word| word.to_string()).collect()
}

fn repeated(rng: &mut StdRng, how: &str, form: fn(&str) -> String) -> Instructed {
    let word = words(rng, 1).remove(0);
    let count = rng.random_range(2..=5);
    let said = form(&word);
    Instructed {
        instruction: format!("Say the word {word} {count} times{how}."),
        response: vec![said.as_str(); count].join(" "),
        rules: vec![Rule::Count(count), Rule::Only(said)],
    }
}

fn count(rng: &mut StdRng) -> Instructed {
    repeated(rng, "", str::to_string)
}

fn case(rng: &mut StdRng) -> Instructed {
    repeated(rng, ", each with a capital letter", capital)
}

fn order(rng: &mut StdRng) -> Instructed {
    let mut words = words(rng, 3);
    let instruction = format!("Say the words {} from last to first.", words.join(", "));
    words.reverse();
    Instructed {
        instruction,
        response: words.join(" "),
        rules: vec![Rule::Order(words)],
    }
}

fn prefix(rng: &mut StdRng) -> Instructed {
    let mut words = words(rng, 3);
    let first = words.remove(0);
    Instructed {
        instruction: format!("Begin with the word {first}, then say {} and {}.", words[0], words[1]),
        response: format!("{first} {} {}", words[0], words[1]),
        rules: vec![Rule::First(first), Rule::Contains(words)],
    }
}

fn format(rng: &mut StdRng) -> Instructed {
    let words = words(rng, 2);
    let bracketed: Vec<String> = words.iter().map(|word| format!("[{word}]")).collect();
    Instructed {
        instruction: format!("Say the words {} and {}, each in brackets.", words[0], words[1]),
        response: bracketed.join(" "),
        rules: vec![Rule::Count(2), Rule::Contains(bracketed)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_keep_their_rules_and_no_instruction_is_trained_on() {
        let made = instructions();
        assert_eq!(made, instructions());
        let trained: HashSet<&String> = made
            .train
            .iter()
            .map(|example| match example {
                Example::Instruction { instruction, .. } => instruction,
                other => panic!("{other:?} is no instruction"),
            })
            .collect();
        for (name, set) in &made.sets {
            assert_eq!(set.len(), TESTED, "{name}");
            for Instructed {
                instruction,
                rules,
                response,
            } in set
            {
                assert!(rules.iter().all(|rule| rule.is_kept(response)), "{name}: {response}");
                assert!(!rules.iter().all(|rule| rule.is_kept(instruction)), "{name}");
                assert!(!trained.contains(instruction), "{name}");
            }
        }
    }

    #[test]
    fn rules_look_at_words() {
        assert!(Rule::Count(2).is_kept(" a b. ") && !Rule::Count(2).is_kept("a"));
        assert!(Rule::Only("a".into()).is_kept("a a") && !Rule::Only("a".into()).is_kept(""));
        assert!(Rule::Order(vec!["b".into(), "a".into()]).is_kept("b a") && !Rule::First("a".into()).is_kept("b a"));
    }
}
