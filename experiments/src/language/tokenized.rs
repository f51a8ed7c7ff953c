//! Tokenized examples, and what became of the others.

use crate::language::data::Sequence;

/// Tokenized examples, and counts of those that were truncated or left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tokenized {
    /// One for each usable example.
    pub sequences: Vec<Sequence>,
    /// Truncated to the maximum length, within the response.
    pub cut: usize,
    /// Left out because the prompt alone fills the maximum length.
    pub too_long: usize,
    /// Left out because of their length, on request.
    pub dropped: usize,
    /// Left out because the response is empty.
    pub empty: usize,
    /// Conversations, in the model's own chat template although other examples are instructions in another one.
    pub conversations: usize,
    /// Assistant turns that are not trained on, because the chat template rewrites them when more turns follow.
    pub lost_turns: usize,
    /// Left out because they cannot be tokenized.
    pub bad: usize,
    /// Reasons for the first few of those.
    pub reasons: Vec<String>,
}

/// Number of reasons that are printed.
pub(super) const MOST_REASONS: usize = 5;

impl Tokenized {
    /// A summary for the user, in one line.
    pub fn describe(&self) -> String {
        let total: usize = self.sequences.iter().map(|sequence| sequence.ids.len()).sum();
        let mut text = format!("{} examples, {total} tokens", self.sequences.len());
        for (count, what) in [
            (
                self.conversations,
                "of them conversations, in the model's own chat template",
            ),
            (self.cut, "cut at max_length"),
            (self.too_long, "dropped, their prompts longer than max_length"),
            (self.dropped, "dropped, of drop_longer tokens or more"),
            (self.empty, "dropped, their responses empty"),
            (
                self.lost_turns,
                "assistant turns not trained on, since the chat template rewrites them",
            ),
            (self.bad, "dropped"),
        ] {
            if count > 0 {
                text += &format!("; {count} {what}");
            }
        }
        if !self.reasons.is_empty() {
            text += &format!(" ({})", self.reasons.join("; "));
        }
        text
    }
}
