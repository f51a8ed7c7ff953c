//! A conversation as training data: rendered once, tokenized once, and the tokens that the assistant says found in it.

use std::ops::Range;

use super::chat::{Chat, Conversation, Rendered, Rendering};
use super::error::ChatError;
use super::limits::watched;
use crate::lm::tokenizer::LmTokenizer;

/// The tokens of a conversation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatTokens {
    /// All of them, as `generate` reads them.
    pub ids: Vec<u32>,
    /// For each, whether the assistant says it: the target tokens of training.
    pub targets: Vec<bool>,
    /// Turns of the assistant whose tokens are among the targets.
    pub turns: usize,
    /// Turns of the assistant that cannot be located, because the template rewrites earlier turns.
    pub lost: usize,
}

/// The tokens of `conversation` by `tokenizer` and its compiled templates. The targets are what the template's
/// `generation` tags enclose; in a template without such tags, each turn of the assistant with the token that ends it. Turns whose
/// message index `learned` rejects are left out.
///
/// # Errors
/// A template or tokenizer that fails.
pub fn chat_tokens(
    tokenizer: &LmTokenizer,
    chat: &Chat,
    conversation: &Conversation,
    learned: impl Fn(usize) -> bool,
) -> Result<ChatTokens, ChatError> {
    let role = |message: &serde_json::Value| message.get("role")?.as_str().map(|role| role == "assistant");
    let assistant = conversation.messages.iter().enumerate();
    let assistant: Vec<usize> = assistant
        .filter(|(_, message)| role(message) == Some(true))
        .map(|(index, _)| index)
        .collect();
    let all = assistant.iter().all(|index| learned(*index));
    let wanted: Vec<bool> = assistant.iter().map(|index| learned(*index)).collect();
    let said: Vec<Said> = assistant
        .iter()
        .map(|index| Said {
            index: *index,
            content: content(&conversation.messages[*index]).map(String::from),
        })
        .collect();
    let rendering = chat.rendering(conversation)?;
    let (rendered, spans, lost) = watched(rendering.budget.memory, move || {
        let rendered = rendering.render(usize::MAX, false)?;
        let tagged = &rendered.generated;
        let (spans, lost) = if !tagged.is_empty() && (all || tagged.len() == said.len()) {
            let spans = tagged.iter().zip(&wanted).filter(|(_, wanted)| **wanted);
            let chosen = spans.map(|(span, _)| span.clone()).collect();
            (if all { tagged.clone() } else { chosen }, 0)
        } else {
            let said = said.iter().zip(&wanted).filter(|(_, wanted)| **wanted);
            turns(&rendering, said.map(|(said, _)| said), &rendered)?
        };
        Ok((rendered, spans, lost))
    })?;
    // The template writes the special tokens itself.
    let encoded = tokenizer.encoded(&rendered.text, false)?;
    Ok(ChatTokens {
        targets: overlapping(&encoded.bytes, &spans),
        ids: encoded.ids,
        turns: spans.len(),
        lost,
    })
}

/// For each token, whether its bytes overlap one of `spans`; both in order.
fn overlapping(tokens: &[Range<usize>], spans: &[Range<usize>]) -> Vec<bool> {
    let mut spans = spans.iter().peekable();
    let overlaps = |token: &Range<usize>| {
        while spans.next_if(|span| span.end <= token.start).is_some() {}
        spans.peek().is_some_and(|span| token.end > span.start)
    };
    tokens.iter().map(overlaps).collect()
}

/// A message of the assistant.
struct Said {
    index: usize,
    content: Option<String>,
}

/// The turns `wanted` in the text of a whole conversation, and the number of those that are not found.
fn turns<'a>(
    rendering: &Rendering,
    wanted: impl Iterator<Item = &'a Said>,
    whole: &Rendered,
) -> Result<(Vec<Range<usize>>, usize), ChatError> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut lost = 0;
    let part = |end: usize, open: bool| rendering.render(end, open).map(|rendered| rendered.text);
    for Said { index, content } in wanted {
        // A template may refuse a part of a conversation, though not the whole.
        let span = match (part(*index, true), part(index + 1, false)) {
            (Ok(before), Ok(with)) => turn(&whole.text, &before, &with, content.as_deref()),
            (Err(error), _) | (_, Err(error)) if is_limit(&error) => return Err(error),
            _ => None,
        };
        match span.filter(|span| span.start >= found.last().map_or(0, |last| last.end)) {
            Some(span) => found.push(span),
            None => lost += 1,
        }
    }
    Ok((found, lost))
}

/// True for an error that other parts of the conversation would end in too.
fn is_limit(error: &ChatError) -> bool {
    matches!(error, ChatError::Limit(_) | ChatError::GivenUp(_))
}

/// Bytes of a turn in `whole`. `before`: the conversation up to where the turn starts; `with`: and with the turn.
fn turn(whole: &str, before: &str, with: &str, content: Option<&str>) -> Option<Range<usize>> {
    let start = before.len();
    let rest = whole.strip_prefix(before)?;
    if let (true, Some(_)) = (whole.starts_with(with), with.strip_prefix(before)) {
        return Some(start..with.len()).filter(|span| !span.is_empty());
    }
    // Written otherwise when more follows (Qwen 3 leaves out the thoughts of earlier turns): its text, and what ends it.
    let content = content.map(str::trim).filter(|content| !content.is_empty())?;
    let said = rest.find(content).filter(|at| rest[..*at].trim().is_empty())? + content.len();
    let ending = &with[with.rfind(content)? + content.len()..];
    rest[said..]
        .starts_with(ending)
        .then(|| start..start + said + ending.len())
}

/// The text of a message, if it is one.
fn content(message: &serde_json::Value) -> Option<&str> {
    message.get("content")?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_touch_a_span_are_targets() {
        let tokens = [0..2, 2..4, 4..4, 4..6, 6..9, 9..9, 9..12];
        let expected = [false, true, true, true, true, false, false];
        assert_eq!(overlapping(&tokens, &[3..6, 6..8]), expected);
        assert_eq!(overlapping(&tokens, &[]), [false; 7]);
    }

    #[test]
    fn a_turn_is_found_where_it_was_written_otherwise() {
        let whole = "U:a A:one. U:b A:<t></t>two.";
        assert_eq!(turn(whole, "U:a A:", "U:a A:<t></t>one.", Some("one")), Some(6..10));
        assert_eq!(
            turn(whole, "U:a A:one. U:b A:", whole, Some("two")),
            Some(17..whole.len())
        );
        assert_eq!(turn(whole, "U:a A:", "U:a A:<t>x</t>1.", Some("1")), None);
        assert_eq!(turn(whole, "odd", "odd one", Some("one")), None);
    }
}
