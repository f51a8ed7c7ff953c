//! A template's text as Jinja reads it and the engine does not: line ends, Python's escapes in texts, `%` on texts, tuples
//! without parentheses, a sign before a number.

use std::collections::BTreeMap;

use super::escapes::literal;
use super::tokens::{Kind, Token, tag_tokens};

/// Name of the filter that stands for the operator `%`, which the engine has for numbers alone.
pub(super) const PERCENT: &str = "percent__";
/// `%` operators at most: each is looked for from its own place.
const MOST: usize = 2_000;

/// `source` in the engine's own syntax. What is malformed stays as it is: the engine says what is wrong with it.
pub(super) fn rewritten(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut text = String::with_capacity(source.len());
    let mut rest = source.as_str();
    let mut left = MOST;
    while let Some(at) = rest.find('{') {
        let (before, tag) = rest.split_at(at);
        text.push_str(before);
        let end = match tag.as_bytes().get(1) {
            Some(b'#') => tag[2..].find("#}").map(|end| end + 4),
            Some(b'%') if raw(tag).is_some() => raw(tag),
            Some(b'%' | b'{') => match tag_tokens(tag) {
                Some((tokens, end)) => {
                    text.push_str(&rewritten_tag(&tag[..end], &tokens, &mut left));
                    rest = &tag[end..];
                    continue;
                }
                None => None,
            },
            _ => Some(1),
        };
        let Some(end) = end else {
            text.push_str(tag);
            return text;
        };
        text.push_str(&tag[..end]);
        rest = &tag[end..];
    }
    text.push_str(rest);
    text
}

/// Bytes of a `raw` block, to the end of its `endraw`, if `tag` opens one.
fn raw(tag: &str) -> Option<usize> {
    let named = |text: &str, name: &str| -> Option<usize> {
        let inner = text.strip_prefix("{%")?.trim_start_matches(['-', '+']).trim_start();
        let inner = inner.strip_prefix(name)?.trim_start();
        let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
        inner.strip_prefix("%}").map(|rest| text.len() - rest.len())
    };
    let mut at = named(tag, "raw")?;
    loop {
        at += tag[at..].find("{%")?;
        match named(&tag[at..], "endraw") {
            Some(end) => return Some(at + end),
            None => at += 2,
        }
    }
}

/// What is inserted before a token, in place of it and after it.
#[derive(Default)]
struct Edits {
    before: BTreeMap<usize, String>,
    instead: BTreeMap<usize, String>,
    after: BTreeMap<usize, String>,
}

impl Edits {
    fn enclose(&mut self, first: usize, end: usize, open: &str, close: &str) {
        self.before.entry(first).or_default().push_str(open);
        self.after.entry(end - 1).or_default().push_str(close);
    }
}

fn rewritten_tag(tag: &str, tokens: &[Token], left: &mut usize) -> String {
    let mut edits = Edits::default();
    let block = tag.starts_with("{%");
    let walk = Walk { tokens, block };
    for (index, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Text if token.text.contains('\\') => {
                if let Some(text) = literal(token.text) {
                    edits.instead.insert(index, text);
                }
            }
            Kind::Sign if token.text == "+" && walk.opens(index) => {
                edits.instead.insert(index, " ".into());
            }
            Kind::Sign if token.text == "%" && *left > 0 => {
                if let (Some(first), Some(end)) = (walk.left(index), walk.right(index)) {
                    *left -= 1;
                    edits.enclose(first, index, "(", ")");
                    edits.instead.insert(index, format!("|{PERCENT}"));
                    edits.enclose(index + 1, end, "((", "))");
                }
            }
            _ => {}
        }
    }
    if let Some((first, end)) = walk.bare_tuple() {
        edits.enclose(first, end, "(", ")");
    }
    let mut text = String::with_capacity(tag.len());
    let mut at = 0;
    for (index, token) in tokens.iter().enumerate() {
        text.push_str(&tag[at..token.at]);
        text.push_str(edits.before.get(&index).map_or("", String::as_str));
        text.push_str(edits.instead.get(&index).map_or(token.text, String::as_str));
        text.push_str(edits.after.get(&index).map_or("", String::as_str));
        at = token.at + token.text.len();
    }
    text.push_str(&tag[at..]);
    text
}

/// Operands among the tokens of a tag.
struct Walk<'a> {
    tokens: &'a [Token<'a>],
    /// True for `{% … %}`, whose first token is its name.
    block: bool,
}

/// Words that stand between operands of less than a product.
const BETWEEN: [&str; 6] = ["and", "or", "in", "if", "else", "elif"];

impl Walk<'_> {
    fn is(&self, index: usize, text: &str) -> bool {
        self.tokens
            .get(index)
            .is_some_and(|token| token.kind != Kind::Text && token.text == text)
    }

    fn word(&self, index: usize, words: &[&str]) -> bool {
        let token = self.tokens.get(index);
        token.is_some_and(|token| token.kind == Kind::Name && words.contains(&token.text))
    }

    /// True where an operand starts: a sign there is no operator.
    fn opens(&self, index: usize) -> bool {
        let Some(before) = index.checked_sub(1) else {
            return true;
        };
        let token = &self.tokens[before];
        match token.kind {
            Kind::Name => (before == 0 && self.block) || self.word(before, &BETWEEN) || self.word(before, &["not"]),
            Kind::Sign => !matches!(token.text, ")" | "]" | "}"),
            Kind::Text | Kind::Number => false,
        }
    }

    /// First token of the product that ends before `operator`.
    fn left(&self, operator: usize) -> Option<usize> {
        let mut first = operator;
        while let Some(index) = first.checked_sub(1) {
            let token = &self.tokens[index];
            let part = match token.kind {
                Kind::Text | Kind::Number => true,
                Kind::Name if index == 0 && self.block => false,
                Kind::Name if token.text == "not" => index > 0 && self.word(index - 1, &["is"]),
                Kind::Name => !BETWEEN.contains(&token.text),
                Kind::Sign => match token.text {
                    ")" | "]" | "}" => {
                        first = token.other?;
                        continue;
                    }
                    "." | "|" | "*" | "/" | "//" | "%" | "**" => true,
                    "-" | "+" => self.opens(index),
                    _ => false,
                },
            };
            if !part {
                break;
            }
            first = index;
        }
        (first < operator).then_some(first)
    }

    /// The token after the operand that follows `operator`.
    fn right(&self, operator: usize) -> Option<usize> {
        let mut end = operator + 1;
        loop {
            while self.is(end, "-") || self.is(end, "+") {
                end += 1;
            }
            end = self.filtered(self.primary(end)?)?;
            if !self.is(end, "**") {
                return Some(end);
            }
            end += 1;
        }
    }

    /// The token after a name, a number, a text or what brackets enclose, with what is called or taken from it.
    fn primary(&self, start: usize) -> Option<usize> {
        let token = self.tokens.get(start)?;
        let mut end = match token.kind {
            Kind::Text => {
                let more = self.tokens[start..].iter().take_while(|token| token.kind == Kind::Text);
                start + more.count()
            }
            Kind::Name | Kind::Number => start + 1,
            Kind::Sign if matches!(token.text, "(" | "[" | "{") => token.other? + 1,
            Kind::Sign => return None,
        };
        loop {
            if self.is(end, ".") {
                end += 2;
            } else if self.is(end, "[") || self.is(end, "(") {
                end = self.tokens[end].other? + 1;
            } else {
                return (end <= self.tokens.len()).then_some(end);
            }
        }
    }

    /// The token after filters and tests.
    fn filtered(&self, mut end: usize) -> Option<usize> {
        loop {
            let test = self.word(end, &["is"]);
            if !test && !self.is(end, "|") {
                return Some(end);
            }
            end += 1;
            if test && self.word(end, &["not"]) {
                end += 1;
            }
            self.tokens.get(end).filter(|token| token.kind == Kind::Name)?;
            end += 1;
            while self.is(end, ".") {
                end += 2;
            }
            if self.is(end, "(") {
                end = self.tokens[end].other? + 1;
            } else if test && self.argument(end) {
                end = self.primary(end)?;
            }
        }
    }

    /// True if a test's argument starts here, without parentheses.
    fn argument(&self, index: usize) -> bool {
        self.tokens.get(index).is_some_and(|token| match token.kind {
            Kind::Text | Kind::Number => true,
            Kind::Name => !BETWEEN.contains(&token.text) && !matches!(token.text, "is" | "not"),
            Kind::Sign => matches!(token.text, "[" | "{"),
        })
    }

    /// The tokens of `a, b` in `{{ a, b }}` and `{% for … in a, b %}`.
    fn bare_tuple(&self) -> Option<(usize, usize)> {
        let (first, end) = match self.block {
            false => (0, self.tokens.len()),
            true if self.is(0, "for") => {
                let outer = |from: usize, words: &[&str]| self.outer(from, |index| self.word(index, words));
                let first = outer(1, &["in"])? + 1;
                (first, outer(first, &["if", "recursive"]).unwrap_or(self.tokens.len()))
            }
            true => return None,
        };
        let comma = self.outer(first, |index| self.is(index, ","))?;
        (first < comma && comma < end).then_some((first, end))
    }

    /// The first token from `start` on that `wanted` takes, outside of brackets.
    fn outer(&self, start: usize, wanted: impl Fn(usize) -> bool) -> Option<usize> {
        let mut index = start;
        while index < self.tokens.len() {
            if wanted(index) {
                return Some(index);
            }
            index = match self.tokens[index].other {
                Some(other) if other > index => other + 1,
                _ => index + 1,
            };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percent_takes_the_operands_that_jinja_gives_it() {
        for (source, expected) in [
            ("{{ a % b }}", "{{ (a) |percent__ ((b)) }}"),
            (
                "{{ a * -b % c.d[0] | e ~ f }}",
                "{{ (a * -b) |percent__ ((c.d[0] | e)) ~ f }}",
            ),
            ("{% if not a % 2 == 0 %}", "{% if not (a) |percent__ ((2)) == 0 %}"),
            ("{{ -a % (1, 2) + 1 }}", "{{ (-a) |percent__ (((1, 2))) + 1 }}"),
            ("{{ 7 % 4 % 2 }}", "{{ ((7) |percent__ ((4))) |percent__ ((2)) }}"),
            ("{{ a - b % c is odd }}", "{{ a - (b) |percent__ ((c is odd)) }}"),
        ] {
            assert_eq!(rewritten(source), expected);
        }
    }

    #[test]
    fn what_needs_nothing_stays() {
        for source in [
            "a % b {# {{ a % b }} #} {% raw %}{{ a % b }}{% endraw %} {{ 'a % b' }}",
            "{% for a, b in c %}{{ f(a, b) }}{% endfor %}",
            "{{ a % }} {{ 'open",
            "{ {% set x = {'a': {'b': 1}} %}{{ x }}",
        ] {
            assert_eq!(rewritten(source), source);
        }
        assert_eq!(rewritten("a\r\nb\rc"), "a\nb\nc");
    }

    #[test]
    fn tuples_and_signs_are_written_out() {
        assert_eq!(rewritten("{{ 1, +2 }}"), "{{ (1,  2) }}");
        assert_eq!(rewritten("{% for i in 1, 2 if i %}"), "{% for i in (1, 2) if i %}");
    }
}
