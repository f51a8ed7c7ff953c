//! The arithmetic suite of LLM-Adapters (arXiv 2304.01933), as the WeGeFT paper uses it: Math10k and its test sets.

use std::path::{Path, PathBuf};

use crate::language::question::{Gold, Question};
use crate::language::{Examples, Fields, TextError, example, records};

/// A set: name, folder, kind of answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set {
    /// Name in tables.
    pub name: &'static str,
    /// Folder under the data root, with test.json.
    pub folder: &'static str,
    /// True if the answer is a letter from A to E.
    pub letter: bool,
    /// True if the set counts in the average. The others leak into Math10k through MAWPS, so the paper leaves them out.
    pub scored: bool,
}

/// The sets, the four scored ones first, in table order.
pub const SETS: [Set; 7] = [
    set("AQuA", "AQuA", true, true),
    set("GSM8K", "gsm8k", false, true),
    set("MAWPS", "mawps", false, true),
    set("SVAMP", "SVAMP", false, true),
    set("AddSub", "AddSub", false, false),
    set("MultiArith", "MultiArith", false, false),
    set("SingleEq", "SingleEq", false, false),
];

const fn set(name: &'static str, folder: &'static str, letter: bool, scored: bool) -> Set {
    Set {
        name,
        folder,
        letter,
        scored,
    }
}

/// Math10k under `root`; if it is missing, LLM-Adapters' smaller math_data.json.
///
/// # Errors
/// Neither file exists.
pub fn train_file(root: &Path) -> Result<PathBuf, TextError> {
    let [usual, smaller] = ["math_10k.json", "math_data.json"].map(|name| root.join("ft-training_set").join(name));
    match (usual.is_file(), smaller.is_file()) {
        (true, _) => Ok(usual),
        (false, true) => Ok(smaller),
        _ => Err(TextError::read(
            &usual,
            "no such file; put it there, or name the training files with --train-file",
        )),
    }
}

/// Training examples in `files`, with unchanged outputs; those with an empty output and objects without the expected
/// fields are left out and counted.
///
/// # Errors
/// A file that cannot be read or has no examples.
pub fn train(files: &[PathBuf]) -> Result<Examples, TextError> {
    example::read(files, &Fields::default())
}

/// The test questions of `set` under `root`.
///
/// # Errors
/// A file that cannot be read, an object that lacks a field, an answer of the wrong kind.
pub fn test(root: &Path, set: Set) -> Result<Vec<Question>, TextError> {
    records::read(&records::test_file(&root.join(set.folder)))?
        .into_iter()
        .map(|record| {
            let answer = record.required("answer")?;
            let trimmed = answer.trim();
            let gold = match set.letter {
                true => match trimmed.chars().next().filter(|letter| ('A'..='E').contains(letter)) {
                    Some(letter) => Gold::Letter(letter),
                    None => return Err(record.error(format!("field 'answer' is '{answer}', expected a letter A to E"))),
                },
                false => match trimmed.replace(',', "").parse() {
                    Ok(number) => Gold::Number(number),
                    Err(_) => return Err(record.error(format!("field 'answer' is '{answer}', expected a number"))),
                },
            };
            Ok(Question {
                instruction: record.required("instruction")?,
                gold,
                options: Vec::new(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Protocol;

    fn root(folder: &str, text: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join(folder)).unwrap();
        std::fs::write(root.path().join(folder).join("test.json"), text).unwrap();
        root
    }

    #[test]
    fn numbers_and_letters_are_judged() {
        let data = root(
            "mawps",
            r#"[{"instruction": "3 - 1.17?", "input": "", "output": "", "answer": "1.8333"}]"#,
        );
        let question = test(data.path(), SETS[2]).unwrap().remove(0);
        let judge = |text: &str| question.judge(&format!("### Response:\n{text}"), Protocol::New);
        assert!(judge("3 - 1.17 = 1.8333").correct);
        assert!(judge("it is 1.8339").correct, "within 0.001");
        assert!(!judge("it is 1.85").correct && judge("it is 1.85").extracted.as_deref() == Some("1.85"));
        assert!(judge("no idea").extracted.is_none());
        let data = root("AQuA", r#"[{"instruction": "q", "answer": "C"}]"#);
        let question = test(data.path(), SETS[0]).unwrap().remove(0);
        assert!(
            question
                .judge("### Response:\nThe answer is (C).", Protocol::New)
                .correct
        );
    }

    #[test]
    fn a_wrong_kind_of_answer_is_named() {
        let data = root("gsm8k", r#"[{"instruction": "q", "answer": "many"}]"#);
        let message = test(data.path(), SETS[1]).unwrap_err().to_string();
        assert!(
            message.contains("item 1: field 'answer' is 'many', expected a number"),
            "{message}"
        );
        let missing = train_file(data.path()).unwrap_err().to_string();
        assert!(
            missing.contains("math_10k.json") && missing.contains("--train-file"),
            "{missing}"
        );
    }
}
