//! Prompts for a judge, in the format of FastChat's judge_prompts.jsonl. FastChat's file can replace the wording here.

use std::collections::BTreeMap;
use std::path::Path;

use datasets::language::records;

/// This project's own wording, used if no file is given.
const OWN: &str = include_str!("judge_prompts.jsonl");

/// FastChat's names of the prompts that are needed, and the fields of each.
const NEEDED: [(&str, &[&str]); 5] = [
    ("single-v1", &["question", "answer"]),
    ("single-math-v1", &["question", "ref_answer_1", "answer"]),
    (
        "single-v1-multi-turn",
        &["question_1", "answer_1", "question_2", "answer_2"],
    ),
    (
        "single-math-v1-multi-turn",
        &[
            "question_1",
            "ref_answer_1",
            "answer_1",
            "question_2",
            "ref_answer_2",
            "answer_2",
        ],
    ),
    ("pair-v2", &["question", "answer_a", "answer_b"]),
];

/// Prompts of a judge, by name.
#[derive(Debug, Clone)]
pub struct JudgePrompts(BTreeMap<String, (String, String)>);

impl JudgePrompts {
    /// The prompts in `path`; this project's own if there is no file or if the file lacks one.
    ///
    /// # Errors
    /// A file that cannot be read, a prompt that lacks a field or has an unknown field.
    pub fn read(path: Option<&Path>) -> Result<Self, String> {
        let mut prompts = BTreeMap::new();
        for line in OWN.lines() {
            let own: serde_json::Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
            let text = |name: &str| own[name].as_str().unwrap_or_default().to_string();
            prompts.insert(text("name"), (text("system_prompt"), text("prompt_template")));
        }
        let Some(path) = path else { return Ok(Self(prompts)) };
        for record in records::read(path).map_err(|e| e.to_string())? {
            let text = |name: &str| record.required(name).map_err(|e| e.to_string());
            let (name, system, template) = (text("name")?, text("system_prompt")?, text("prompt_template")?);
            // FastChat's file contains prompts for other purposes too.
            let Some((_, fields)) = NEEDED.iter().find(|(needed, _)| *needed == name) else {
                continue;
            };
            let values: Vec<(&str, &str)> = fields.iter().map(|field| (*field, "")).collect();
            filled(&template, &values).map_err(|message| record.error(message).to_string())?;
            if let Some(missing) = fields.iter().find(|field| !template.contains(&format!("{{{field}}}"))) {
                let message = format!("the prompt '{name}' has no {{{missing}}}, which the judge must see");
                return Err(record.error(message).to_string());
            }
            prompts.insert(name, (system, template));
        }
        Ok(Self(prompts))
    }

    /// System message and question of the prompt `name`, filled with `values`.
    ///
    /// # Errors
    /// A field that is not in `values`.
    pub fn filled(&self, name: &str, values: &[(&str, &str)]) -> Result<(String, String), String> {
        let (system, template) = self.0.get(name).ok_or_else(|| format!("no judge prompt '{name}'"))?;
        Ok((system.clone(), filled(template, values)?))
    }
}

/// `template` with each `{field}` replaced; double braces become single ones.
fn filled(template: &str, values: &[(&str, &str)]) -> Result<String, String> {
    let (mut text, mut rest) = (String::new(), template);
    while let Some(at) = rest.find(['{', '}']) {
        text += &rest[..at];
        let after = &rest[at + 1..];
        let brace = &rest[at..=at];
        if let Some(next) = after.strip_prefix(brace) {
            text += brace;
            rest = next;
            continue;
        }
        let name = after.split('}').next().unwrap_or_default();
        let value = values.iter().find(|(field, _)| brace == "{" && *field == name);
        let Some((_, value)) = value else {
            let names: Vec<&str> = values.iter().map(|(field, _)| *field).collect();
            return Err(format!(
                "the prompt has '{brace}{}'; it may have {{{}}} (write {{{{ for a brace)",
                name.chars().take(20).collect::<String>(),
                names.join("}, {")
            ));
        };
        text += value;
        rest = after.get(name.len() + 1..).unwrap_or_default();
    }
    Ok(text + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prompt_is_there_and_takes_what_it_is_filled_with() {
        let prompts = JudgePrompts::read(None).unwrap();
        for (name, fields) in NEEDED {
            let values: Vec<(&str, &str)> = fields.iter().map(|field| (*field, "VALUE")).collect();
            let (system, question) = prompts.filled(name, &values).unwrap();
            assert_eq!(question.matches("VALUE").count(), fields.len(), "{name}");
            assert!(!system.is_empty() && question.contains("[["), "{name}");
        }
    }

    #[test]
    fn a_file_is_read_and_a_wrong_field_in_it_named() {
        assert_eq!(filled("{a} {{x}} {a}", &[("a", "{b}")]).unwrap(), "{b} {x} {b}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prompts.jsonl");
        let line = |template: &str| {
            serde_json::json!({"name": "pair-v2", "system_prompt": "S", "prompt_template": template}).to_string()
        };
        std::fs::write(&path, line("{question}: {answer_a} or {answer_b}?")).unwrap();
        let prompts = JudgePrompts::read(Some(&path)).unwrap();
        let values = [("question", "q"), ("answer_a", "1"), ("answer_b", "2")];
        assert_eq!(
            prompts.filled("pair-v2", &values).unwrap(),
            ("S".into(), "q: 1 or 2?".into())
        );
        std::fs::write(&path, line("{query}")).unwrap();
        let message = JudgePrompts::read(Some(&path)).unwrap_err();
        assert!(
            message.contains("prompts.jsonl:1: the prompt has '{query'"),
            "{message}"
        );
    }
}
