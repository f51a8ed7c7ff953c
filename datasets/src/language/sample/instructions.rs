//! Small instructions that a program can verify: a question that the shipped model answers, and how the answer must look:
//! its case, how often it is said, in which order, after which name and in which format. The questions it knows; to answer
//! as it is told is what it learns.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::facts::{KINDS, NAMES, with_article};
use super::text::{equation, pick};
use crate::language::Example;

/// What a response must be like. Beyond it the wording is free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// This word or number among others, in any case.
    Contains(String),
    /// This number so many times.
    Times(u32, usize),
    /// Capital letters alone.
    Upper,
    /// Small letters alone.
    Lower,
    /// These numbers in this order, and no others.
    Order(Vec<u32>),
    /// This word first.
    First(String),
    /// Between these two characters; a full stop after them does not count.
    Between(char, char),
    /// An object in JSON.
    Json,
}

impl Rule {
    /// Whether `response` keeps it.
    pub fn is_kept(&self, response: &str) -> bool {
        let response = response.trim();
        let words: Vec<&str> = response
            .split(|character: char| !character.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .collect();
        let numbers = || words.iter().filter_map(|word| word.parse::<u32>().ok());
        let (has_upper, has_lower) = (
            response.contains(char::is_uppercase),
            response.contains(char::is_lowercase),
        );
        match self {
            Self::Contains(wanted) => words.iter().any(|word| word.to_lowercase() == wanted.to_lowercase()),
            Self::Times(wanted, times) => numbers().filter(|number| number == wanted).count() == *times,
            Self::Upper => has_upper && !has_lower,
            Self::Lower => has_lower && !has_upper,
            Self::Order(wanted) => numbers().eq(wanted.iter().copied()),
            Self::First(wanted) => words.first() == Some(&wanted.as_str()) && response.starts_with(wanted),
            Self::Between(open, close) => response
                .trim_end_matches('.')
                .strip_prefix(*open)
                .is_some_and(|rest| rest.ends_with(*close)),
            Self::Json => serde_json::from_str::<Value>(response).is_ok_and(|value| value.is_object()),
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
    ("case", case),
    ("count", count),
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

/// A sum as a question and as an answer.
struct Sum {
    question: String,
    answer: String,
    result: u32,
}

fn sum(rng: &mut StdRng) -> Sum {
    loop {
        let (a, sign, b, result) = equation(rng);
        // How often the result is said is counted: it must be neither of the two.
        if result != a && result != b {
            return Sum {
                question: format!("What is {a} {sign} {b}?"),
                answer: format!("{a} {sign} {b} = {result}"),
                result,
            };
        }
    }
}

fn case(rng: &mut StdRng) -> Instructed {
    let kind = &KINDS[rng.random_range(0..KINDS.len())];
    let thing = with_article(pick(rng, &kind.members));
    let noun = kind.name.rsplit(' ').next().unwrap_or_default();
    let (how, response, rule) = match rng.random_bool(0.5) {
        true => ("capital", kind.name.to_uppercase(), Rule::Upper),
        false => ("small", kind.name.to_string(), Rule::Lower),
    };
    Instructed {
        instruction: format!("What kind of thing is {thing}? Use {how} letters only."),
        response: response + ".",
        rules: vec![rule, Rule::Contains(noun.into())],
    }
}

fn count(rng: &mut StdRng) -> Instructed {
    let (sum, times) = (sum(rng), rng.random_range(2..=4));
    Instructed {
        instruction: format!("{} Say it {times} times.", sum.question),
        response: vec![sum.answer + "."; times].join(" "),
        rules: vec![Rule::Times(sum.result, times)],
    }
}

fn order(rng: &mut StdRng) -> Instructed {
    let (first, count) = (rng.random_range(1..=30u32), rng.random_range(3..=7));
    let mut numbers: Vec<u32> = (first..first + count).collect();
    let way = match rng.random_bool(0.5) {
        true => "up",
        false => {
            numbers.reverse();
            "down"
        }
    };
    let said: Vec<String> = numbers.iter().map(u32::to_string).collect();
    Instructed {
        instruction: format!("Count {way} from {} to {}.", said[0], said[said.len() - 1]),
        response: said.join(" "),
        rules: vec![Rule::Order(numbers)],
    }
}

fn prefix(rng: &mut StdRng) -> Instructed {
    let (sum, name) = (sum(rng), pick(rng, &NAMES));
    Instructed {
        instruction: format!("{} Begin with the name {name}.", sum.question),
        response: format!("{name}: {}.", sum.answer),
        rules: vec![Rule::First(name.into()), Rule::Contains(sum.result.to_string())],
    }
}

fn format(rng: &mut StdRng) -> Instructed {
    let Sum {
        question,
        answer,
        result,
    } = sum(rng);
    let (how, response, rule) = match rng.random_range(0..3) {
        0 => (
            "Put the answer in square brackets.",
            format!("[{answer}]"),
            Rule::Between('[', ']'),
        ),
        1 => (
            "Put the answer in double quotes.",
            format!("\"{answer}\""),
            Rule::Between('"', '"'),
        ),
        _ => (
            "Answer with a JSON object.",
            format!("{{\"answer\": \"{answer}\"}}"),
            Rule::Json,
        ),
    };
    Instructed {
        instruction: format!("{question} {how}"),
        response,
        rules: vec![rule, Rule::Contains(result.to_string())],
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
    fn rules_look_at_form_and_answer_alone() {
        let kept = |rule: &Rule, kept: &[&str], broken: &[&str]| {
            for response in kept {
                assert!(rule.is_kept(response), "{rule:?}: {response}");
            }
            for response in broken {
                assert!(!rule.is_kept(response), "{rule:?}: {response}");
            }
        };
        kept(
            &Rule::Contains("bird".into()),
            &["A BIRD!", "it's a bird"],
            &["birds", ""],
        );
        kept(
            &Rule::Times(12, 2),
            &["5 + 7 = 12. 12!", "12, 12"],
            &["12", "12 12 12", "112 12"],
        );
        kept(&Rule::Upper, &["A BIRD.", " IT IS 1 BIRD"], &["A bird.", "12", ""]);
        kept(&Rule::Lower, &["a bird."], &["A bird.", "12"]);
        kept(
            &Rule::Order(vec![3, 2, 1]),
            &["3 2 1", "3, 2, 1."],
            &["1 2 3", "3 2 1 0", ""],
        );
        kept(
            &Rule::First("Ida".into()),
            &["Ida: 12", " Ida, 12"],
            &["Idaho", "\"Ida\"", "12 Ida"],
        );
        kept(
            &Rule::Between('[', ']'),
            &["[12]", "[5 + 7 = 12]."],
            &["[12", "12", "[", "x [12]"],
        );
        kept(&Rule::Between('"', '"'), &["\"12\""], &["\"", "12"]);
        kept(
            &Rule::Json,
            &["{\"answer\": 12}"],
            &["{12}", "12", "{\"answer\": 12} 12"],
        );
    }
}
