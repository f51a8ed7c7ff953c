//! Python's `textwrap.wrap` of one line, as Jinja's `wordwrap` calls it.

use std::sync::LazyLock;

use fancy_regex::Regex;
use minijinja::Error;

use super::arguments::wrong;

/// White space of `textwrap`.
const BLANKS: [char; 6] = ['\t', '\n', '\u{b}', '\u{c}', '\r', ' '];

/// `line` in lines of at most `width` characters.
pub(super) fn wrap(line: &str, width: usize, long_words: bool, hyphens: bool) -> Result<Vec<String>, Error> {
    let mut chunks: Vec<Vec<char>> = match hyphens {
        true => chunks(line)?,
        false => simple_chunks(line),
    };
    chunks.reverse();
    let blank = |chunk: &[char]| chunk.iter().all(|c| c.is_whitespace());
    let mut lines: Vec<String> = Vec::new();
    while let Some(first) = chunks.last() {
        if blank(first) && !lines.is_empty() {
            chunks.pop();
        }
        let mut current: Vec<Vec<char>> = Vec::new();
        let mut length = 0;
        while let Some(chunk) = chunks.pop_if(|chunk| length + chunk.len() <= width) {
            length += chunk.len();
            current.push(chunk);
        }
        if let Some(chunk) = chunks.last_mut().filter(|chunk| chunk.len() > width) {
            let left = width - length;
            if long_words {
                // Nothing, where nothing is left: Python then keeps the blank before it.
                let mut end = left;
                if hyphens
                    && let Some(hyphen) = chunk[..left].iter().rposition(|c| *c == '-')
                    && chunk[..hyphen].iter().any(|c| *c != '-')
                {
                    end = hyphen + 1;
                }
                current.push(chunk.drain(..end).collect());
            } else if current.is_empty() {
                current.extend(chunks.pop());
            }
        }
        if current.last().is_some_and(|chunk| blank(chunk)) {
            current.pop();
        }
        if !current.is_empty() {
            lines.push(current.into_iter().flatten().collect());
        }
    }
    Ok(lines)
}

/// Words and white space by turns.
fn simple_chunks(line: &str) -> Vec<Vec<char>> {
    let mut chunks: Vec<Vec<char>> = Vec::new();
    for c in line.chars() {
        match chunks.last_mut() {
            Some(chunk) if BLANKS.contains(&chunk[0]) == BLANKS.contains(&c) => chunk.push(c),
            _ => chunks.push(vec![c]),
        }
    }
    chunks
}

/// Words, white space, and the parts of words with hyphens.
fn chunks(line: &str) -> Result<Vec<Vec<char>>, Error> {
    static PARTS: LazyLock<Regex> = LazyLock::new(|| {
        let [punctuated, letter] = [r#"[\w!"'&.,?]"#, r"[^\d\W]"];
        let [blank, other] = [r"[\t\n\x0b\x0c\r ]", r"[^\t\n\x0b\x0c\r ]"];
        let pattern = format!(
            "{blank}+|(?<={punctuated})-{{2,}}(?=\\w)|{other}+?(?:-(?:(?<={letter}{letter}-)|(?<={letter}-{letter}-))\
             (?={letter}-?{letter})|(?={blank}|\\z)|(?<={punctuated})(?=-{{2,}}\\w))"
        );
        Regex::new(&pattern).expect("a valid pattern")
    });
    let mut chunks = Vec::new();
    let mut at = 0;
    let mut push = |text: &str| {
        if !text.is_empty() {
            chunks.push(text.chars().collect());
        }
    };
    for found in PARTS.find_iter(line) {
        let found = found.map_err(|_| wrong("wordwrap of a text that takes too long"))?;
        push(&line[at..found.start()]);
        push(found.as_str());
        at = found.end();
    }
    push(&line[at..]);
    Ok(chunks)
}
