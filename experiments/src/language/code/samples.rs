//! Files of samples in HumanEval's own format (JSON lines with `task_id` and `completion`), which its checker reads
//! too.

use std::collections::BTreeMap;
use std::path::Path;

use datasets::language::records;
use serde_json::json;

use crate::language::evaluation::Answer;
use crate::run::files::replace;

/// Writes the samples in `answers`, one answer for each of `tasks`, in order.
///
/// # Errors
/// A file that cannot be written.
pub fn write(path: &Path, tasks: &[String], answers: &[Answer]) -> Result<(), String> {
    let mut lines = String::new();
    for answer in answers {
        let task = tasks.get(answer.index).ok_or("an answer is to no task")?;
        for completion in answer.extracted() {
            lines += &format!("{}\n", json!({ "task_id": task, "completion": completion }));
        }
    }
    replace(path, lines.as_bytes())
}

/// The samples of a file, grouped by task in the file's order. `known` tells whether a task exists.
///
/// # Errors
/// A file that cannot be read, a line without one of the fields, an unknown task, a file without samples.
pub fn read(path: &Path, known: impl Fn(&str) -> bool) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut samples: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in records::read(path).map_err(|e| e.to_string())? {
        let text = |name: &str| record.required(name).map_err(|e| e.to_string());
        let (mut task, completion) = (text("task_id")?, text("completion")?);
        // In MBPP's own files, names are numbers.
        if !known(&task) && known(&format!("MBPP/{task}")) {
            task = format!("MBPP/{task}");
        }
        if !known(&task) {
            return Err(record
                .error(format!("task '{task}' is none of the benchmark's"))
                .to_string());
        }
        samples.entry(task).or_default().push(completion);
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_by_task_and_wrong_ones_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.jsonl");
        let read_text = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(&path, |task| ["HumanEval/0", "MBPP/11"].contains(&task))
        };
        let text = "{\"task_id\": \"HumanEval/0\", \"completion\": \"a\"}\n{\"task_id\": 11, \"completion\": \"\"}\n\
                    {\"task_id\": \"HumanEval/0\", \"completion\": \"b\"}\n";
        let samples = read_text(text).unwrap();
        assert_eq!(samples["HumanEval/0"], ["a", "b"]);
        assert_eq!(samples["MBPP/11"], [""]);
        let message = read_text("{\"task_id\": \"x\", \"completion\": \"a\"}").unwrap_err();
        assert!(
            message.ends_with("samples.jsonl:1: task 'x' is none of the benchmark's"),
            "{message}"
        );
        let message = read_text("{\"task_id\": \"HumanEval/0\"}").unwrap_err();
        assert!(message.contains("samples.jsonl:1: no field 'completion'"), "{message}");
    }
}
