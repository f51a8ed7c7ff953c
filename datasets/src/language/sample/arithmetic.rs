//! Word problems with worked answers, in the form of Math10k.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::Suite;
use super::facts::{COUNTED, NAMES};
use crate::language::{Example, Gold, Question};

/// One problem: its text, the worked answer, the number.
struct Problem {
    text: String,
    work: String,
    answer: u32,
}

/// Generates a random problem.
type Make = fn(&mut StdRng) -> Problem;

const SETS: [(&str, Make); 3] = [("one-step", one_step), ("two-step", two_step), ("groups", groups)];

/// 2,400 training examples and three sets of 100 questions.
pub fn suite() -> Suite {
    let mut rng = StdRng::seed_from_u64(10);
    let mut train = Vec::new();
    let mut sets = Vec::new();
    for (name, make) in SETS {
        let mut asked = HashSet::new();
        let mut questions = Vec::new();
        while questions.len() < 100 {
            let problem = make(&mut rng);
            if asked.insert(problem.text.clone()) {
                questions.push(Question {
                    instruction: problem.text,
                    gold: Gold::Number(f64::from(problem.answer)),
                    options: Vec::new(),
                });
            }
        }
        let mut made = 0;
        while made < 800 {
            let problem = make(&mut rng);
            if !asked.contains(&problem.text) {
                train.push(Example::Instruction {
                    instruction: problem.text,
                    input: String::new(),
                    output: format!("\nA: {} The answer is {}.", problem.work, problem.answer),
                });
                made += 1;
            }
        }
        sets.push((name.to_string(), questions));
    }
    train.shuffle(&mut rng);
    Suite { train, sets }
}

fn actors(rng: &mut StdRng) -> (&'static str, &'static str) {
    (
        NAMES[rng.random_range(0..NAMES.len())],
        COUNTED[rng.random_range(0..COUNTED.len())],
    )
}

fn one_step(rng: &mut StdRng) -> Problem {
    let (name, things) = actors(rng);
    let (a, b) = (rng.random_range(2..=20u32), rng.random_range(2..=20u32));
    if rng.random_bool(0.5) {
        return Problem {
            text: format!(
                "{name} has {a} {things}. {name} finds {b} more {things}. How many {things} does {name} have now?"
            ),
            work: format!("{name} has {a} + {b} = {} {things}.", a + b),
            answer: a + b,
        };
    }
    let (a, b) = (a.max(b) + 1, a.min(b));
    Problem {
        text: format!("{name} has {a} {things}. {name} loses {b} {things}. How many {things} does {name} have left?"),
        work: format!("{name} has {a} - {b} = {} {things}.", a - b),
        answer: a - b,
    }
}

fn two_step(rng: &mut StdRng) -> Problem {
    let (name, things) = actors(rng);
    let (a, b) = (rng.random_range(2..=12u32), rng.random_range(2..=12u32));
    let c = rng.random_range(1..a + b);
    let sum = a + b;
    Problem {
        text: format!(
            "{name} has {a} {things}. {name} finds {b} more {things} and gives away {c} {things}. How many {things} does {name} have left?"
        ),
        work: format!(
            "{name} has {a} + {b} = {sum} {things}. Then {name} has {sum} - {c} = {} {things}.",
            sum - c
        ),
        answer: sum - c,
    }
}

fn groups(rng: &mut StdRng) -> Problem {
    let (name, things) = actors(rng);
    let (a, b) = (rng.random_range(2..=9u32), rng.random_range(2..=9u32));
    Problem {
        text: format!("{name} has {a} boxes with {b} {things} in each box. How many {things} does {name} have in all?"),
        work: format!("{name} has {a} * {b} = {} {things}.", a * b),
        answer: a * b,
    }
}
