//! The first texts of a task with the model's predictions, for the report.

use datasets::glue::Label;

use crate::text::task::{Answer, Item, Part, TextTask};

/// Number of texts of a trial in the report.
const SHOWN: usize = 12;

/// The first texts of `part` with their predictions, as the report shows them.
pub fn samples(task: &TextTask, part: &Part, answers: &[Answer]) -> serde_json::Value {
    let spelled = |label: Label| match label {
        Label::Class(class) => task.labels.names()[class].clone(),
        Label::Score(score) => format!("{score:.2}"),
    };
    let sample = |(item, answer): (&Item, &Answer)| {
        let text = match &item.pair {
            Some(pair) => format!("{}\n{pair}", item.text),
            None => item.text.clone(),
        };
        let right = item.label.is_some_and(|label| match (label, answer.label) {
            (Label::Score(right), Label::Score(said)) => (right - said).abs() < 0.5,
            (right, said) => right == said,
        });
        serde_json::json!({
            "prompt": text,
            "output": spelled(answer.label),
            "gold": item.label.map(spelled),
            "correct": right,
        })
    };
    part.items.iter().zip(answers).take(SHOWN).map(sample).collect()
}
