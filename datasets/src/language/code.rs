//! Programming tasks with tests from HumanEval (Chen et al. 2021, arXiv 2107.03374) and MBPP (Austin et al. 2021, arXiv
//! 2108.07732), and coding instructions from CodeFeedback.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::language::records::{self, Record};
use crate::language::{Example, Examples, Template, TextError, example};

/// A benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Benchmark {
    /// Beginnings of Python functions, to be completed.
    HumanEval,
    /// Tasks described in words.
    Mbpp,
    /// Generated tasks, solved by an expression each.
    Sample,
}

/// A programming task.
#[derive(Debug, Clone, PartialEq)]
pub struct CodeTask {
    /// Name in files of samples.
    pub id: String,
    /// The benchmark.
    pub benchmark: Benchmark,
    /// The task: the beginning of a function (HumanEval), or a description (MBPP).
    pub prompt: String,
    /// Code before the completion.
    pub before: String,
    /// Code after the completion, which raises an exception if the program is wrong.
    pub after: String,
    /// The tests that are shown in the prompt (MBPP).
    pub shown: Vec<String>,
    /// The benchmark's own solution.
    pub solution: String,
    /// Arguments and results of calls, if the task is solved by an expression.
    pub cases: Vec<(Vec<i64>, i64)>,
}

impl CodeTask {
    /// The whole program that checks `completion`.
    pub fn program(&self, completion: &str) -> String {
        format!("{}{completion}\n{}", self.before, self.after)
    }
}

/// The tasks in a file of HumanEval (HumanEval.jsonl or .jsonl.gz) or MBPP (mbpp.jsonl or sanitized-mbpp.json).
///
/// # Errors
/// A file that cannot be read, a task that lacks a field, a name that occurs twice.
pub fn read(path: &Path) -> Result<Vec<CodeTask>, TextError> {
    let mut names = HashSet::new();
    records::read(path)?
        .iter()
        .map(|record| {
            let task = match record.has("test_list") {
                true => mbpp(record)?,
                false => human_eval(record)?,
            };
            match names.insert(task.id.clone()) {
                true => Ok(task),
                false => Err(record.error(format!("task '{}' occurs twice", task.id))),
            }
        })
        .collect()
}

fn human_eval(record: &Record) -> Result<CodeTask, TextError> {
    let entry_point = record.required("entry_point")?;
    let prompt = record.required("prompt")?;
    Ok(CodeTask {
        id: record.required("task_id")?,
        benchmark: Benchmark::HumanEval,
        before: prompt.clone(),
        after: format!("{}\ncheck({entry_point})", record.required("test")?),
        shown: Vec::new(),
        solution: record.text("canonical_solution")?.unwrap_or_default(),
        cases: Vec::new(),
        prompt,
    })
}

fn mbpp(record: &Record) -> Result<CodeTask, TextError> {
    // In the sanitized file, the text is called `prompt`, and a list of imports replaces the other file's setup code.
    let text = match record.value("text") {
        Some(_) => record.required("text")?,
        None => record.required("prompt")?,
    };
    let tests = lines(record, "test_list")?;
    if tests.is_empty() {
        return Err(record.error("field 'test_list' is empty".into()));
    }
    let mut after = lines(record, "test_imports")?;
    after.extend(record.text("test_setup_code")?.filter(|code| !code.trim().is_empty()));
    after.extend(tests.iter().cloned());
    Ok(CodeTask {
        id: format!("MBPP/{}", record.required("task_id")?),
        benchmark: Benchmark::Mbpp,
        prompt: text.trim().to_string(),
        before: String::new(),
        after: after.join("\n"),
        shown: tests,
        solution: record.text("code")?.unwrap_or_default().replace("\r\n", "\n"),
        cases: Vec::new(),
    })
}

/// The strings in a list; empty if it is absent.
fn lines(record: &Record, name: &str) -> Result<Vec<String>, TextError> {
    let wrong = || record.error(format!("field '{name}' is no list of strings"));
    match record.value(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(String::from).ok_or_else(wrong))
            .collect(),
        Some(_) => Err(wrong()),
    }
}

/// The last task that MBPP's authors reserve for prompts; the test set follows, up to [`MBPP_LAST`].
pub const MBPP_PROMPTS: u32 = 10;
/// The last task of MBPP's test set.
pub const MBPP_LAST: u32 = 510;

/// The number of a task of MBPP.
pub fn mbpp_number(task: &CodeTask) -> Option<u32> {
    task.id.strip_prefix("MBPP/")?.parse().ok()
}

/// Opens and closes a block of code.
const FENCE: &str = "```";

/// CodeFeedback by the LoRA-GA protocol: the examples whose answers contain a fenced block, in file order, with the
/// answer cut after the first block. Prompt and answer are joined by a space. Plain `instruction` and `output` are
/// read, too.
///
/// # Errors
/// A file that cannot be read or has no such example.
pub fn feedback(paths: &[PathBuf]) -> Result<Examples, TextError> {
    example::read_with(paths, &["query", "instruction", "answer", "output"], |record| {
        let named = |usual: &str, other: &str| match record.value(usual) {
            Some(_) => record.required(usual),
            None => record.required(other),
        };
        for (usual, other) in [("query", "instruction"), ("answer", "output")] {
            if record.value(usual).is_none() && record.value(other).is_none() {
                return Err(record.error(format!("no field '{usual}' (CodeFeedback's) or '{other}'")));
            }
        }
        let query = named("query", "instruction")?;
        let answer = named("answer", "output")?;
        Ok(Example::Completion {
            prompt: Template::Alpaca.prompt(&query, ""),
            // An answer without code is useless here and counts as empty.
            completion: first_block(&answer).map_or(String::new(), |answer| format!(" {answer}")),
        })
    })
}

/// `answer` up to the end of its first fenced block.
fn first_block(answer: &str) -> Option<&str> {
    let open = answer.find(FENCE)?;
    let inside = open + FENCE.len();
    let close = answer[inside..].find(FENCE)?;
    Some(&answer[..inside + close + FENCE.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn both_benchmarks_give_programs_that_check_themselves() {
        let line = r#"{"task_id": "HumanEval/0", "prompt": "def f(x):\n", "entry_point": "f", "canonical_solution": "    return x\n", "test": "def check(c):\n    assert c(1) == 1\n"}"#;
        let (_folder, path) = written("HumanEval.jsonl", line);
        let task = read(&path).unwrap().remove(0);
        assert_eq!(
            task.program("    return 1"),
            "def f(x):\n    return 1\ndef check(c):\n    assert c(1) == 1\n\ncheck(f)"
        );
        let item = r#"[{"task_id": 602, "prompt": "Write f.", "code": "def f():\r\n  return 1", "test_imports": ["import math"], "test_list": ["assert f() == 1", "assert f() < 2"]}]"#;
        let (_folder, path) = written("sanitized-mbpp.json", item);
        let task = read(&path).unwrap().remove(0);
        assert_eq!((task.id.as_str(), mbpp_number(&task)), ("MBPP/602", Some(602)));
        assert_eq!(
            task.program("CODE"),
            "CODE\nimport math\nassert f() == 1\nassert f() < 2"
        );
        assert!(!task.solution.contains('\r'));
    }

    #[test]
    fn compressed_files_are_read_too() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("HumanEval.jsonl.gz");
        let mut file = flate2::write::GzEncoder::new(std::fs::File::create(&path).unwrap(), Default::default());
        file.write_all(br#"{"task_id": "a", "prompt": "p", "entry_point": "f", "test": "t"}"#)
            .unwrap();
        file.finish().unwrap();
        assert_eq!(read(&path).unwrap().len(), 1);
        std::fs::write(&path, b"no gzip").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("HumanEval.jsonl.gz"));
    }

    #[test]
    fn a_task_without_a_field_or_with_a_name_twice_is_named_with_its_line() {
        let whole = r#"{"task_id": "a", "prompt": "p", "entry_point": "f", "test": "t"}"#;
        let message = |text: &str| {
            let (_folder, path) = written("a.jsonl", text);
            read(&path).unwrap_err().to_string()
        };
        assert!(message(&format!("{whole}\n{whole}\n")).ends_with("a.jsonl:2: task 'a' occurs twice"));
        assert!(message(&whole.replace("entry_point", "entry")).contains("a.jsonl:1: no field 'entry_point'"));
        let tests = r#"{"task_id": 1, "text": "t", "test_list": [1]}"#;
        assert!(message(tests).contains("a.jsonl:1: field 'test_list' is no list of strings"));
    }

    #[test]
    fn answers_are_cut_after_their_first_block_and_those_without_one_left_out() {
        let line = |answer: &str| serde_json::json!({ "query": "q", "answer": answer }).to_string();
        let text = [
            line("Here:\n```python\nx = 1\n```\nand\n```\ny\n```"),
            line("no code"),
            line("```open"),
        ]
        .join("\n");
        let (_folder, path) = written("a.jsonl", &text);
        let read = feedback(&[path]).unwrap();
        assert_eq!((read.examples.len(), read.empty), (1, 2));
        let Example::Completion { prompt, completion } = &read.examples[0] else {
            panic!("{:?}", read.examples)
        };
        assert!(prompt.ends_with("### Response:\n"));
        assert_eq!(completion, " Here:\n```python\nx = 1\n```");
        let (_folder, path) = written("b.jsonl", r#"{"q": 1}"#);
        assert!(
            feedback(&[path])
                .unwrap_err()
                .to_string()
                .contains("b.jsonl:1: no field 'query'")
        );
    }
}
