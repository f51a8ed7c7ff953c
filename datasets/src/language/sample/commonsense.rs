//! Questions about the facts, in the words of the commonsense suite's sets.

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use super::Suite;
use super::facts::{KINDS, Kind, TRAINED, TRAINED_USES, USES, with_article};
use crate::language::commonsense::options;
use crate::language::{Example, Gold, Protocol, Question};

/// Draws a question and its answer, of the kinds that are trained on or of others.
type Make = fn(&mut StdRng, bool) -> (String, String);

const SETS: [(&str, Make); 3] = [
    ("true-false", true_false),
    ("two-solutions", two_solutions),
    ("four-answers", four_answers),
];

/// 2,400 training examples and three sets of 100 questions.
pub fn suite() -> Suite {
    let mut rng = StdRng::seed_from_u64(170);
    let mut train = Vec::new();
    let mut sets = Vec::new();
    for (name, make) in SETS {
        for _ in 0..800 {
            let (instruction, answer) = make(&mut rng, true);
            train.push(Example::Instruction {
                instruction,
                input: String::new(),
                output: Protocol::Old.commonsense_target("", &answer),
            });
        }
        let mut questions: Vec<Question> = Vec::new();
        while questions.len() < 100 {
            let (instruction, answer) = make(&mut rng, false);
            if questions.iter().all(|question| question.instruction != instruction) {
                questions.push(Question {
                    options: options(&instruction),
                    gold: Gold::Label(answer),
                    instruction,
                });
            }
        }
        sets.push((name.to_string(), questions));
    }
    train.shuffle(&mut rng);
    Suite { train, sets }
}

/// A member of `kind` that training questions may (`trained`) or must not name.
fn member(rng: &mut StdRng, kind: &Kind, trained: bool) -> &'static str {
    let range = if trained {
        0..TRAINED
    } else {
        TRAINED..kind.members.len()
    };
    kind.members[rng.random_range(range)]
}

/// BoolQ's words.
fn true_false(rng: &mut StdRng, trained: bool) -> (String, String) {
    let kind = &KINDS[rng.random_range(0..KINDS.len())];
    let thing = with_article(member(rng, kind, trained));
    let truth = rng.random_bool(0.5);
    let asked = if truth { kind } else { other(rng, kind) };
    let question = match rng.random_bool(0.5) {
        true => format!("is {thing} {}", asked.name),
        false => format!("{} {thing} {}", asked.question[0], asked.question[1]),
    };
    (
        format!(
            "Please answer the following question with true or false, question: {question}?\n\nAnswer format: true/false"
        ),
        truth.to_string(),
    )
}

fn other(rng: &mut StdRng, kind: &Kind) -> &'static Kind {
    let others: Vec<&Kind> = KINDS.iter().filter(|other| other.name != kind.name).collect();
    others[rng.random_range(0..others.len())]
}

/// PIQA's words.
fn two_solutions(rng: &mut StdRng, trained: bool) -> (String, String) {
    let (own, rest) = match trained {
        true => (&USES[..TRAINED_USES], &USES[TRAINED_USES..]),
        false => (&USES[TRAINED_USES..], &USES[..TRAINED_USES]),
    };
    let (goal, thing) = own[rng.random_range(0..own.len())];
    // A wrong thing may be anything else.
    let wrong: Vec<&str> = own
        .iter()
        .chain(rest)
        .map(|u| u.1)
        .filter(|other| *other != thing)
        .collect();
    let wrong = wrong.choose(rng).copied().unwrap_or_default();
    let first = rng.random_bool(0.5);
    let [one, two] = if first { [thing, wrong] } else { [wrong, thing] };
    (
        format!(
            "Please choose the correct solution to the question: How do you {goal}?\n\nSolution1: Use {}.\n\nSolution2: Use {}.\n\nAnswer format: solution1/solution2",
            the(one),
            the(two)
        ),
        if first { "solution1" } else { "solution2" }.to_string(),
    )
}

fn the(thing: &str) -> String {
    format!("the {thing}")
}

/// OBQA's words.
fn four_answers(rng: &mut StdRng, trained: bool) -> (String, String) {
    let mut kinds: Vec<&Kind> = KINDS.iter().collect();
    kinds.shuffle(rng);
    kinds.truncate(4);
    let right = rng.random_range(0..4);
    let question = match rng.random_bool(0.5) {
        true => format!("Which one is {}?", kinds[right].name),
        false => format!("Which one {}?", kinds[right].property),
    };
    let answers: Vec<String> = kinds
        .iter()
        .enumerate()
        .map(|(index, kind)| format!("Answer{}: {}", index + 1, member(rng, kind, trained)))
        .collect();
    (
        format!(
            "Please choose the correct answer to the question: {question}\n\n{}\n\nAnswer format: answer1/answer2/answer3/answer4",
            answers.join(" ")
        ),
        format!("answer{}", right + 1),
    )
}
