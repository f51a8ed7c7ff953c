//! What the pretraining text is made of: words, facts, equations, instructions in a template.

use rand::Rng;
use rand::rngs::StdRng;

use super::facts::{KINDS, Kind, with_article};
use crate::language::Template;

pub(super) fn kind(rng: &mut StdRng) -> &'static Kind {
    &KINDS[rng.random_range(0..KINDS.len())]
}

pub(super) fn pick<'a>(rng: &mut StdRng, words: &[&'a str]) -> &'a str {
    words[rng.random_range(0..words.len())]
}

pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| {
        first.to_uppercase().collect::<String>() + letters.as_str()
    })
}

pub(super) fn fact(rng: &mut StdRng) -> String {
    let kind = kind(rng);
    let member = pick(rng, &kind.members);
    let thing = with_article(member);
    match rng.random_range(0..4) {
        0 => format!("{} is {}.", capital(&thing), kind.name),
        1 => format!("{} {}.", capital(&thing), kind.property),
        2 => format!("{} {}.", capital(kind.name), kind.property),
        _ => format!("The {member} is {}, so it {}.", kind.name, kind.property),
    }
}

/// An equation and its result.
pub(super) fn equation(rng: &mut StdRng) -> (u32, char, u32, u32) {
    match rng.random_range(0..5) {
        0 | 1 => {
            let (a, b) = (rng.random_range(1..=24), rng.random_range(1..=20));
            (a, '+', b, a + b)
        }
        2 | 3 => {
            let (b, rest) = (rng.random_range(1..=22), rng.random_range(0..=20));
            (b + rest, '-', b, rest)
        }
        _ => {
            let (a, b) = (rng.random_range(1..=9), rng.random_range(1..=9));
            (a, '*', b, a * b)
        }
    }
}

/// `task` in one of the templates, and the response to it.
pub(super) fn posed(rng: &mut StdRng, task: &str, response: &str) -> String {
    let template = if rng.random_bool(0.7) {
        Template::Alpaca
    } else {
        Template::Plain
    };
    template.prompt(task, "") + response
}
