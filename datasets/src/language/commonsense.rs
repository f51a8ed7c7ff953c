//! The commonsense suite of LLM-Adapters (arXiv 2304.01933), as the WeGeFT paper uses it: eight sets in its files.

use std::path::{Path, PathBuf};

use crate::language::extraction::Protocol;
use crate::language::question::{Gold, Question};
use crate::language::{Example, Examples, TextError, example, records};

/// A set: name and folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set {
    /// Name in tables.
    pub name: &'static str,
    /// Folder under the data root, with test.json and sometimes train.json.
    pub folder: &'static str,
}

/// The eight sets, in the order in which the new code concatenates their training files.
pub const SETS: [Set; 8] = [
    set("BoolQ", "boolq"),
    set("PIQA", "piqa"),
    set("SIQA", "social_i_qa"),
    set("HellaSwag", "hellaswag"),
    set("WinoGrande", "winogrande"),
    set("ARC-e", "ARC-Easy"),
    set("ARC-c", "ARC-Challenge"),
    set("OBQA", "openbookqa"),
];

const fn set(name: &'static str, folder: &'static str) -> Set {
    Set { name, folder }
}

/// Training files under `root`, and the sets without one: the old code reads the 170k file, the new code the sets' own
/// files in order.
///
/// # Errors
/// No file at all.
pub fn train_files(root: &Path, protocol: Protocol) -> Result<(Vec<PathBuf>, Vec<&'static str>), TextError> {
    let own = |set: &Set| root.join(set.folder).join("train.json");
    let (files, missing): (Vec<PathBuf>, Vec<&str>) = match protocol {
        Protocol::Old => (vec![root.join("ft-training_set/commonsense_170k.json")], Vec::new()),
        Protocol::New => {
            let (there, not): (Vec<Set>, Vec<Set>) = SETS.iter().partition(|set| own(set).is_file());
            let files = there.iter().map(own).collect();
            (files, not.iter().map(|set| set.name).collect())
        }
    };
    match files.first() {
        Some(path) if path.is_file() => Ok((files, missing)),
        first => Err(TextError::read(
            first.unwrap_or(&own(&SETS[0])),
            "no such file; put it there, or name the training files with --train-file",
        )),
    }
}

/// Training examples in `files` with the targets of `protocol`; objects that lack a field are left out and counted.
///
/// # Errors
/// A file that cannot be read or has no examples.
pub fn train(files: &[PathBuf], protocol: Protocol) -> Result<Examples, TextError> {
    example::read_with(files, &["instruction", "output", "answer"], |record| {
        let (output, answer) = (record.required("output")?, record.required("answer")?);
        Ok(Example::Instruction {
            instruction: record.required("instruction")?,
            input: String::new(),
            output: protocol.commonsense_target(&output, &answer),
        })
    })
}

/// The test questions of `set` under `root`.
///
/// # Errors
/// A file that cannot be read, an object that lacks a field, an answer that is none of the options.
pub fn test(root: &Path, set: Set) -> Result<Vec<Question>, TextError> {
    records::read(&records::test_file(&root.join(set.folder)))?
        .into_iter()
        .map(|record| {
            let (instruction, answer) = (record.required("instruction")?, record.required("answer")?);
            let options = options(&instruction);
            if !options.contains(&answer) {
                return Err(record.error(format!(
                    "field 'answer' is '{answer}', which is none of the answer format's: {}",
                    options.join(", ")
                )));
            }
            Ok(Question {
                instruction,
                gold: Gold::Label(answer),
                options,
            })
        })
        .collect()
}

/// The labels of an instruction that ends with "Answer format: a/b/…".
pub fn options(instruction: &str) -> Vec<String> {
    const FORMAT: &str = "Answer format:";
    let Some(at) = instruction.rfind(FORMAT) else {
        return Vec::new();
    };
    let labels = instruction[at + FORMAT.len()..]
        .split('/')
        .map(|label| label.trim().to_string());
    labels.filter(|label| !label.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_from_the_answer_format() {
        let options = options("Which?\n\nOption1: a Option2: b Answer format: option1/option2");
        assert_eq!(options, ["option1", "option2"]);
        assert!(super::options("no format").is_empty());
    }

    #[test]
    fn files_are_read_as_they_are() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("boolq")).unwrap();
        let item = |answer: &str| {
            format!(
                "[{{\"instruction\": \"is it?\\n\\nAnswer format: true/false\", \"input\": \"\", \"output\": \"the correct answer is {answer}\", \"answer\": \"{answer}\"}}]"
            )
        };
        let file = root.path().join("boolq/test.json");
        std::fs::write(&file, item("true")).unwrap();
        let questions = test(root.path(), SETS[0]).unwrap();
        assert_eq!(questions[0].gold, Gold::Label("true".into()));
        assert!(
            questions[0]
                .judge("is it?\nthe correct answer is true", Protocol::New)
                .correct
        );
        let examples = train(std::slice::from_ref(&file), Protocol::Old).unwrap().examples;
        assert!(matches!(&examples[0], Example::Instruction { output, .. } if output == "the correct answer is true"));
        std::fs::write(&file, item("maybe")).unwrap();
        let message = test(root.path(), SETS[0]).unwrap_err().to_string();
        assert!(
            message.contains("test.json, item 1: field 'answer' is 'maybe'"),
            "{message}"
        );
        for (protocol, file) in [
            (Protocol::New, "boolq/train.json"),
            (Protocol::Old, "commonsense_170k.json"),
        ] {
            let missing = train_files(root.path(), protocol).unwrap_err().to_string();
            assert!(missing.contains(file) && missing.contains("--train-file"), "{missing}");
        }
        // The file of one set is enough; the others are reported.
        std::fs::write(root.path().join("boolq/train.json"), item("true")).unwrap();
        let (files, missing) = train_files(root.path(), Protocol::New).unwrap();
        assert_eq!((files.len(), missing.len(), missing[0]), (1, 7, "PIQA"));
    }
}
