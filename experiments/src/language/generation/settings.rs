//! How text is generated.

use serde::{Deserialize, Serialize};

/// Settings of a generation, named as transformers' `GenerationConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Generation {
    /// Maximum tokens after the prompt.
    pub max_new_tokens: usize,
    /// Beams; 1 for none.
    pub num_beams: usize,
    /// A beam's score is divided by its length raised to this power.
    pub length_penalty: f64,
    /// Logits are divided by this before sampling; 0 takes the most likely token instead.
    pub temperature: f64,
    /// Sample only from this many most likely tokens; 0 for all.
    pub top_k: usize,
    /// Sample only from the most likely tokens whose total probability reaches this value; 1 for all.
    pub top_p: f64,
    /// Positive logits of tokens that the text already contains are divided by this, negative ones multiplied; 1 for no
    /// penalty.
    pub repetition_penalty: f64,
    /// No sequence of this many tokens is repeated; 0 for no such limit.
    pub no_repeat_ngram_size: usize,
    /// Texts that end the generation; they are cut off.
    pub stop: Vec<String>,
    /// Seed for sampling.
    pub seed: u64,
}

impl Default for Generation {
    /// Greedy, 64 tokens.
    fn default() -> Self {
        Self {
            max_new_tokens: 64,
            num_beams: 1,
            length_penalty: 1.0,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
            stop: Vec::new(),
            seed: 42,
        }
    }
}

impl Generation {
    /// # Errors
    /// A field whose value is out of range, by name.
    pub fn check(&self) -> Result<(), String> {
        let wrong = |field: &str, value: &dyn std::fmt::Display, range: &str| {
            Err(format!("{field} is {value}; expected {range}"))
        };
        if self.max_new_tokens == 0 {
            return wrong("max_new_tokens", &0, "at least 1");
        }
        if self.num_beams == 0 {
            return wrong("num_beams", &0, "at least 1");
        }
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return wrong("temperature", &self.temperature, "0 (the most likely token) or more");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return wrong("top_p", &self.top_p, "more than 0, at most 1");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return wrong("repetition_penalty", &self.repetition_penalty, "more than 0");
        }
        if self.num_beams > 1 && self.temperature > 0.0 {
            return wrong(
                "temperature",
                &self.temperature,
                "0 with several beams, which do not sample",
            );
        }
        if self.stop.iter().any(String::is_empty) {
            return wrong("stop", &"an empty text", "a text");
        }
        Ok(())
    }
}
