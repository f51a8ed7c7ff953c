//! How a task becomes a prompt, and which part of the output is the program.

use std::sync::LazyLock;

use datasets::language::CodeTask;
use datasets::language::code::Benchmark;
use regex::Regex;

/// Ways to ask for a program.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// As the authors of the benchmarks do: the model continues code (HumanEval), or the task follows solved ones
    /// (MBPP).
    Completion {
        /// Solved tasks that precede a task of MBPP.
        shots: Vec<CodeTask>,
    },
    /// As an instruction, with the LoRA-GA protocol's post-processing.
    Instruction,
}

/// Ends a completed function: the start of something else without indentation (arXiv 2107.03374, section 2.2).
const AFTER_FUNCTION: [&str; 5] = ["\nclass", "\ndef", "\n#", "\nif", "\nprint"];

/// Ends a program after solved tasks (arXiv 2108.07732, section 3.1).
const DONE: &str = "[DONE]";

impl Form {
    /// The whole prompt that the model reads.
    pub fn prompt(&self, task: &CodeTask) -> String {
        match (self, task.benchmark) {
            (Self::Instruction, Benchmark::HumanEval) => instruction(&task.prompt),
            (Self::Instruction, Benchmark::Mbpp) => instruction(&asked(task)),
            (Self::Completion { shots }, Benchmark::Mbpp) => {
                let solved = shots.iter().map(|shot| {
                    let solution = shot.solution.trim_end();
                    format!("{}\n[BEGIN]\n{solution}\n{DONE}\n\n", expert(shot))
                });
                let solved: String = solved.collect();
                format!("{solved}{}\n[BEGIN]\n", expert(task))
            }
            (Self::Completion { .. }, Benchmark::HumanEval) | (_, Benchmark::Sample) => task.prompt.clone(),
        }
    }

    /// Texts that end an output.
    pub fn stop(&self, benchmark: Benchmark) -> Vec<String> {
        let texts: &[&str] = match (self, benchmark) {
            (_, Benchmark::Sample) => &["\n"],
            (Self::Instruction, _) => &[],
            (Self::Completion { .. }, Benchmark::HumanEval) => &AFTER_FUNCTION,
            (Self::Completion { .. }, Benchmark::Mbpp) => &[DONE],
        };
        texts.iter().map(|text| text.to_string()).collect()
    }

    /// The program in `output`.
    pub fn program(&self, output: &str, benchmark: Benchmark) -> String {
        match (self, benchmark) {
            (Self::Instruction, Benchmark::HumanEval | Benchmark::Mbpp) => processed(output),
            (Self::Completion { .. }, _) | (_, Benchmark::Sample) => output.to_string(),
        }
    }
}

/// The prompt of MBPP's authors for a task.
fn expert(task: &CodeTask) -> String {
    format!(
        "You are an expert Python programmer, and here is your task: {}",
        asked(task)
    )
}

fn asked(task: &CodeTask) -> String {
    format!(
        "{} Your code should pass these tests:\n\n{}\n",
        task.prompt,
        task.shown.join("\n")
    )
}

/// A task as an instruction: the parts of the LoRA-GA protocol's prompt, in our own words. Its first two sentences are
/// separated by a line break and a space.
fn instruction(task: &str) -> String {
    format!(
        "Below is an instruction that describes a task.\n Write a response that appropriately completes the \
         request.\n\n### Instruction:\nComplete the following Python code:\nNotes: write the whole function, its definition \
         included.\nWrite no comments and be as concise as possible.\nUse built-in libraries only, and no imports but those \
         that are given.\nIndent by 4 spaces a level.\n\ncode:\n```python\n{}\n```\n\n### Response:\n```python\n",
        task.trim_end()
    )
}

static DOCUMENTATION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"(?s)""".*?"""|'''.*?'''"#).expect("a valid pattern"));

/// The LoRA-GA protocol's post-processing: removes fences, docstrings and blank lines, and re-indents each line by 4
/// spaces per indentation level. Lines that are not indented deeper than the first `def` have level 0.
pub fn processed(output: &str) -> String {
    let text = output.replace("```", "").replace('\t', "    ");
    let text = DOCUMENTATION.replace_all(&text, "");
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect();
    let indentation = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let first = lines.iter().find(|line| line.contains("def"));
    let margin = first.map_or(0, |line| indentation(line));
    let mut deeper: Vec<usize> = lines
        .iter()
        .map(|line| indentation(line))
        .filter(|width| *width > margin)
        .collect();
    deeper.sort_unstable();
    deeper.dedup();
    let indented = lines.iter().map(|line| {
        let width = indentation(line);
        let rank = match width <= margin {
            true => 0,
            false => 1 + deeper.partition_point(|other| *other < width),
        };
        format!("{}{}", "    ".repeat(rank), line.trim_start_matches(' '))
    });
    indented.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_brought_to_the_protocol_s_form() {
        let output =
            "python\n  def f(x):\n\t\"\"\"Says\n nothing.\"\"\"\n\n     y = 1  \n         return y\n```\nText.";
        assert_eq!(
            processed(output),
            "python\ndef f(x):\n    y = 1\n        return y\nText."
        );
        assert_eq!(processed("x = '''a'''\n  y\n"), "x =\n    y");
        assert_eq!(processed(""), "");
    }

    #[test]
    fn prompts_are_the_benchmarks_own() {
        let task = |benchmark| CodeTask {
            id: "t".into(),
            benchmark,
            prompt: "def f(x):\n".into(),
            before: String::new(),
            after: String::new(),
            shown: vec!["assert f(1) == 1".into()],
            solution: "def f(x):\n  return x\n".into(),
            cases: Vec::new(),
        };
        let shots = Form::Completion {
            shots: vec![task(Benchmark::Mbpp)],
        };
        assert_eq!(shots.prompt(&task(Benchmark::HumanEval)), "def f(x):\n");
        let prompt = shots.prompt(&task(Benchmark::Mbpp));
        assert_eq!(prompt.matches("[BEGIN]\n").count(), 2);
        assert!(prompt.contains("tests:\n\nassert f(1) == 1\n\n[BEGIN]\ndef f(x):\n  return x\n[DONE]\n\nYou are"));
        assert!(prompt.ends_with("[BEGIN]\n"));
        assert_eq!(shots.stop(Benchmark::Mbpp), ["[DONE]"]);
        let prompt = Form::Instruction.prompt(&task(Benchmark::HumanEval));
        assert!(prompt.contains("task.\n Write") && prompt.ends_with("### Response:\n```python\n"));
        assert!(Form::Instruction.stop(Benchmark::HumanEval).is_empty());
    }
}
