//! Splits sentences like NLTK's English Punkt (Kiss and Strunk 2006, doi 10.1162/coli.2006.32.4.485): candidates are
//! full stops, question and exclamation marks; a model of abbreviations, collocations and capitals decides. The rules
//! are those of NLTK 3.8, with which IFEval's published verdicts were made.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::ops::Range;
use std::sync::LazyLock;

use fancy_regex::Regex;

/// Words and what the model knows about them.
struct Model {
    abbreviations: HashSet<String>,
    starters: HashSet<String>,
    collocations: HashSet<(String, String)>,
    /// In which case, and at which position in a sentence, a word was seen.
    contexts: HashMap<String, u8>,
}

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let mut text = String::new();
    let packed = include_bytes!("punkt-english.txt.gz");
    let read = flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut text);
    read.expect("the model is part of the program");
    let mut model = Model {
        abbreviations: HashSet::new(),
        starters: HashSet::new(),
        collocations: HashSet::new(),
        contexts: HashMap::new(),
    };
    for line in text.lines() {
        match line.split('\t').collect::<Vec<_>>()[..] {
            ["abbreviation", word] => drop(model.abbreviations.insert(word.into())),
            ["starter", word] => drop(model.starters.insert(word.into())),
            ["collocation", first, second] => drop(model.collocations.insert((first.into(), second.into()))),
            ["context", word, flags] => drop(model.contexts.insert(word.into(), flags.parse().unwrap_or(0))),
            _ => {}
        }
    }
    model
});

/// Flags for the context of a word: upper-case initial within a sentence; lower-case initial at its start.
const INSIDE_UPPER: u8 = 1 << 2;
const START_LOWER: u8 = 1 << 4;
/// Upper-case initial anywhere; lower-case initial anywhere.
const UPPER: u8 = 1 << 1 | 1 << 2 | 1 << 3;
const LOWER: u8 = 1 << 4 | 1 << 5 | 1 << 6;

const NON_WORD: &str = r#"(?:[)";}\]*:@'({\[!?])"#;
const MULTIPLE: &str = r"(?:-{2,}|\.{2,}|(?:\.\s){2,}\.)";

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a valid pattern")
}

/// A candidate and what comes after it.
static CANDIDATE: LazyLock<Regex> = LazyLock::new(|| regex(&format!(r"[.?!](?=(?<after>{NON_WORD}|\s+(?<next>\S+)))")));

static TOKEN: LazyLock<Regex> = LazyLock::new(|| {
    regex(&format!(
        r##"{MULTIPLE}|(?=[^("`{{\[:;&#*@)}}\]\-,])\S+?(?=\s|$|{NON_WORD}|{MULTIPLE}|,(?=$|\s|{NON_WORD}|{MULTIPLE}))|\S"##
    ))
});

/// Closing marks that belong to the sentence before.
static CLOSING: LazyLock<Regex> = LazyLock::new(|| regex(r#"(?m)\A["')\]}]+?(?:\s+|(?=--)|$)"#));

static NUMBER: LazyLock<Regex> = LazyLock::new(|| regex(r"^-?[.,]?\d[\d,.-]*\.?$"));
static INITIAL: LazyLock<Regex> = LazyLock::new(|| regex(r"^[\p{L}\p{Nl}\p{No}_]\.$"));

fn matches(regex: &Regex, text: &str) -> bool {
    // An error means excessive backtracking.
    regex.is_match(text).unwrap_or(false)
}

/// A token and the decisions about it.
struct Token {
    text: String,
    kind: String,
    ends: bool,
    abbreviation: bool,
    ellipsis: bool,
}

impl Token {
    fn new(text: &str, model: &Model) -> Self {
        let lower = text.to_lowercase();
        let mut token = Self {
            kind: match matches(&NUMBER, &lower) {
                true => "##number##".into(),
                false => lower,
            },
            text: text.into(),
            ends: false,
            abbreviation: false,
            ellipsis: false,
        };
        if matches!(text, "." | "?" | "!") {
            token.ends = true;
        } else if text.len() > 1 && text.bytes().all(|byte| byte == b'.') {
            token.ellipsis = true;
        } else if text.ends_with('.') && !text.ends_with("..") {
            let word = text[..text.len() - 1].to_lowercase();
            let last = word.rsplit('-').next().unwrap_or_default();
            token.abbreviation = model.abbreviations.contains(&word) || model.abbreviations.contains(last);
            token.ends = !token.abbreviation;
        }
        token
    }

    fn without_period(&self) -> &str {
        match self.kind.len() > 1 {
            true => self.kind.strip_suffix('.').unwrap_or(&self.kind),
            false => &self.kind,
        }
    }

    /// The token without the period that ends a sentence.
    fn without_end(&self) -> &str {
        if self.ends { self.without_period() } else { &self.kind }
    }

    fn is_upper(&self) -> bool {
        self.text.chars().next().is_some_and(char::is_uppercase)
    }

    fn is_lower(&self) -> bool {
        self.text.chars().next().is_some_and(char::is_lowercase)
    }

    /// Whether it starts a sentence, judged by the case in which it was seen; `None` if unknown.
    fn starts(&self, model: &Model) -> Option<bool> {
        if matches!(self.text.as_str(), ";" | ":" | "," | "." | "!" | "?") {
            return Some(false);
        }
        let context = model.contexts.get(self.without_end()).copied().unwrap_or(0);
        if self.is_upper() && context & LOWER != 0 && context & INSIDE_UPPER == 0 {
            return Some(true);
        }
        if self.is_lower() && (context & UPPER != 0 || context & START_LOWER == 0) {
            return Some(false);
        }
        None
    }
}

/// Revises the decision about `token`, given the next token.
fn revise(token: &mut Token, next: &Token, model: &Model) {
    if !token.text.ends_with('.') {
        return;
    }
    let (kind, next_kind) = (token.without_period().to_string(), next.without_end().to_string());
    let initial = matches(&INITIAL, &token.text);
    let abbreviated = |token: &mut Token| {
        token.ends = false;
        token.abbreviation = true;
    };
    if model.collocations.contains(&(kind.clone(), next_kind.clone())) {
        return abbreviated(token);
    }
    let starts = next.starts(model);
    if (token.abbreviation || token.ellipsis) && !initial {
        let usual = next.is_upper() && model.starters.contains(&next_kind);
        if starts == Some(true) || usual {
            token.ends = true;
            return;
        }
    }
    if initial || kind == "##number##" {
        let never_lower = model.contexts.get(&next_kind).copied().unwrap_or(0) & LOWER == 0;
        if starts == Some(false) || (starts.is_none() && initial && next.is_upper() && never_lower) {
            abbreviated(token);
        }
    }
}

/// True if a sentence ends before the last token of `text`.
fn holds_end(text: &str, model: &Model) -> bool {
    let lines = text.split('\n').filter(|line| !line.trim().is_empty());
    let tokens = lines.flat_map(|line| TOKEN.find_iter(line).filter_map(Result::ok).map(|found| found.as_str()));
    let mut tokens: Vec<Token> = tokens.map(|text| Token::new(text, model)).collect();
    for at in 1..tokens.len() {
        let (before, after) = tokens.split_at_mut(at);
        revise(&mut before[at - 1], &after[0], model);
    }
    let count = tokens.len();
    tokens.iter().take(count.saturating_sub(1)).any(|token| token.ends)
}

/// A candidate: where its word begins, its mark, what follows, and where the next token begins.
struct Candidate {
    word: Range<usize>,
    end: usize,
    after: String,
    next: Option<usize>,
}

/// The candidates in `text`; of several in the same word, the last one.
fn candidates(text: &str) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    let mut previous: Range<usize> = 0..0;
    for captures in CANDIDATE.captures_iter(text).filter_map(Result::ok) {
        let Some(mark) = captures.get(0) else { continue };
        let before = &text[previous.end..mark.start()];
        let space = before.rfind([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']).unwrap_or(0);
        let start = match space {
            0 => previous.start,
            space => previous.end + space + 1,
        };
        let word = start..mark.start();
        if found.last().is_some_and(|last| last.word.end > word.start) {
            found.pop();
        }
        previous = word.clone();
        found.push(Candidate {
            word,
            end: mark.end(),
            after: captures
                .name("after")
                .map_or(String::new(), |after| after.as_str().into()),
            next: captures.name("next").map(|next| next.start()),
        });
    }
    found
}

/// The sentences of `text`.
pub fn sentences(text: &str) -> Vec<&str> {
    let model = &*MODEL;
    let mut slices: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    for candidate in candidates(text) {
        let context = format!("{}{}", &text[candidate.word.start..candidate.end], candidate.after);
        if holds_end(&context, model) {
            slices.push(start..candidate.end);
            start = candidate.next.unwrap_or(candidate.end);
        }
    }
    slices.push(start..text.trim_end().len().max(start));
    realigned(text, &slices)
}

/// `slices` with closing marks moved from the start of a sentence to the end of the sentence before.
fn realigned<'a>(text: &'a str, slices: &[Range<usize>]) -> Vec<&'a str> {
    let mut sentences = Vec::new();
    let mut moved = 0;
    for (at, slice) in slices.iter().enumerate() {
        let start = (slice.start + moved).min(slice.end);
        moved = 0;
        let mut end = slice.end;
        if let Some(next) = slices.get(at + 1)
            && let Ok(Some(found)) = CLOSING.find(&text[next.clone()])
        {
            end = next.start + found.as_str().trim_end().len();
            moved = found.end();
            sentences.push(&text[start..end]);
            continue;
        }
        if start < end {
            sentences.push(&text[start..end]);
        }
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abbreviations_initials_and_numbers_end_no_sentence() {
        for (text, expected) in [
            (
                "Dr. Smith left. He came back.",
                vec!["Dr. Smith left.", "He came back."],
            ),
            (
                "It cost 3.50 dollars! Really? Yes.",
                vec!["It cost 3.50 dollars!", "Really?", "Yes."],
            ),
            (
                "J. S. Bach wrote it. (He did.) So.",
                vec!["J. S. Bach wrote it.", "(He did.)", "So."],
            ),
            (
                "He said \"No.\" Then he left.",
                vec!["He said \"No.\"", "Then he left."],
            ),
            ("No end", vec!["No end"]),
            ("", vec![]),
            ("1. One\n2. Two", vec!["1.", "One\n2.", "Two"]),
        ] {
            assert_eq!(sentences(text), expected, "{text}");
        }
    }
}
