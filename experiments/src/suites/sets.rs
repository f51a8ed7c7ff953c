//! The test sets of the two language suites: choice of sets and number of questions.

use std::path::{Path, PathBuf};

use datasets::language::published::Row;
use datasets::language::records::test_file;
use datasets::language::{Question, Template, sample};

use crate::cli::output::tell;
use crate::language::corpus::{Corpus, ReadExamples};
use crate::language::judge::{Asked, TestSet};
use crate::language::settings::SuiteSettings;
use crate::report::layout::Layout;

/// Additional help text of both suites.
pub const SUITE_MORE: &str = "\
With neither --model nor --data it runs on generated questions with the small model that ships with the program, and \
with its own settings: methods none, lora and wegeft, ranks of 16 and 8, a learning rate of 0.005.

The run folder contains config.toml, summary.json, report.html and, for each method, metrics.jsonl, checkpoints/, \
adapter/ (Hugging Face PEFT's layout) and a file of answers per test set. Running the same command again continues the \
run, even in the middle of a test set.";

/// The questions of a test set, as they were read.
pub struct TestQuestions {
    /// Name in tables.
    pub name: String,
    /// All its questions.
    pub questions: Vec<Question>,
    /// Whether it counts in the average.
    pub scored: bool,
    /// The file that they were read from.
    pub file: PathBuf,
}

impl TestQuestions {
    /// The first `test_limit` questions, as a model reads them.
    fn asked(self, settings: &SuiteSettings) -> Result<TestSet, String> {
        let protocol = settings.protocol();
        let limit = settings.data.test_limit.unwrap_or(usize::MAX);
        let questions = self.questions.into_iter().take(limit);
        Ok(TestSet {
            name: self.name,
            questions: questions.map(|question| Asked::extracted(question, protocol)).collect(),
            scored: self.scored,
            metric: "accuracy",
        })
    }
}

/// The corpus of a suite, from files.
///
/// # Errors
/// An unknown protocol.
pub fn of_files(
    tests: Vec<TestQuestions>,
    examples: ReadExamples,
    mut files: Vec<PathBuf>,
    template: Template,
    settings: &SuiteSettings,
) -> Result<Corpus, String> {
    let root = settings.data.data.clone().unwrap_or_default();
    files.extend(tests.iter().map(|set| set.file.clone()));
    Ok(Corpus {
        name: String::new(),
        place: Some(root.display().to_string()),
        examples,
        template,
        sets: tests
            .into_iter()
            .map(|set| set.asked(settings))
            .collect::<Result<_, _>>()?,
        files,
        evaluation: Some(settings.evaluation.clone()),
    })
}

/// The corpus of a suite, generated; every set is scored.
///
/// # Errors
/// Settings with an unknown set or with training files.
pub fn of_sample(sample: sample::Suite, template: Template, settings: &SuiteSettings) -> Result<Corpus, String> {
    if !settings.data.train_file.is_empty() {
        return Err(
            "--train-file needs --data, the folder with the test sets: the generated sample has its own training \
             questions"
                .into(),
        );
    }
    let names: Vec<&str> = sample.sets.iter().map(|(name, _)| name.as_str()).collect();
    let picked: Vec<String> = chosen(&settings.data.task, &names)?
        .into_iter()
        .map(String::from)
        .collect();
    let train = sample.train;
    let sets = sample.sets.into_iter().filter(|(name, _)| picked.contains(name));
    let asked = sets.map(|(name, questions)| {
        let set = TestQuestions {
            name,
            questions,
            scored: true,
            file: PathBuf::new(),
        };
        set.asked(settings)
    });
    Ok(Corpus {
        name: String::new(),
        place: None,
        examples: Box::new(move || Ok(train.clone().into())),
        template,
        sets: asked.collect::<Result<_, _>>()?,
        files: Vec::new(),
        evaluation: Some(settings.evaluation.clone()),
    })
}

/// The layout of the suite's results, with `published` rows that have values for the sets in `of`.
pub fn layout(corpus: &Corpus, published: Option<&'static [Row]>, of: impl Iterator<Item = &'static str>) -> Layout {
    let scored = corpus.sets.iter().filter(|set| set.scored);
    Layout::Sets {
        scored: scored.map(|set| set.name.clone()).collect(),
        published: published.unwrap_or_default(),
        published_sets: of.collect(),
    }
}

/// The names in `known` that `asked` contains; all of them for `all`.
///
/// # Errors
/// An unknown name.
pub fn chosen<'a>(asked: &[String], known: &[&'a str]) -> Result<Vec<&'a str>, String> {
    if asked.iter().any(|name| name == "all") {
        return Ok(known.to_vec());
    }
    asked
        .iter()
        .map(|name| {
            let found = known.iter().find(|known| known.eq_ignore_ascii_case(name));
            found
                .copied()
                .ok_or_else(|| format!("set '{name}' is unknown; there are: {}", known.join(", ")))
        })
        .collect()
}

/// The `sets` (name and folder) that are named in `asked` and have test questions under `root`. For `all`, sets without
/// questions are reported and left out.
///
/// # Errors
/// An unknown name, a named set without questions, no questions at all.
pub fn with_questions<'a>(asked: &[String], sets: &[(&'a str, &str)], root: &Path) -> Result<Vec<&'a str>, String> {
    let names: Vec<&str> = sets.iter().map(|(name, _)| *name).collect();
    let picked = chosen(asked, &names)?;
    let (there, missing): (Vec<&str>, Vec<&str>) = picked.into_iter().partition(|name| {
        let folder = sets
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, folder)| root.join(folder));
        folder.is_some_and(|folder| test_file(&folder).is_file())
    });
    let all = asked.iter().any(|name| name == "all");
    match missing.is_empty() || (all && !there.is_empty()) {
        true if missing.is_empty() => Ok(there),
        true => {
            tell(format_args!(
                "no test.json of {}: not evaluated, not in the average",
                missing.join(", ")
            ));
            Ok(there)
        }
        false => Err(format!(
            "{} holds no test.json of {}; expected it in the folder {}",
            root.display(),
            missing.join(", "),
            sets.iter()
                .find(|(name, _)| *name == missing[0])
                .map_or("", |(_, folder)| folder)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_without_questions_are_left_out_of_all_and_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        let sets = [("A", "a"), ("B", "b")];
        let asked = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
            with_questions(&names, &sets, root.path())
        };
        assert!(asked(&["all"]).unwrap_err().contains("no test.json of A, B"));
        std::fs::create_dir(root.path().join("b")).unwrap();
        std::fs::write(root.path().join("b/test.json"), "[]").unwrap();
        assert_eq!(asked(&["all"]).unwrap(), ["B"]);
        assert_eq!(asked(&["b"]).unwrap(), ["B"]);
        assert!(asked(&["B", "A"]).unwrap_err().contains("in the folder a"));
        assert!(asked(&["C"]).unwrap_err().contains("there are: A, B"));
    }
}
