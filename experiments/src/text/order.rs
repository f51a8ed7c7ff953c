//! The order of a model's labels where it is another than the task's: tasks from files have theirs in alphabetical order,
//! and a pretrained head has the order of its training.

use std::collections::HashMap;
use std::mem::replace;

use backbones::classify::{Labels, Problem};
use datasets::glue::Label;

use crate::text::task::Answer;

/// For each label of the task, its number among those of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order(Vec<usize>);

impl Order {
    /// The order of a model with the `own` labels for a task with `labels`, if both have the same names, maybe in other
    /// case: many models have ENTAILMENT where data has entailment.
    pub fn of(own: &Labels, labels: &Labels) -> Option<Self> {
        let classes = [own, labels]
            .iter()
            .all(|labels| labels.problem() != Problem::Regression);
        let (own, names) = (own.names(), labels.names());
        if !classes || own.len() != names.len() {
            return None;
        }
        let same = |spelled: fn(&str) -> String| -> Option<Self> {
            let numbers: HashMap<String, usize> = own.iter().map(|name| spelled(name)).zip(0..).collect();
            let order: Option<Vec<usize>> = names.iter().map(|name| numbers.get(&spelled(name)).copied()).collect();
            // Names that differ by case alone are not the same.
            let mut seen = vec![false; own.len()];
            let order = order.filter(|order| order.iter().all(|number| !replace(&mut seen[*number], true)));
            order.map(Self)
        };
        same(str::to_string).or_else(|| same(str::to_lowercase))
    }

    /// The task's `labels`, as they are spelled, in the model's order.
    ///
    /// # Errors
    /// Labels of another task.
    pub fn arranged(&self, labels: &Labels) -> Result<Labels, String> {
        let mut names = labels.names().to_vec();
        for (name, number) in labels.names().iter().zip(&self.0) {
            names[*number].clone_from(name);
        }
        Ok(Labels::new(names, labels.problem())?)
    }

    /// A label of the task as an output of the model.
    pub fn output(&self, label: Label) -> Label {
        match label {
            Label::Class(class) => Label::Class(self.0[class]),
            score => score,
        }
    }

    /// A prediction of the model with the task's numbers for labels.
    pub fn answer(&self, answer: Answer) -> Answer {
        let class = |output: usize| self.0.iter().position(|own| *own == output);
        let probabilities = self.0.iter().filter_map(|output| answer.probabilities.get(*output));
        Answer {
            label: match answer.label {
                Label::Class(output) => Label::Class(class(output).unwrap_or(output)),
                score => score,
            },
            probabilities: probabilities.copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(names: &[&str]) -> Labels {
        let names = names.iter().map(|name| (*name).into()).collect();
        Labels::new(names, Problem::SingleLabel).unwrap()
    }

    #[test]
    fn the_same_names_take_the_order_of_the_model_and_the_spelling_of_the_task() {
        let task = classes(&["contradiction", "entailment", "neutral"]);
        let order = Order::of(&classes(&["CONTRADICTION", "NEUTRAL", "ENTAILMENT"]), &task).unwrap();
        assert_eq!(order.0, [0, 2, 1]);
        let names = order.arranged(&task).unwrap();
        assert_eq!(names.names(), ["contradiction", "neutral", "entailment"]);
        let of = |own: &[&str], labels: &[&str]| Order::of(&classes(own), &classes(labels)).map(|order| order.0);
        assert_eq!(of(&["b", "a"], &["a", "b"]), Some(vec![1, 0]));
        // The same spelling counts first.
        assert_eq!(of(&["A", "a"], &["a", "A"]), Some(vec![1, 0]));
        for (own, labels) in [
            (["A", "a"].as_slice(), ["a", "b"].as_slice()),
            (&["a", "b"], &["A", "a"]),
            (&["a", "b", "c"], &["a", "b"]),
            (&["LABEL_0", "LABEL_1"], &["a", "b"]),
        ] {
            assert_eq!(of(own, labels), None, "{own:?} {labels:?}");
        }
        assert_eq!(Order::of(&Labels::regression(), &Labels::regression()), None);
    }

    #[test]
    fn what_is_given_to_the_model_comes_back() {
        let order = Order(vec![1, 2, 0]);
        assert_eq!(order.output(Label::Class(0)), Label::Class(1));
        assert_eq!(order.output(Label::Score(2.5)), Label::Score(2.5));
        for class in 0..3 {
            // All of the probability is at the output of that class.
            let Label::Class(output) = order.output(Label::Class(class)) else {
                panic!("a score");
            };
            let mut probabilities = vec![0.0; 3];
            probabilities[output] = 1.0;
            let back = order.answer(Answer {
                label: Label::Class(output),
                probabilities,
            });
            assert_eq!(back.label, Label::Class(class));
            assert_eq!(back.probabilities[class], 1.0);
        }
    }
}
