//! Small instructions that a program can verify: a question that the shipped model answers, and how the answer must look:
//! its case, how often it is said, what comes before it and what after it, and its format. The questions it knows; to answer
//! as it is told is what it learns.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::facts::{KINDS, with_article};
use super::parts::{capital, equation, pick};
use crate::language::Example;

/// What a response must be like. Beyond it the wording is free, and the case, but for [`Rule::Lower`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// This word or number among others.
    Contains(String),
    /// This word or number so many times.
    Times(String, usize),
    /// No capital letter.
    Lower,
    /// These words or numbers in this order, others between them.
    Order(Vec<String>),
    /// This word first.
    First(String),
    /// A first line that begins so.
    Begins(&'static str),
}

impl Rule {
    /// Whether `response` keeps it.
    pub fn is_kept(&self, response: &str) -> bool {
        let lower = response.trim().to_lowercase();
        let mut words = lower
            .split(|character: char| !character.is_alphanumeric())
            .filter(|word| !word.is_empty());
        match self {
            Self::Contains(wanted) => words.any(|word| word == wanted),
            Self::Times(wanted, times) => words.filter(|word| *word == wanted.as_str()).count() == *times,
            Self::Lower => !response.contains(char::is_uppercase),
            Self::Order(wanted) => wanted.iter().all(|wanted| words.any(|word| word == wanted)),
            Self::First(wanted) => words.next() == Some(wanted.as_str()),
            Self::Begins(wanted) => response.trim().starts_with(wanted),
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
    result: String,
}

fn sum(rng: &mut StdRng) -> Sum {
    loop {
        let (a, sign, b, result) = equation(rng);
        // How often the result is said is counted: it must be neither of the two.
        if result != a && result != b {
            return Sum {
                question: format!("What is {a} {sign} {b}?"),
                answer: format!("{a} {sign} {b} = {result}"),
                result: result.to_string(),
            };
        }
    }
}

/// Words that a response begins or ends with.
const SAID: [&str; 6] = ["yes", "no", "true", "false", "right", "wrong"];

fn case(rng: &mut StdRng) -> Instructed {
    let kind = &KINDS[rng.random_range(0..KINDS.len())];
    let thing = with_article(pick(rng, &kind.members));
    let noun = kind.name.rsplit(' ').next().unwrap_or_default();
    Instructed {
        instruction: format!("What kind of thing is {thing}? Use small letters only."),
        response: format!("{}.", kind.name),
        rules: vec![Rule::Lower, Rule::Contains(noun.into())],
    }
}

fn count(rng: &mut StdRng) -> Instructed {
    let sum = sum(rng);
    let (times, said) = match rng.random_bool(0.5) {
        true => (2, "twice"),
        false => (3, "three times"),
    };
    Instructed {
        instruction: format!("{} Say it {said}.", sum.question),
        response: vec![sum.answer + "."; times].join(" "),
        rules: vec![Rule::Times(sum.result, times)],
    }
}

fn order(rng: &mut StdRng) -> Instructed {
    let Sum {
        question,
        answer,
        result,
    } = sum(rng);
    let word = pick(rng, &SAID);
    let said = capital(word);
    let (place, response, order) = match rng.random_bool(0.5) {
        true => ("before", format!("{said}. {answer}."), [word.into(), result]),
        false => ("after", format!("{answer}. {said}."), [result, word.into()]),
    };
    Instructed {
        instruction: format!("{question} Say {word} {place} the answer."),
        response,
        rules: vec![Rule::Order(order.to_vec())],
    }
}

fn prefix(rng: &mut StdRng) -> Instructed {
    let (sum, word) = (sum(rng), pick(rng, &SAID));
    Instructed {
        instruction: format!("{} Begin with the word {word}.", sum.question),
        response: format!("{}: {}.", capital(word), sum.answer),
        rules: vec![Rule::First(word.into()), Rule::Contains(sum.result)],
    }
}

fn format(rng: &mut StdRng) -> Instructed {
    let sum = sum(rng);
    let (how, begins) = match rng.random_bool(0.5) {
        true => ("Answer as a heading with ###.", "###"),
        false => ("Put A: in front of the answer.", "A:"),
    };
    Instructed {
        instruction: format!("{} {how}", sum.question),
        response: format!("{begins} {}.", sum.answer),
        rules: vec![Rule::Begins(begins), Rule::Contains(sum.result)],
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
            &Rule::Times("12".into(), 2),
            &["5 + 7 = 12. 12!", "12, 12"],
            &["12", "12 12 12", "112 12"],
        );
        kept(&Rule::Lower, &["a bird."], &["A bird."]);
        kept(
            &Rule::Order(vec!["12".into(), "yes".into()]),
            &["5 + 7 = 12. Yes.", "12, yes"],
            &["Yes. 12", "12", ""],
        );
        kept(
            &Rule::First("yes".into()),
            &["Yes: 12", " yes, 12"],
            &["12, yes", "Yesterday", ""],
        );
        kept(&Rule::Begins("###"), &["### 12", " ###12"], &["12 ###", "# 12"]);
    }
}
