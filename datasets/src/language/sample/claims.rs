//! Claims about the facts, half of them false: what kind of thing something is, what it has or does, what it is used
//! for.

use rand::Rng;
use rand::rngs::StdRng;

use super::facts::{KINDS, Kind, TRAINED, TRAINED_USES, USES, with_article};

/// The things about which claims are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Things {
    /// All things, for pretraining text.
    All,
    /// Things in the suite's training questions.
    Trained,
    /// Things in its test questions.
    Others,
}

/// A true or false claim about a thing.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// As a statement: "a robin has feathers".
    pub statement: String,
    /// As a question: "does a robin have feathers".
    pub question: String,
    /// Whether it is true.
    pub truth: bool,
}

impl Claim {
    /// The claim that a thing is of a kind.
    pub fn of_kind(rng: &mut StdRng, things: Things, truth: bool) -> Self {
        let (thing, kind) = thing_and_kind(rng, things, truth);
        Self {
            statement: format!("{thing} is {}", kind.name),
            question: format!("is {thing} {}", kind.name),
            truth,
        }
    }

    /// The claim that a thing has or does what its kind has or does.
    pub fn of_property(rng: &mut StdRng, things: Things, truth: bool) -> Self {
        let (thing, kind) = thing_and_kind(rng, things, truth);
        Self {
            statement: format!("{thing} {}", kind.property),
            question: format!("{} {thing} {}", kind.question[0], kind.question[1]),
            truth,
        }
    }

    /// The claim that a thing serves a purpose.
    pub fn of_use(rng: &mut StdRng, things: Things, truth: bool) -> Self {
        let uses = match things {
            Things::All => &USES[..],
            Things::Trained => &USES[..TRAINED_USES],
            Things::Others => &USES[TRAINED_USES..],
        };
        let own = rng.random_range(0..uses.len());
        let thing = with_article(uses[own].1);
        let (goal, _) = uses[named(rng, own, uses.len(), truth)];
        let (statement, question) = match rng.random_bool(0.5) {
            true => (
                format!("{thing} is used to {goal}"),
                format!("is {thing} used to {goal}"),
            ),
            false => (
                format!("{thing} helps to {goal}"),
                format!("does {thing} help to {goal}"),
            ),
        };
        Self {
            statement,
            question,
            truth,
        }
    }

    /// Any claim about any thing.
    pub(super) fn any(rng: &mut StdRng) -> Self {
        let truth = rng.random_bool(0.5);
        match rng.random_range(0..3) {
            0 => Self::of_kind(rng, Things::All, truth),
            1 => Self::of_property(rng, Things::All, truth),
            _ => Self::of_use(rng, Things::All, truth),
        }
    }
}

/// A member of some kind, and that kind if `truth`, otherwise another one.
fn thing_and_kind(rng: &mut StdRng, things: Things, truth: bool) -> (String, &'static Kind) {
    let own = rng.random_range(0..KINDS.len());
    let members = match things {
        Things::All => &KINDS[own].members[..],
        Things::Trained => &KINDS[own].members[..TRAINED],
        Things::Others => &KINDS[own].members[TRAINED..],
    };
    let thing = with_article(members[rng.random_range(0..members.len())]);
    (thing, &KINDS[named(rng, own, KINDS.len(), truth)])
}

/// `own` for a true claim, another index below `count` for a false one.
fn named(rng: &mut StdRng, own: usize, count: usize, truth: bool) -> usize {
    match truth {
        true => own,
        false => (own + rng.random_range(1..count)) % count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    /// Whether the facts support it, and whether the thing is in the training questions.
    fn looked_up(statement: &str) -> (bool, bool) {
        for kind in &KINDS {
            for (at, member) in kind.members.iter().enumerate() {
                if let Some(said) = statement.strip_prefix(&format!("{} ", with_article(member))) {
                    return (
                        said == format!("is {}", kind.name) || said == kind.property,
                        at < TRAINED,
                    );
                }
            }
        }
        for (at, (goal, thing)) in USES.iter().enumerate() {
            if let Some(said) = statement.strip_prefix(&format!("{} ", with_article(thing))) {
                let own = [format!("is used to {goal}"), format!("helps to {goal}")];
                return (own.iter().any(|own| said == own), at < TRAINED_USES);
            }
        }
        panic!("{statement} is about nothing in the facts");
    }

    #[test]
    fn what_is_claimed_is_as_true_as_the_facts_say_and_about_the_things_asked_for() {
        let mut rng = StdRng::seed_from_u64(3);
        for make in [Claim::of_kind, Claim::of_property, Claim::of_use] {
            for (things, trained) in [(Things::Trained, true), (Things::Others, false)] {
                for truth in [true, false] {
                    for _ in 0..200 {
                        let claim = make(&mut rng, things, truth);
                        assert_eq!(claim.truth, truth);
                        assert_eq!(looked_up(&claim.statement), (truth, trained), "{claim:?}");
                    }
                }
            }
        }
    }
}
