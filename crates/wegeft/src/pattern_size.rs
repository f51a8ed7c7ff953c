//! Bounds on regular expressions of configs, checked before they are compiled. fancy-regex compiles the parts between
//! look-arounds one by one and bounds the size of each, but not their number.

use fancy_regex::{Assertion, Expr};
use regex::RegexSetBuilder;

use crate::error::AdapterError;

/// Bytes that one expression may have; the names of all modules of a great model fit in.
const LONGEST: usize = 64 << 10;

/// Bytes that the parsed expressions of one setting may take.
const PARSED: usize = 256 << 20;

/// Bytes that the compiled ones may take; regex's own limit for one expression.
const COMPILED: usize = 10 << 20;

/// What each takes of that besides.
const EACH: usize = 2 << 10;

/// Depth of nesting: more than fancy-regex reads.
const DEPTH: u32 = 1000;

/// Characters of an expression that a message shows.
const SHOWN: usize = 100;

/// Checks the lengths of `patterns`.
///
/// # Errors
/// One that is too long, or too many of them.
pub(crate) fn check_length(patterns: &[&str]) -> Result<(), AdapterError> {
    let mut parsed = 0;
    for pattern in patterns {
        parsed += parsed_size(pattern);
        if pattern.len() > LONGEST {
            let message = format!(
                "it has {} bytes, and at most {LONGEST} are allowed; name the modules in a list",
                pattern.len()
            );
            return Err(bad(pattern, message));
        }
        if parsed > PARSED {
            return Err(bad(pattern, too_much(patterns.len(), PARSED)));
        }
    }
    Ok(())
}

/// Checks what `patterns` take together once they are compiled.
///
/// # Errors
/// Too much memory, or an expression that is not valid.
pub(crate) fn check_size(patterns: &[&str]) -> Result<(), AdapterError> {
    let mut plain = Vec::with_capacity(patterns.len());
    for pattern in patterns {
        let tree = Expr::parse_tree(pattern).map_err(|error| invalid(pattern, &error.to_string()))?;
        let mut text = String::new();
        without_look_around(tree.expr).0.to_str(&mut text, 0);
        plain.push(text);
    }
    let limit = COMPILED.saturating_sub(EACH * patterns.len());
    let failure = |texts: &[String]| {
        let mut set = RegexSetBuilder::new(texts);
        set.size_limit(limit).nest_limit(DEPTH).build().err()
    };
    match failure(&plain) {
        None => Ok(()),
        Some(regex::Error::CompiledTooBig(_)) => {
            let first = patterns.first().copied().unwrap_or_default();
            Err(bad(first, too_much(patterns.len(), COMPILED)))
        }
        Some(_) => {
            let invalid = patterns.iter().zip(&plain).find_map(|(pattern, text)| {
                let error = failure(std::slice::from_ref(text))?.to_string();
                // The lines before show the expression.
                Some(invalid(pattern, error.lines().last().unwrap_or_default()))
            });
            invalid.map_or(Ok(()), Err)
        }
    }
}

fn invalid(pattern: &str, error: &str) -> AdapterError {
    bad(pattern, format!("it is not a valid regular expression: {error}"))
}

/// An error about `pattern`, of which a long one is cut.
pub(crate) fn bad(pattern: &str, message: String) -> AdapterError {
    AdapterError::BadPattern {
        pattern: cut(pattern),
        message: cut(&message.replace('\n', " ")),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) if text.len() > 2 * SHOWN => format!("{}…", &text[..end]),
        _ => text.to_string(),
    }
}

fn too_much(count: usize, limit: usize) -> String {
    let others = match count {
        1 => String::new(),
        count => format!("together with the {} other patterns, ", count - 1),
    };
    format!(
        "{others}it takes more than {} MB of memory; write it with fewer repetitions",
        limit >> 20
    )
}

/// Bytes that `pattern` takes when it is parsed, roughly: a class of letters has hundreds of ranges.
fn parsed_size(pattern: &str) -> usize {
    let is_class = |(at, _): &(usize, &str)| pattern[at + 1..].starts_with(['w', 'W', 'p', 'P']);
    let classes = pattern.match_indices('\\').filter(is_class).count();
    128 * pattern.len() + 8192 * classes
}

/// `expr` as the regex crate can have it, of about the same size compiled, and whether fancy-regex matches it step by step.
fn without_look_around(expr: Expr) -> (Expr, bool) {
    let all = |parts: Vec<Expr>| -> (Vec<Expr>, bool) {
        let (parts, by_step): (Vec<Expr>, Vec<bool>) = parts.into_iter().map(without_look_around).unzip();
        (parts, by_step.contains(&true))
    };
    let nothing = || Expr::Concat(Vec::new());
    match expr {
        Expr::Concat(parts) => {
            let (parts, by_step) = all(parts);
            (Expr::Concat(parts), by_step)
        }
        Expr::Alt(parts) => {
            let (parts, by_step) = all(parts);
            (Expr::Alt(parts), by_step)
        }
        Expr::Group(part) => {
            let (part, by_step) = without_look_around(*part);
            (Expr::Group(Box::new(part)), by_step)
        }
        Expr::Repeat { child, lo, hi, greedy } => {
            let (child, by_step) = without_look_around(*child);
            // Repetitions are counted there, not written out.
            let (lo, hi) = if by_step { (0, usize::MAX) } else { (lo, hi) };
            let child = Box::new(child);
            (Expr::Repeat { child, lo, hi, greedy }, by_step)
        }
        Expr::LookAround(part, _) | Expr::AtomicGroup(part) => (without_look_around(*part).0, true),
        Expr::Conditional {
            condition,
            true_branch,
            false_branch,
        } => (Expr::Concat(all(vec![*condition, *true_branch, *false_branch]).0), true),
        Expr::Empty => (nothing(), false),
        Expr::Assertion(
            Assertion::LeftWordBoundary
            | Assertion::RightWordBoundary
            | Assertion::WordBoundary
            | Assertion::NotWordBoundary,
        )
        | Expr::Backref(_)
        | Expr::KeepOut
        | Expr::ContinueFromPreviousMatchEnd
        | Expr::BackrefExistsCondition(_) => (nothing(), true),
        plain @ (Expr::Any { .. } | Expr::Assertion(_) | Expr::Literal { .. } | Expr::Delegate { .. }) => {
            (plain, false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(patterns: &[&str]) -> Result<(), String> {
        check_size(patterns).map_err(|error| error.to_string())
    }

    #[test]
    fn look_arounds_count_together_and_long_patterns_are_cut() {
        let many = format!(".*(?:{}q_proj|v_proj)", r"(?=\w{150})|".repeat(800));
        let error = size(&[&many]).unwrap_err();
        assert!(error.contains("more than 10 MB") && error.len() < 400, "{error}");
        let keys: Vec<String> = (0..1000).map(|key| format!(r"(?!x)\w{{50}}z{key}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let error = size(&keys).unwrap_err();
        assert!(error.contains("the 999 other patterns"), "{error}");
        size(&keys[..1]).unwrap();
        assert!(size(&["(?=a)"; 6000]).unwrap_err().contains("more than 10 MB"));
    }

    #[test]
    fn every_kind_of_part_is_measured() {
        for pattern in [
            r".*layers\.(?!1\b)\d+\.(?:q|k)",
            r"([qk])_\1",
            r"(?<=a|bb)c(?<!d)(?>e*)\z",
            r"(a)?(?(1)b|c)",
            r"(?:(?!x).){5000}y",
            r"(?i:Q_proj)|^(?P<n>v)(?P=n)$|\b",
            "",
        ] {
            size(&[pattern]).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        }
        assert!(size(&["("]).is_err());
        let error = size(&["a", r"(?!b)[z-a]"]).unwrap_err();
        assert!(error.contains("'(?!b)[z-a]'") && error.contains("range"), "{error}");
        let deep = format!("{}a{}{}", "(?:b".repeat(30), "){2,3}".repeat(3), ")?".repeat(27));
        size(&[&deep]).unwrap();
    }

    #[test]
    fn long_patterns_and_many_classes_are_refused_unparsed() {
        let refused = |patterns: &[&str]| check_length(patterns).unwrap_err().to_string();
        let long = "a|".repeat(LONGEST);
        assert!(refused(&[&long]).contains("131072 bytes, and at most 65536"));
        let classes = r"\w".repeat(LONGEST / 2);
        assert!(refused(&[&classes]).contains("more than 256 MB"));
        check_length(&["model.layers.0"; 10_000]).unwrap();
    }
}
