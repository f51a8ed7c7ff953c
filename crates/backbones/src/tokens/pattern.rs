//! What a regular expression of a tokenizer may cost: which ones a backtracking engine matches in few steps.

use std::iter::Peekable;
use std::str::Chars;

/// What may repeat or branch in one alternative of an expression that is worked on without limits.
const MOST_CHOICES: usize = 10;
/// Short repetitions among these: each may double the ways of matching.
const MOST_SHORT: usize = 4;
/// Repetitions without end among these, or with a larger one than [`WIDE`].
const MOST_ENDLESS: usize = 2;
/// Most times of a repetition that counts as short.
const WIDE: usize = 8;

/// What an expression consists of, as far as its cost goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A character, a class, an anchor.
    Atom,
    Open,
    Close,
    /// `|`
    Or,
    /// `most`: none without end.
    Repeat {
        least: usize,
        most: Option<usize>,
    },
    /// A reference to what a group matched.
    Reference,
}

/// The parts in their order, by the rules of the engine (fancy-regex).
fn parts(pattern: &str) -> Vec<Part> {
    let mut rest = pattern.chars().peekable();
    let mut found = Vec::new();
    while let Some(c) = rest.next() {
        let part = match c {
            '\\' => escape(&mut rest),
            '[' => {
                skip_class(&mut rest);
                Part::Atom
            }
            '(' => {
                // What a group starts with is not a repetition.
                rest.next_if_eq(&'?');
                Part::Open
            }
            ')' => Part::Close,
            '|' => Part::Or,
            '?' => repeat(&mut rest, 0, Some(1)),
            '*' => repeat(&mut rest, 0, None),
            '+' => repeat(&mut rest, 1, None),
            '{' => match bounds(&rest) {
                Some((behind, least, most)) => {
                    rest = behind;
                    repeat(&mut rest, least, most)
                }
                None => Part::Atom,
            },
            _ => Part::Atom,
        };
        found.push(part);
    }
    found
}

/// A repetition with the marks behind it: `*?` and `*+` are one.
fn repeat(rest: &mut Peekable<Chars<'_>>, least: usize, most: Option<usize>) -> Part {
    rest.next_if_eq(&'?');
    rest.next_if_eq(&'+');
    Part::Repeat { least, most }
}

/// What follows a backslash.
fn escape(rest: &mut Peekable<Chars<'_>>) -> Part {
    let escaped = rest.next();
    let braced = matches!(escaped, Some('p' | 'P' | 'x' | 'u' | 'U')) && rest.next_if_eq(&'{').is_some();
    // `\p{L}`: the brace is no repetition.
    while braced && rest.next().is_some_and(|c| c != '}') {}
    match escaped {
        Some('k' | '0'..='9') => Part::Reference,
        _ => Part::Atom,
    }
}

/// What is behind the braces of a repetition whose opening one was read, and its numbers; none for a brace that stands for
/// itself.
fn bounds<'a>(rest: &Peekable<Chars<'a>>) -> Option<(Peekable<Chars<'a>>, usize, Option<usize>)> {
    let mut rest = rest.clone();
    let inside: String = std::iter::from_fn(|| rest.next_if(|c| c.is_ascii_digit() || *c == ',')).collect();
    rest.next_if_eq(&'}')?;
    let (least, most) = inside.split_once(',').unwrap_or((inside.as_str(), inside.as_str()));
    let number = |text: &str| text.parse::<usize>().ok();
    match (least, most) {
        _ if inside.is_empty() => None,
        ("", _) => Some((rest, 0, number(most))),
        _ => Some((rest, number(least)?, number(most))),
    }
}

/// Goes behind the end of a class whose opening bracket was read.
fn skip_class(rest: &mut Peekable<Chars<'_>>) {
    rest.next_if_eq(&'^');
    // The first one is a character of the class.
    rest.next_if_eq(&']');
    let mut depth = 1;
    while depth > 0 {
        match rest.next() {
            Some('\\') => drop(rest.next()),
            Some('[') => depth += 1,
            Some(']') => depth -= 1,
            Some(_) => {}
            None => return,
        }
    }
}

/// True if a bracket of it may be in a comment, where it is none.
fn has_comments(pattern: &str) -> bool {
    let mut groups = pattern.split("(?").skip(1);
    groups.any(|group| {
        let mut flags = group.chars().take_while(|c| c.is_ascii_alphabetic() || *c == '-');
        group.starts_with('#') || flags.any(|flag| flag == 'x')
    })
}

/// True if no text can make a backtracking engine take many more steps at a place than the text has characters: no
/// alternative has a repeated group, many repetitions and branches, or anything that may fail behind two repetitions without
/// end. The models that are in use have such expressions.
pub(super) fn is_harmless(pattern: &str) -> bool {
    if has_comments(pattern) || pattern.contains("(?P=") {
        return false;
    }
    let parts = parts(pattern);
    let (mut depth, mut choices, mut short, mut endless) = (0_usize, 0_usize, 0_usize, 0_usize);
    for (place, part) in parts.iter().enumerate() {
        let next = parts.get(place + 1);
        let mut ends = *part == Part::Atom;
        match *part {
            Part::Atom => {}
            Part::Open => depth += 1,
            Part::Close => {
                depth = depth.saturating_sub(1);
                ends = true;
                if matches!(next, Some(Part::Repeat { most, .. }) if *most != Some(1)) {
                    return false;
                }
            }
            Part::Or if depth == 0 => (choices, short, endless) = (0, 0, 0),
            Part::Or => choices += 1,
            Part::Repeat { most, .. } => {
                choices += 1;
                match most.is_none_or(|most| most > WIDE) {
                    true => endless += 1,
                    false => short += 1,
                }
                // What follows it inside the group is not looked at.
                if depth > 0 && endless == MOST_ENDLESS {
                    return false;
                }
            }
            Part::Reference => return false,
        }
        // Two that overlap share the text in as many ways as it is long, and what must follow may fail each time.
        let must_follow = ends && depth == 0 && !matches!(next, Some(Part::Repeat { least: 0, .. }));
        if must_follow && endless == MOST_ENDLESS {
            return false;
        }
        if choices > MOST_CHOICES || short > MOST_SHORT || endless > MOST_ENDLESS {
            return false;
        }
    }
    true
}

/// Times of all counted repetitions together: an expression is compiled to as many copies.
pub(super) fn copies(pattern: &str) -> usize {
    let times = |part: Part| match part {
        Part::Repeat { least, most } => most.unwrap_or(least),
        _ => 0,
    };
    parts(pattern).into_iter().map(times).fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_of_models_in_use_are_harmless_and_exploding_ones_are_not() {
        for pattern in [
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lo}\p{M}]*[\p{Ll}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*",
            r"\p{N}{1,3}",
            r"[!-/:-~]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s+(?!\S)|\s+",
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
            r" ?[^(\s|[.,!?…。，、।۔،])]+",
            " {2,}",
        ] {
            assert!(is_harmless(pattern), "{pattern}");
        }
        for pattern in [
            r"(?:(?:(?=a)a|(?=a)a){0,18}(?=c)|.)",
            r"(?:(a+)+(?=c)|a)",
            r"(?:.*.*.*(?!.)(?<=\x00)|.)",
            r".{0,100}.{0,100}.{0,100}(?!.)(?<=\x00)",
            r"(?#[)(?:(a+)+(?=c)|a)",
            // In this mode `#` begins a comment.
            "(?ix)#[\n(?:(a+)+(?=c)|a)",
            r".*.*(?=\x00)|.",
            r".*.*a?a?a?a?a?a?(?=\x00)|.",
            r".*.*\x00|.",
            r"(?:.*.*(?=\x00))|.",
            // A brace without numbers stands for itself.
            r"x{(a+)+(?=c)}|.",
            r"[]](a+)+[)](?=c)|.",
            r"(.*)\1(?=\x00)|.",
            &"a?".repeat(6),
            &"a?".repeat(30),
            &"(?:a|a)".repeat(30),
            &"(?:a|(?=a)a)".repeat(30),
        ] {
            assert!(!is_harmless(pattern), "{pattern}");
        }
    }

    #[test]
    fn counted_repetitions_are_added() {
        assert_eq!(copies(r"\p{L}{3}|a{1,4}x{2,}\x{1234}[{9}]{,5}"), 3 + 4 + 2 + 5);
        assert_eq!(copies(&r"(?=\w{150})".repeat(800)), 150 * 800);
        assert_eq!(copies("a{18446744073709551615}b{18446744073709551615}"), usize::MAX);
    }
}
