//! Operands among the tokens of a tag, as Jinja's operators take them.

use std::collections::BTreeMap;

use super::tokens::{Kind, Token};

/// Products that `~` joins.
pub(super) struct Chain {
    /// The first token.
    pub(super) first: usize,
    /// Each `~`.
    pub(super) operators: Vec<usize>,
    /// The token after the last one.
    pub(super) end: usize,
}

/// Operands among the tokens of a tag.
pub(super) struct Walk<'a> {
    pub(super) tokens: &'a [Token<'a>],
    /// True for `{% … %}`, whose first token is its name.
    pub(super) block: bool,
}

/// A parameter of a macro, and the tokens of its default.
pub(super) type Parameter<'a> = (&'a str, Option<(usize, usize)>);

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

    /// True for the tag `{% name … %}`.
    pub(super) fn names(&self, name: &str) -> bool {
        self.block && self.is(0, name)
    }

    /// True where an operand starts: a sign there is no operator.
    pub(super) fn opens(&self, index: usize) -> bool {
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
    pub(super) fn left(&self, operator: usize) -> Option<usize> {
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
    pub(super) fn right(&self, operator: usize) -> Option<usize> {
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

    /// The token after the product that follows `operator`.
    fn product(&self, operator: usize) -> Option<usize> {
        let mut end = self.right(operator)?;
        while ["*", "/", "//", "%"].iter().any(|sign| self.is(end, sign)) {
            end = self.right(end)?;
        }
        Some(end)
    }

    /// The chains of products that `~` joins.
    pub(super) fn chains(&self) -> Vec<Chain> {
        let mut found: Vec<Chain> = Vec::new();
        // Of an operator, its chain.
        let mut chain_of = BTreeMap::new();
        for index in (0..self.tokens.len()).filter(|index| self.is(*index, "~")) {
            let (Some(first), Some(end)) = (self.left(index), self.product(index)) else {
                continue;
            };
            let before = first.checked_sub(1).filter(|before| self.is(*before, "~"));
            let chain = match before.map(|before| chain_of.get(&before).copied()) {
                None => {
                    found.push(Chain {
                        first,
                        operators: Vec::new(),
                        end,
                    });
                    found.len() - 1
                }
                Some(Some(chain)) => chain,
                // What the operator before joins is malformed.
                Some(None) => continue,
            };
            found[chain].operators.push(index);
            found[chain].end = end;
            chain_of.insert(index, chain);
        }
        found
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
    pub(super) fn bare_tuple(&self) -> Option<(usize, usize)> {
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

    /// The name and the parameters of a macro whose head the tokens are, each with the tokens of its default from `=` on.
    pub(super) fn macro_head(&self) -> Option<(&str, Vec<Parameter<'_>>)> {
        if !(self.names("macro") && self.is(2, "(")) {
            return None;
        }
        let close = self.tokens.get(2)?.other?;
        let name = |index: usize| self.tokens.get(index).filter(|token| token.kind == Kind::Name);
        let mut parameters: Vec<Parameter> = Vec::new();
        let mut at = 3;
        while at < close {
            let end = self.outer(at, |index| self.is(index, ",")).unwrap_or(close).min(close);
            let default = match end - at {
                1 => None,
                _ if self.is(at + 1, "=") && end > at + 2 => Some((at + 1, end)),
                _ => return None,
            };
            parameters.push((name(at)?.text, default));
            at = end + 1;
        }
        Some((name(1)?.text, parameters))
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
