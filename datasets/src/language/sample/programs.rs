//! Small programming tasks: a function of one number, told as a story. The shipped model knows such stories with
//! concrete numbers and their sums; it learns to write them as code.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::facts::{COUNTED, NAMES};
use crate::language::code::{Benchmark, CodeTask};
use crate::language::{Example, Template};

/// Tasks for training and testing.
#[derive(Debug, Clone, PartialEq)]
pub struct Programs {
    /// Training examples.
    pub train: Vec<Example>,
    /// Name and tasks of each test set; no task is a training example.
    pub sets: Vec<(String, Vec<CodeTask>)>,
}

/// A function: its story, its expression, and its value at `x`.
struct Function {
    story: String,
    expression: String,
    value: Box<dyn Fn(i64) -> i64>,
}

/// Generates a random function.
type Make = fn(&mut StdRng) -> Function;

const SETS: [(&str, Make); 3] = [("one-step", one_step), ("two-step", two_step), ("groups", groups)];

/// Tasks per test set.
const TASKS: usize = 60;
/// Training examples of the same kind.
const EXAMPLES: usize = 450;

/// The line that a program begins with.
const DEF: &str = "def f(x):\n";

/// 1,350 training examples and three sets of 60 tasks.
pub fn programs() -> Programs {
    let mut rng = StdRng::seed_from_u64(164);
    let (mut train, mut sets) = (Vec::new(), Vec::new());
    for (name, make) in SETS {
        let mut asked = HashSet::new();
        let mut tasks = Vec::new();
        while tasks.len() < TASKS {
            let function = make(&mut rng);
            if asked.insert(function.story.clone()) {
                tasks.push(task(&format!("{name}/{}", tasks.len()), function));
            }
        }
        let mut made = 0;
        while made < EXAMPLES {
            let function = make(&mut rng);
            if !asked.contains(&function.story) {
                train.push(Example::Completion {
                    prompt: prompt(&function.story),
                    completion: body(&function.expression),
                });
                made += 1;
            }
        }
        sets.push((name.to_string(), tasks));
    }
    train.shuffle(&mut rng);
    Programs { train, sets }
}

fn prompt(story: &str) -> String {
    Template::Alpaca.prompt(story, "") + DEF
}

fn body(expression: &str) -> String {
    format!("    return {expression}")
}

fn task(id: &str, function: Function) -> CodeTask {
    let cases: Vec<(Vec<i64>, i64)> = [40, 55, 73].map(|x| (vec![x], (function.value)(x))).to_vec();
    let tests: Vec<String> = cases
        .iter()
        .map(|(x, y)| format!("assert f({}) == {y}", x[0]))
        .collect();
    CodeTask {
        id: id.into(),
        benchmark: Benchmark::Sample,
        prompt: prompt(&function.story),
        before: DEF.into(),
        after: tests.join("\n"),
        shown: Vec::new(),
        solution: body(&function.expression),
        cases,
    }
}

fn actors(rng: &mut StdRng) -> (&'static str, &'static str) {
    (
        NAMES[rng.random_range(0..NAMES.len())],
        COUNTED[rng.random_range(0..COUNTED.len())],
    )
}

fn one_step(rng: &mut StdRng) -> Function {
    let (name, things) = actors(rng);
    let a = rng.random_range(1..=30i64);
    match rng.random_bool(0.5) {
        true => Function {
            story: format!("{name} had x {things} and got {a} more {things}."),
            expression: format!("x + {a}"),
            value: Box::new(move |x| x + a),
        },
        false => Function {
            story: format!("{name} had x {things} and sold {a} {things}."),
            expression: format!("x - {a}"),
            value: Box::new(move |x| x - a),
        },
    }
}

fn two_step(rng: &mut StdRng) -> Function {
    let first = one_step(rng);
    let name = first.story.split(' ').next().unwrap_or_default();
    let things = first.story.trim_end_matches('.').rsplit(' ').next().unwrap_or_default();
    let b = rng.random_range(1..=20i64);
    let (told, sign) = match rng.random_bool(0.5) {
        true => (format!("Later {name} got {b} {things}."), '+'),
        false => (format!("Later {name} sold {b} {things}."), '-'),
    };
    let before = first.value;
    Function {
        story: format!("{} {told}", first.story),
        expression: format!("{} {sign} {b}", first.expression),
        value: Box::new(move |x| before(x) + if sign == '+' { b } else { -b }),
    }
}

fn groups(rng: &mut StdRng) -> Function {
    let (name, things) = actors(rng);
    let (a, b) = (rng.random_range(2..=12i64), rng.random_range(1..=20i64));
    match rng.random_bool(0.5) {
        true => Function {
            story: format!("{name} filled x bags with {a} {things} in every bag."),
            expression: format!("x * {a}"),
            value: Box::new(move |x| x * a),
        },
        false => Function {
            story: format!("{name} filled x bags with {a} {things} in every bag. Later {name} sold {b} {things}."),
            expression: format!("x * {a} - {b}"),
            value: Box::new(move |x| x * a - b),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_distinct_and_none_is_trained_on() {
        let made = programs();
        assert_eq!(made, programs());
        let trained: HashSet<&String> = made
            .train
            .iter()
            .map(|example| match example {
                Example::Completion { prompt, .. } => prompt,
                other => panic!("{other:?} is no completion"),
            })
            .collect();
        for (name, tasks) in &made.sets {
            let distinct: HashSet<&String> = tasks.iter().map(|task| &task.prompt).collect();
            assert_eq!(distinct.len(), TASKS, "{name}");
            assert!(distinct.iter().all(|prompt| !trained.contains(*prompt)), "{name}");
        }
    }
}
