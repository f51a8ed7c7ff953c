//! Questions about the facts, in the form of the commonsense suite's BoolQ: what kind of thing something is, what it
//! has or does, what it is used for. The suite's other sets ask for the label of one of several answers, which a model
//! as small as the shipped one does not learn (`datasets/language-model/README.md`).

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::Suite;
use super::claims::{Claim, Things};
use super::facts::{KINDS, TRAINED, TRAINED_USES, USES};
use crate::language::commonsense::options;
use crate::language::{Example, Gold, Protocol, Question};

/// Generates a random claim.
type Make = fn(&mut StdRng, Things, bool) -> Claim;

const SETS: [(&str, Make); 3] = [
    ("kinds", Claim::of_kind),
    ("properties", Claim::of_property),
    ("uses", Claim::of_use),
];

/// Questions per set; half of them are true.
const QUESTIONS: usize = 80;

// The number of true claims that exist: each thing with its kind, or with its use in two phrasings.
const _: () = assert!(QUESTIONS <= 2 * KINDS.len() * (KINDS[0].members.len() - TRAINED));
const _: () = assert!(QUESTIONS <= 2 * 2 * (USES.len() - TRAINED_USES));

/// 2,400 training examples and three sets of questions, half of which are true.
pub fn suite() -> Suite {
    let mut rng = StdRng::seed_from_u64(170);
    let mut train = Vec::new();
    let mut sets = Vec::new();
    for (name, make) in SETS {
        for _ in 0..800 {
            let truth = rng.random_bool(0.5);
            train.push(Example::Instruction {
                instruction: instruction(&make(&mut rng, Things::Trained, truth)),
                input: String::new(),
                output: Protocol::Old.commonsense_target("", &truth.to_string()),
            });
        }
        let mut questions: Vec<Question> = Vec::new();
        while questions.len() < QUESTIONS {
            let truth = questions.len().is_multiple_of(2);
            let instruction = instruction(&make(&mut rng, Things::Others, truth));
            if questions.iter().all(|question| question.instruction != instruction) {
                questions.push(Question {
                    options: options(&instruction),
                    gold: Gold::Label(truth.to_string()),
                    instruction,
                });
            }
        }
        sets.push((name.to_string(), questions));
    }
    train.shuffle(&mut rng);
    Suite { train, sets }
}

fn instruction(claim: &Claim) -> String {
    format!(
        "Please answer the following question with true or false, question: {}?\n\nAnswer format: true/false",
        claim.question
    )
}
