//! The benchmarks' own answer files, their judgement, and judgements that were made elsewhere.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use datasets::language::instruct::{Compared as Baseline, Conversation, MT_BENCH_TURNS};
use datasets::language::records;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::grading::{Asking, Grader, grade, mean, preference};
use super::length_control::{Compared, Gamed, win_rate};
use crate::cli::output::tell;
use crate::cli::shipped::hex;
use crate::language::corpus::Aftermath;
use crate::language::evaluation::Answer;
use crate::run::files::replace;
use crate::run::outcome::RunError;

/// The name of the model whose answers are in `folder`: its method, with the seed if there are several.
pub fn model_name(folder: &Path) -> String {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match (name(folder), folder.parent()) {
        (seed, Some(method)) if seed.starts_with("seed-") => format!("{}-{seed}", name(method)),
        (method, _) => method,
    }
}

fn write(path: &Path, text: &str) -> Result<(), RunError> {
    replace(path, text.as_bytes()).map_err(RunError::Failed)
}

/// Writes `prompt` and `response` in JSON lines, as IFEval's own program reads them.
///
/// # Errors
/// A file that cannot be written.
pub fn ifeval(path: &Path, prompts: &[String], answers: &[Answer]) -> Result<(), RunError> {
    let lines = answers.iter().filter_map(|answer| {
        let prompt = prompts.get(answer.index)?;
        Some(format!("{}\n", json!({ "prompt": prompt, "response": answer.output })))
    });
    write(path, &lines.collect::<String>())
}

/// Writes model_outputs.json, as AlpacaEval reads it.
///
/// # Errors
/// A file that cannot be written.
pub fn alpaca_eval(path: &Path, asked: &[Baseline], answers: &[Answer], model: &str) -> Result<(), RunError> {
    let items = answers.iter().filter_map(|answer| {
        let asked = asked.get(answer.index)?;
        Some(json!({
            "dataset": asked.dataset,
            "instruction": asked.instruction,
            "output": answer.output.trim(),
            "generator": model,
        }))
    });
    let items: Vec<Value> = items.collect();
    let text = serde_json::to_string_pretty(&items).map_err(|e| RunError::Failed(e.to_string()))?;
    write(path, &text)
}

/// Writes an answer file in FastChat's format.
///
/// # Errors
/// A file that cannot be written.
pub fn mt_bench(path: &Path, asked: &[Conversation], answers: &[Answer], model: &str) -> Result<(), RunError> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |time| time.as_secs_f64());
    let lines = answers.iter().filter_map(|answer| {
        let question = asked.get(answer.index)?;
        let turns = turns(answer);
        let id = hex(&Sha256::digest(
            format!("{model}/{}/{}", question.id, turns.join("\n")).as_bytes(),
        ));
        let line = json!({
            "question_id": question.id,
            "answer_id": &id[..22],
            "model_id": model,
            "choices": [{ "index": 0, "turns": turns }],
            "tstamp": now,
        });
        Some(format!("{line}\n"))
    });
    write(path, &lines.collect::<String>())
}

/// The model's answer in each turn.
fn turns(answer: &Answer) -> Vec<&str> {
    let second = answer.follow_up.as_ref().map(|turn| turn.output.trim());
    std::iter::once(answer.output.trim()).chain(second).collect()
}

/// FastChat's single-answer grading of each turn, 1 to 10.
///
/// # Errors
/// As [`Grader::grades`].
pub fn grade_turns(
    grader: &Grader,
    path: &Path,
    asked: &[Conversation],
    answers: &[Answer],
) -> Result<Aftermath, RunError> {
    let mut askings = Vec::new();
    for answer in answers {
        let Some(question) = asked.get(answer.index) else {
            continue;
        };
        let reference = |turn: usize| question.reference.get(turn).map_or("", String::as_str);
        let math = question.needs_reference() && !question.reference.is_empty();
        for (turn, said) in turns(answer).into_iter().enumerate() {
            let name = match (math, turn) {
                (false, 0) => "single-v1",
                (true, 0) => "single-math-v1",
                (false, _) => "single-v1-multi-turn",
                (true, _) => "single-math-v1-multi-turn",
            };
            let values = [
                ("question", question.turns[0].as_str()),
                ("answer", said),
                ("question_1", &question.turns[0]),
                ("answer_1", answer.output.trim()),
                ("question_2", question.turns.get(1).map_or("", String::as_str)),
                ("answer_2", said),
                ("ref_answer_1", reference(0)),
                ("ref_answer_2", reference(1)),
            ];
            let (system, question_text) = grader.prompts.filled(name, &values).map_err(RunError::Failed)?;
            askings.push(Asking {
                key: format!("{}/{}", question.id, turn + 1),
                system,
                question: question_text,
            });
        }
    }
    Ok(turn_scores(&grader.grades(path, &askings, grade)?))
}

/// The means of the grades, keyed by `question/turn`: over all, over the first turns, over the second turns.
fn turn_scores(grades: &BTreeMap<String, Option<f64>>) -> Aftermath {
    let of = |turn: &str| {
        mean(
            grades
                .iter()
                .filter(|(key, _)| key.ends_with(turn))
                .map(|(_, grade)| grade),
        )
    };
    let (value, missing) = mean(grades.values());
    if missing > 0 {
        tell(format_args!(
            "  {missing} answers have no grade and are left out of the means"
        ));
    }
    let turns = [("turn 1", of("/1").0), ("turn 2", of("/2").0)];
    Aftermath {
        value,
        further: turns
            .iter()
            .filter_map(|(name, value)| Some((name.to_string(), (*value)?)))
            .collect(),
    }
}

/// The comparison of each answer with the baseline's, in both orders.
///
/// # Errors
/// As [`Grader::grades`]; a prompt without a baseline's answer.
pub fn compare(
    grader: &Grader,
    path: &Path,
    asked: &[Baseline],
    answers: &[Answer],
    gamed: Option<&Gamed>,
) -> Result<Aftermath, RunError> {
    let mut askings = Vec::new();
    for answer in answers {
        let Some(prompt) = asked.get(answer.index) else {
            continue;
        };
        let baseline = prompt.output.as_deref().ok_or_else(|| {
            RunError::Failed(format!(
                "prompt {} has no baseline answer to compare with; give --baseline FILE, a model_outputs.json",
                answer.index + 1
            ))
        })?;
        let own = answer.output.trim();
        for (order, first, second) in [("ab", baseline, own), ("ba", own, baseline)] {
            let values = [
                ("question", prompt.instruction.as_str()),
                ("answer_a", first),
                ("answer_b", second),
            ];
            let (system, question) = grader.prompts.filled("pair-v2", &values).map_err(RunError::Failed)?;
            askings.push(Asking {
                key: format!("{}/{order}", answer.index),
                system,
                question,
            });
        }
    }
    let found = grader.grades(path, &askings, preference)?;
    // In the second order B is the baseline.
    let of = |index: usize| {
        let [ab, ba] = ["ab", "ba"].map(|order| found.get(&format!("{index}/{order}")).copied().flatten());
        let both = [ab, ba.map(|preference| 1.0 - preference)];
        mean(both.iter()).0
    };
    let preferences: BTreeMap<usize, Option<f64>> =
        answers.iter().map(|answer| (answer.index, of(answer.index))).collect();
    rates(&preferences, asked, answers, gamed)
}

/// Win rate and length-controlled win rate of preferences by prompt.
fn rates(
    preferences: &BTreeMap<usize, Option<f64>>,
    asked: &[Baseline],
    answers: &[Answer],
    gamed: Option<&Gamed>,
) -> Result<Aftermath, RunError> {
    let (value, missing) = mean(preferences.values());
    if missing > 0 {
        tell(format_args!(
            "  {missing} comparisons have no verdict and are left out of the rates"
        ));
    }
    let compared = answers.iter().filter_map(|answer| {
        Some(Compared {
            index: answer.index,
            preference: (*preferences.get(&answer.index)?)?,
            baseline: asked.get(answer.index)?.output.as_ref()?.chars().count(),
            length: answer.output.trim().chars().count(),
        })
    });
    let compared: Vec<Compared> = compared.collect();
    let controlled = win_rate(&compared, gamed).map_err(RunError::Failed)?;
    Ok(Aftermath {
        value: value.map(|value| 100.0 * value),
        further: controlled
            .map(|rate| ("length-controlled".into(), rate))
            .into_iter()
            .collect(),
    })
}

/// Turns of MT-Bench's conversations.
const TURNS: std::ops::RangeInclusive<u64> = 1..=MT_BENCH_TURNS as u64;

/// Judgements that were made elsewhere: FastChat's grades of MT-Bench, or AlpacaEval's annotations.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    records: Vec<records::Record>,
}

impl Elsewhere {
    /// Reads the file.
    ///
    /// # Errors
    /// A file that cannot be read, or that has neither format.
    pub fn read(path: &Path) -> Result<Self, String> {
        let records = records::read(path).map_err(|e| e.to_string())?;
        let known =
            |record: &&records::Record| record.fields.contains_key("preference") || record.fields.contains_key("score");
        match records.iter().find(|record| !known(record)) {
            None => Ok(Self { records }),
            Some(record) => Err(record
                .error(
                    "expected a field 'score' (FastChat's judgements) or 'preference' (AlpacaEval's annotations)"
                        .into(),
                )
                .to_string()),
        }
    }

    /// The judgements of `model`: those that name it, or all if none of them names another model.
    fn of<'a>(&'a self, model: &'a str, name: &'a str) -> impl Iterator<Item = &'a records::Record> {
        self.records.iter().filter(move |record| {
            let named = record.value(name).and_then(Value::as_str);
            named.is_none_or(|named| named == model)
        })
    }

    /// Grades of MT-Bench.
    ///
    /// # Errors
    /// A judgement of an unknown question, a score that is not a number, no judgement of this model.
    pub fn grades(&self, asked: &[Conversation], model: &str) -> Result<Aftermath, RunError> {
        let mut grades = BTreeMap::new();
        let scored = self
            .of(model, "model")
            .filter(|record| record.fields.contains_key("score"));
        for record in scored {
            let failed = |message: String| RunError::Failed(record.error(message).to_string());
            let id = record.value("question_id").and_then(Value::as_u64);
            let id = id.filter(|id| asked.iter().any(|question| question.id == *id));
            let id =
                id.ok_or_else(|| failed("field 'question_id' is not the id of a question of the benchmark".into()))?;
            let score = record.value("score").and_then(Value::as_f64);
            let score = score.ok_or_else(|| failed("field 'score' is not a number".into()))?;
            // FastChat writes -1 if the judge gave no grade.
            if score != -1.0 && !(0.0..=10.0).contains(&score) {
                return Err(failed(format!(
                    "field 'score' is {score}; grades are from 0 to 10, or -1 for none"
                )));
            }
            let turn = record.value("turn").map_or(Some(1), Value::as_u64);
            let turn = turn.filter(|turn| TURNS.contains(turn));
            let turn = turn.ok_or_else(|| failed("field 'turn' is neither 1 nor 2".into()))?;
            let key = format!("{id}/{turn}");
            if grades.insert(key, (score >= 0.0).then_some(score)).is_some() {
                return Err(failed(format!(
                    "question {id}, turn {turn} is graded twice; leave one grade"
                )));
            }
        }
        if grades.is_empty() {
            return Err(RunError::Failed(format!(
                "--judge-file has no grade for model '{model}'"
            )));
        }
        // A turn that nobody graded has no grade, as one that the judge left without.
        for question in asked {
            for turn in TURNS.take(question.turns.len()) {
                grades.entry(format!("{}/{turn}", question.id)).or_insert(None);
            }
        }
        Ok(turn_scores(&grades))
    }

    /// Preferences of AlpacaEval: 1 for the baseline, 2 for the model, between them if the judge is uncertain, 0 for a
    /// tie.
    ///
    /// # Errors
    /// An annotation of an unknown instruction, a preference out of range, no annotation of this model.
    pub fn preferences(
        &self,
        asked: &[Baseline],
        answers: &[Answer],
        model: &str,
        gamed: Option<&Gamed>,
    ) -> Result<Aftermath, RunError> {
        let mut preferences = BTreeMap::new();
        let compared = self
            .of(model, "generator_2")
            .filter(|record| record.fields.contains_key("preference"));
        for record in compared {
            let failed = |message: String| RunError::Failed(record.error(message).to_string());
            let instruction = record
                .required("instruction")
                .map_err(|e| RunError::Failed(e.to_string()))?;
            let at = asked.iter().position(|asked| asked.instruction == instruction);
            let at = at.ok_or_else(|| failed("field 'instruction' is not an instruction of the benchmark".into()))?;
            let preference = match record.value("preference").map(Value::as_f64) {
                None => None,
                Some(Some(0.0)) => Some(0.5),
                Some(Some(value)) if (1.0..=2.0).contains(&value) => Some(value - 1.0),
                Some(_) => return Err(failed("field 'preference' is not 0 (a tie) or from 1 to 2".into())),
            };
            if preferences.insert(at, preference).is_some() {
                return Err(failed(
                    "this instruction is annotated twice; leave one annotation".into(),
                ));
            }
        }
        if preferences.is_empty() {
            return Err(RunError::Failed(format!(
                "--judge-file has no annotation for model '{model}'"
            )));
        }
        for answer in answers {
            preferences.entry(answer.index).or_insert(None);
        }
        rates(&preferences, asked, answers, gamed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_s_name_has_its_seed_where_there_are_several() {
        assert_eq!(model_name(Path::new("runs/x/wegeft")), "wegeft");
        assert_eq!(model_name(Path::new("runs/x/wegeft/seed-43")), "wegeft-seed-43");
    }

    #[test]
    fn judgements_made_elsewhere_are_read_in_both_forms() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("judgements.jsonl");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Elsewhere::read(&path)
        };
        let question = Conversation {
            id: 81,
            category: "writing".into(),
            turns: vec!["a".into(), "b".into()],
            reference: Vec::new(),
        };
        let asked = [question];
        let line = |id: u32, turn: u32, score: f64| {
            json!({"question_id": id, "model": "wegeft", "turn": turn, "score": score}).to_string() + "\n"
        };
        let other = "{\"question_id\": 1, \"model\": \"lora\", \"turn\": 1, \"score\": 1}\n";
        let elsewhere = read(&(line(81, 1, 8.0) + &line(81, 2, 6.0) + other)).unwrap();
        let found = elsewhere.grades(&asked, "wegeft").unwrap();
        assert_eq!(found.value, Some(7.0));
        assert_eq!(
            found.further,
            [("turn 1".to_string(), 8.0), ("turn 2".to_string(), 6.0)]
        );
        for (lines, part) in [
            (line(81, 1, 99.0), "field 'score' is 99"),
            (line(81, 9, 8.0), "field 'turn'"),
            (line(81, 1, 8.0) + &line(81, 1, 7.0), "graded twice"),
        ] {
            let refused = read(&lines).unwrap().grades(&asked, "wegeft").unwrap_err().to_string();
            assert!(refused.contains(part), "{refused}");
        }
        let half = read(&line(81, 1, 8.0)).unwrap().grades(&asked, "wegeft").unwrap();
        assert_eq!((half.value, half.further.len()), (Some(8.0), 1));
        let message = elsewhere.grades(&asked, "dora").unwrap_err().to_string();
        assert!(message.contains("no grade for model 'dora'"), "{message}");
        let message = read(&line(9, 1, 8.0))
            .unwrap()
            .grades(&asked, "wegeft")
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("judgements.jsonl:1: field 'question_id' is not the id of a question"),
            "{message}"
        );
        assert!(
            read("{\"x\": 1}")
                .unwrap_err()
                .contains("judgements.jsonl:1: expected a field 'score'")
        );
        let annotated = read("[{\"instruction\": \"a\", \"preference\": 2.5}]").unwrap();
        let asked = [Baseline {
            instruction: "a".into(),
            dataset: String::new(),
            output: Some("x".into()),
            generator: "b".into(),
        }];
        let message = annotated.preferences(&asked, &[], "m", None).unwrap_err().to_string();
        assert!(message.contains("item 1: field 'preference'"), "{message}");
    }
}
