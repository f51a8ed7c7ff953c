//! Text with facts that are asked for later: who had what, and what follows from it. A varying amount of other text
//! lies between, so that a model learns to find the word wherever it is, and not to count tokens back.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::facts::{COUNTED, NAMES};
use super::parts::{equation, fact, pick, posed};

/// Somebody and what they had.
struct Owner {
    name: &'static str,
    number: u32,
    things: &'static str,
}

impl Owner {
    fn said(&self) -> String {
        format!("{} had {} {}.", self.name, self.number, self.things)
    }
}

fn owners(rng: &mut StdRng) -> Vec<Owner> {
    let count = rng.random_range(2..=4);
    let names: Vec<&'static str> = NAMES.choose_multiple(rng, count).copied().collect();
    let owned = names.into_iter().map(|name| Owner {
        name,
        number: rng.random_range(1..=40),
        things: pick(rng, &COUNTED),
    });
    owned.collect()
}

/// Up to two unrelated facts.
pub(super) fn aside(rng: &mut StdRng) -> String {
    (0..rng.random_range(0..=2)).map(|_| fact(rng) + " ").collect()
}

/// What some people had, and questions about it.
pub(super) fn recall(rng: &mut StdRng) -> String {
    let mut owners = owners(rng);
    let said: Vec<String> = owners.iter().map(Owner::said).collect();
    let aside = aside(rng);
    owners.shuffle(rng);
    let asked = owners.iter().take(rng.random_range(1..=3)).map(|owner| {
        let Owner { name, number, things } = owner;
        match rng.random_range(0..4) {
            0 => format!("So {name} had {number} {things}."),
            1 => format!("Who had {number} {things}? {name}."),
            2 => format!("What did {name} have? {number} {things}."),
            _ => owner.said(),
        }
    });
    let asked: Vec<String> = asked.collect();
    format!("{} {aside}{}", said.join(" "), asked.join(" "))
}

/// What happened to somebody's things, and the resulting sums, one per step.
fn happened(rng: &mut StdRng) -> (String, String, Vec<String>) {
    let (name, things) = (pick(rng, &NAMES), pick(rng, &COUNTED));
    let (a, sign, b, result) = equation(rng);
    let mut sums = vec![format!("{a} {sign} {b} = {result}")];
    let mut told = match sign {
        '+' => format!("{name} had {a} {things} and got {b} more {things}"),
        '-' => format!("{name} had {a} {things} and sold {b} {things}"),
        _ => format!("{name} filled {a} bags with {b} {things} in every bag"),
    };
    if result > 1 && rng.random_bool(0.4) {
        let sold = rng.random_range(1..result.min(20));
        sums.push(format!("{result} - {sold} = {}", result - sold));
        told += &format!(". Later {name} sold {sold} {things}");
    }
    (told + ".", format!("{name} had"), sums)
}

/// A story, some other text, and the sums of the story.
pub(super) fn worked(rng: &mut StdRng) -> String {
    let (told, had, sums) = happened(rng);
    format!("{told} {}So {had} {}.", aside(rng), sums.join(", then "))
}

/// An instruction about a text that it quotes, and the response.
pub(super) fn instruction(rng: &mut StdRng) -> String {
    let (task, response) = match rng.random_range(0..4) {
        0 => {
            let owners = owners(rng);
            let said: Vec<String> = owners.iter().map(Owner::said).collect();
            let owner = &owners[rng.random_range(0..owners.len())];
            (
                format!("{} What did {} have?", said.join(" "), owner.name),
                format!("{} {}.", owner.number, owner.things),
            )
        }
        1 => {
            let (told, ..) = happened(rng);
            (format!("Repeat this: {told}"), told)
        }
        _ => {
            let (told, had, sums) = happened(rng);
            let task = match rng.random_bool(0.5) {
                true => format!("{told} Write the sums."),
                false => format!("Work it out: {told}"),
            };
            (task, format!("{had} {}.", sums.join(", then ")))
        }
    };
    posed(rng, &task, &response)
}
