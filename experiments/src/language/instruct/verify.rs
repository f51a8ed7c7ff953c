//! Instructions that a program verifies, and questions whose answers are only saved.

use std::sync::Arc;

use datasets::language::ifeval::{Followed, Prompt};
use datasets::language::instruct::Conversation;
use datasets::language::question::Verdict;
use datasets::language::sample::instructions::Instructed;
use serde_json::{Value, json};

use super::ask::Asker;
use crate::language::judge::{Asked, Judge, Judged, Measure};

fn all(kept: &[bool]) -> bool {
    kept.iter().all(|kept| *kept)
}

fn share(name: &str, kept: &[bool]) -> Measure {
    Measure {
        name: name.into(),
        value: kept.iter().filter(|kept| **kept).count() as f64,
        weight: kept.len() as f64,
    }
}

fn verdict(output: &str, correct: bool) -> Verdict {
    Verdict {
        extracted: Some(output.into()),
        correct,
    }
}

/// A prompt of IFEval: correct if every instruction is followed strictly.
struct Verifiable(Prompt);

impl Judge for Verifiable {
    fn gold(&self) -> String {
        let ids: Vec<&str> = self
            .0
            .instructions
            .iter()
            .map(|instruction| instruction.id.as_str())
            .collect();
        ids.join(", ")
    }

    fn judge(&self, _prompt: &str, output: &str) -> Verdict {
        verdict(output, all(&self.0.judge(output).strict))
    }

    fn judged(&self, _prompt: &str, output: &str) -> Result<Judged, String> {
        let followed = self.0.judge(output);
        Ok(Judged {
            verdict: verdict(output, all(&followed.strict)),
            details: json!({ "key": self.0.key, "strict": followed.strict, "loose": followed.loose }),
        })
    }

    fn measures(&self, samples: &[Judged]) -> Vec<Measure> {
        let first = samples.first().map(|sample| &sample.details);
        let followed: Option<Followed> = first.and_then(|details| serde_json::from_value(details.clone()).ok());
        followed.map_or(Vec::new(), |Followed { strict, loose }| {
            vec![
                share("instructions", &strict),
                share("loose", &[all(&loose)]),
                share("instructions loose", &loose),
            ]
        })
    }
}

/// An instruction of the sample.
struct Rules(Instructed);

impl Rules {
    fn kept(&self, output: &str) -> Vec<bool> {
        self.0.rules.iter().map(|rule| rule.is_kept(output)).collect()
    }
}

impl Judge for Rules {
    fn gold(&self) -> String {
        self.0.response.clone()
    }

    fn judge(&self, _prompt: &str, output: &str) -> Verdict {
        verdict(output, all(&self.kept(output)))
    }

    fn judged(&self, prompt: &str, output: &str) -> Result<Judged, String> {
        Ok(Judged {
            verdict: self.judge(prompt, output),
            details: json!({ "kept": self.kept(output) }),
        })
    }
}

/// A question that an external judge grades, with its second turn.
struct Written {
    gold: String,
    temperature: Option<f64>,
    turns: Vec<String>,
    asker: Arc<Asker>,
}

impl Judge for Written {
    fn gold(&self) -> String {
        self.gold.clone()
    }

    fn judge(&self, _prompt: &str, output: &str) -> Verdict {
        verdict(output, false)
    }

    fn judged(&self, prompt: &str, output: &str) -> Result<Judged, String> {
        Ok(Judged {
            verdict: self.judge(prompt, output),
            details: Value::Null,
        })
    }

    fn temperature(&self) -> Option<f64> {
        self.temperature
    }

    fn follow_up(&self, output: &str) -> Option<String> {
        if self.turns.len() < 2 {
            return None;
        }
        // The first turn's prompt was made by the same template.
        self.asker.prompt(&self.turns[..2], &[output.trim()]).ok()
    }

    fn judges(&self) -> bool {
        false
    }
}

/// IFEval's prompts as the model reads them.
///
/// # Errors
/// As [`Asker::prompt`].
pub fn ifeval(prompts: Vec<Prompt>, asker: &Asker) -> Result<Vec<Asked>, String> {
    let asked = prompts.into_iter().map(|prompt| {
        Ok(Asked {
            prompt: asker.prompt(std::slice::from_ref(&prompt.prompt), &[])?,
            options: None,
            judge: Arc::new(Verifiable(prompt)),
        })
    });
    asked.collect()
}

/// The sample's instructions as the model reads them.
///
/// # Errors
/// As [`Asker::prompt`].
pub fn sample(instructions: impl Iterator<Item = Instructed>, asker: &Asker) -> Result<Vec<Asked>, String> {
    let asked = instructions.map(|instructed| {
        Ok(Asked {
            prompt: asker.prompt(std::slice::from_ref(&instructed.instruction), &[])?,
            options: None,
            judge: Arc::new(Rules(instructed)) as Arc<dyn Judge>,
        })
    });
    asked.collect()
}

/// A prompt whose answer is only saved; `gold` is the reference for it.
///
/// # Errors
/// As [`Asker::prompt`].
pub fn written(instruction: String, gold: String, asker: &Arc<Asker>) -> Result<Asked, String> {
    let turns = vec![instruction];
    Ok(Asked {
        prompt: asker.prompt(&turns, &[])?,
        options: None,
        judge: Arc::new(Written {
            gold,
            temperature: None,
            turns,
            asker: asker.clone(),
        }),
    })
}

/// A question of MT-Bench with both turns.
///
/// # Errors
/// As [`Asker::prompt`].
pub fn conversation(question: &Conversation, asker: &Arc<Asker>) -> Result<Asked, String> {
    Ok(Asked {
        prompt: asker.prompt(&question.turns[..1], &[])?,
        options: None,
        judge: Arc::new(Written {
            gold: question.reference.join("\n\n"),
            temperature: Some(question.temperature()),
            turns: question.turns.clone(),
            asker: asker.clone(),
        }),
    })
}

#[cfg(test)]
mod tests {
    use datasets::language::Template;

    use super::*;

    #[test]
    fn a_conversation_goes_on_after_its_first_answer() {
        let asker = Arc::new(Asker::new(Template::Plain, None));
        let question = Conversation {
            id: 1,
            category: "math".into(),
            turns: vec!["a".into(), "b".into()],
            reference: Vec::new(),
        };
        let asked = conversation(&question, &asker).unwrap();
        assert_eq!((asked.prompt.as_str(), asked.judge.temperature()), ("a\n", Some(0.0)));
        assert_eq!(asked.judge.follow_up(" 1 ").as_deref(), Some("a\n1\n\nb\n"));
        let alone = written("a".into(), String::new(), &asker).unwrap();
        assert!(alone.judge.follow_up("1").is_none() && !alone.judge.judges());
    }
}
