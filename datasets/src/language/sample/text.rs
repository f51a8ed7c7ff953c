//! Pretraining text for the small language model: facts, true and false claims (`asking.rs`), short stories with sums,
//! a few simple instructions, questions about earlier text (`reading.rs`), and sentences with the other words of the
//! suites, because a word that never occurs in pretraining has no useful embedding. It contains none of the suites'
//! question forms.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::facts::{COUNTED, NAMES, USES, with_article};
use super::parts::{capital, equation, fact, kind, pick, posed};
use super::{asking, reading};

/// Document number `index` of the stream of `seed`.
pub fn document(seed: u64, index: u64) -> String {
    let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index));
    let rng = &mut rng;
    match rng.random_range(0..32) {
        0..=1 => several(rng, 4, fact),
        2..=4 => several(rng, 4, usage),
        5..=7 => several(rng, 6, asking::answered),
        8..=10 => several(rng, 4, asking::judged),
        11..=16 => asking::instruction(rng),
        17..=19 => several(rng, 6, sum),
        20..=22 => several(rng, 2, story),
        23..=24 => reading::recall(rng),
        25..=26 => reading::worked(rng),
        27 => several(rng, 5, phrase),
        28..=29 => reading::instruction(rng),
        _ => instruction(rng),
    }
}

fn several(rng: &mut StdRng, count: usize, make: fn(&mut StdRng) -> String) -> String {
    let parts: Vec<String> = (0..count).map(|_| make(rng)).collect();
    parts.join(" ")
}

fn usage(rng: &mut StdRng) -> String {
    let (goal, thing) = USES[rng.random_range(0..USES.len())];
    let name = pick(rng, &NAMES);
    match rng.random_range(0..4) {
        0 => format!("To {goal}, use the {thing}."),
        1 => format!("{name} took the {thing} to {goal}."),
        2 => format!("What is the {thing} for? To {goal}."),
        _ => format!("{} is used to {goal}.", capital(&with_article(thing))),
    }
}

/// Sentences without facts.
const PHRASES: [&str; 24] = [
    "Here is the question and here is the answer.",
    "The answer to the question was correct.",
    "Please read the following question and answer it.",
    "Please answer with true or false.",
    "He had to choose, and the solution was correct.",
    "She gave the correct answer to each question.",
    "There were many questions but one answer.",
    "The format of the answer was false.",
    "Answer or question, true or false, format or solution.",
    "In this format, the answer comes after the question.",
    "The correct solution is to choose the correct answer.",
    "How do you answer a question?",
    "Which one do you choose?",
    "How many are there now?",
    "How many does he have left in all?",
    "The name of the solution is in the following sentence.",
    "Then the boxes were in each box.",
    "Now there is one more box with one more thing.",
    "The answer: true. The question: false.",
    "Complete the sentence with the correct word.",
    "The one that is correct is the solution to the question.",
    "A: yes. A: no.",
    "Use it now and then use it more.",
    "Please choose one to complete the following format.",
];

fn phrase(rng: &mut StdRng) -> String {
    let (name, things) = (pick(rng, &NAMES), pick(rng, &COUNTED));
    match rng.random_range(0..8) {
        0 => format!("{name} finds {things} and has more {things} now."),
        1 => format!("{name} loses {things}. How many does {name} have?"),
        2 => format!("{name} gives away the {things} and has none left."),
        3 => format!("Then {name} has boxes with {things} in each box."),
        _ => pick(rng, &PHRASES).to_string(),
    }
}

fn sum(rng: &mut StdRng) -> String {
    let (a, sign, b, result) = equation(rng);
    format!("{a} {sign} {b} = {result}.")
}

fn story(rng: &mut StdRng) -> String {
    let (name, things) = (pick(rng, &NAMES), pick(rng, &COUNTED));
    let (a, sign, b, result) = equation(rng);
    match sign {
        '+' => match rng.random_bool(0.5) {
            true => format!("{name} had {a} {things} and got {b} more. So {name} had {a} + {b} = {result} {things}."),
            false => format!(
                "There were {a} {things}. {name} brought {b} {things}. In all there were {a} + {b} = {result} {things}."
            ),
        },
        '-' => match rng.random_bool(0.5) {
            true => format!(
                "{name} had {a} {things} and sold {b} of them. So {name} had {a} - {b} = {result} {things} left."
            ),
            false => format!(
                "There were {a} {things}. {name} took away {b} {things}. Then there were {a} - {b} = {result} {things} left."
            ),
        },
        _ => {
            format!("{name} filled {a} boxes with {b} {things} each. In all there were {a} * {b} = {result} {things}.")
        }
    }
}

/// Instructions without the suites' phrasing: to repeat a word, to count, to name a kind.
fn instruction(rng: &mut StdRng) -> String {
    let own = kind(rng);
    let word = pick(rng, &own.members);
    let (task, response) = match rng.random_range(0..4) {
        0 => (format!("Say the word {word}."), word.to_string()),
        1 => {
            let from = rng.random_range(1..=30);
            let numbers: Vec<String> = (from..from + 4).map(|n: u32| n.to_string()).collect();
            (format!("Count on from {from}."), numbers.join(" "))
        }
        2 => (
            format!("What kind of thing is {}?", with_article(word)),
            capital(own.name) + ".",
        ),
        _ => {
            let (a, sign, b, result) = equation(rng);
            (
                format!("What is {a} {sign} {b}?"),
                format!("{a} {sign} {b} = {result}."),
            )
        }
    };
    posed(rng, &task, &response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_none_of_the_suites_forms() {
        for index in 0..2000 {
            let text = document(1, index);
            for form in [
                "Answer format:",
                "the correct answer is",
                "The answer is",
                "answer the following question with true or false",
            ] {
                assert!(!text.contains(form), "{text}");
            }
        }
    }
}
