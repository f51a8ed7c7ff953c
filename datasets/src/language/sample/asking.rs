//! Text in which somebody asks whether a claim is true and gets an answer: in running text, and as instructions to
//! answer with one word or another. Questions and verdicts have many forms and distances, so that a model learns to
//! give the verdict wherever it is asked for.

use rand::Rng;
use rand::rngs::StdRng;

use super::claims::Claim;
use super::facts::NAMES;
use super::parts::{capital, pick};
use super::reading::aside;
use crate::language::Template;

/// Words for false and for true.
const VERDICTS: [[&str; 2]; 3] = [["no", "yes"], ["false", "true"], ["wrong", "right"]];

/// A question with an immediate answer, on which the longer forms build.
pub(super) fn answered(rng: &mut StdRng) -> String {
    let Claim { question, truth, .. } = Claim::any(rng);
    format!("{}? {}.", capital(&question), capital(VERDICTS[0][usize::from(truth)]))
}

/// A claim and somebody's verdict on it.
pub(super) fn judged(rng: &mut StdRng) -> String {
    let Claim {
        statement,
        question,
        truth,
    } = Claim::any(rng);
    let name = pick(rng, &NAMES);
    let answer = VERDICTS[0][usize::from(truth)];
    let verdict = VERDICTS[rng.random_range(1..VERDICTS.len())][usize::from(truth)];
    match rng.random_range(0..6) {
        0 => format!("{}? {}{}.", capital(&question), aside(rng), capital(answer)),
        1 => format!("Somebody asked: {question}? {}{name} said {answer}.", aside(rng)),
        2 => format!("{name} said that {statement}. {}That was {verdict}.", aside(rng)),
        3 => format!("Is it so that {statement}? {}{}.", aside(rng), capital(answer)),
        4 => format!("That {statement} is {verdict}."),
        _ => format!("{}: {verdict}.", capital(&statement)),
    }
}

/// An instruction to say whether a claim is true, with one of two given words.
pub(super) fn instruction(rng: &mut StdRng) -> String {
    let Claim {
        statement,
        question,
        truth,
    } = Claim::any(rng);
    let verdicts = VERDICTS[rng.random_range(0..VERDICTS.len())];
    let verdict = verdicts[usize::from(truth)];
    let first = rng.random_range(0..2);
    let [one, two] = [verdicts[first], verdicts[1 - first]];
    let asked = match rng.random_range(0..4) {
        0 => format!("{}?", capital(&question)),
        1 => format!("{} asks: {question}?", pick(rng, &NAMES)),
        2 => format!("Read this: {question}?"),
        _ => format!("{} says that {statement}.", pick(rng, &NAMES)),
    };
    let task = match rng.random_range(0..4) {
        0 => format!("{asked} Say {one} or {two}."),
        1 => format!("{asked}\n\nSay {one} or {two}."),
        2 => format!("Say {one} or {two}. {asked}"),
        _ => format!("{asked}\n\nWords: {one}/{two}"),
    };
    let response = match rng.random_range(0..3) {
        0 => capital(verdict),
        1 => format!("I say {verdict}"),
        _ => format!("The right word is {verdict}"),
    };
    let template = match rng.random_bool(0.3) {
        true => Template::Alpaca,
        false => Template::Plain,
    };
    template.prompt(&task, "") + &response + "."
}
