//! The data of the language suites if none is given: questions and text that this module generates from facts and
//! templates written for it (same licence as the code). The small language model that ships with the repository was
//! pretrained on [`text`]; the questions are about the content of that text, but their instructions and answers have a
//! form that does not occur in it.

pub mod arithmetic;
mod asking;
pub mod claims;
pub mod commonsense;
pub mod facts;
pub mod instructions;
mod parts;
pub mod programs;
mod reading;
pub mod text;

use crate::language::{Example, Question};

/// A small suite: examples to train on and questions to answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Suite {
    /// Training examples.
    pub train: Vec<Example>,
    /// Name and questions of each test set; no question is a training example.
    pub sets: Vec<(String, Vec<Question>)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::{Example, Protocol};
    use std::collections::HashSet;

    fn check(suite: Suite) {
        let seen: HashSet<&String> = suite
            .train
            .iter()
            .map(|example| match example {
                Example::Instruction { instruction, .. } => instruction,
                other => panic!("{other:?} is no instruction"),
            })
            .collect();
        for (name, questions) in &suite.sets {
            assert!(questions.len() >= 60, "{name}");
            let distinct: HashSet<&String> = questions.iter().map(|question| &question.instruction).collect();
            assert_eq!(distinct.len(), questions.len(), "{name}");
            assert!(distinct.iter().all(|question| !seen.contains(*question)), "{name}");
        }
        assert!(suite.train.len() >= 1000);
    }

    #[test]
    fn no_question_is_trained_on_or_asked_twice() {
        check(commonsense::suite());
        check(arithmetic::suite());
    }

    #[test]
    fn suites_and_text_are_the_same_every_time() {
        assert_eq!(commonsense::suite(), commonsense::suite());
        assert_eq!(arithmetic::suite(), arithmetic::suite());
        assert_eq!(text::document(42, 7), text::document(42, 7));
        assert_ne!(text::document(42, 7), text::document(42, 8));
    }

    #[test]
    fn training_outputs_are_judged_correct() {
        // The targets follow the rules by which the outputs of a model are judged.
        for (suite, marker) in [
            (commonsense::suite(), "the correct answer is"),
            (arithmetic::suite(), "The answer is"),
        ] {
            let question = &suite.sets[0].1[0];
            let outputs: Vec<&String> = suite
                .train
                .iter()
                .map(|example| match example {
                    Example::Instruction { output, .. } => output,
                    other => panic!("{other:?} is no instruction"),
                })
                .collect();
            assert!(outputs.iter().all(|output| output.contains(marker)));
            let prompt = question.template().prompt(&question.instruction, "");
            let right = format!("{prompt}{marker} {}", question.gold_text());
            assert!(question.judge(&right, Protocol::New).correct);
            assert!(!question.judge(&prompt, Protocol::New).correct);
        }
    }
}
