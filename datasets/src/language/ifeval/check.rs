//! The 25 kinds of verifiable instruction, as IFEval's own code checks them.

use std::sync::LazyLock;

use fancy_regex::Regex;
use langdetect::{DetectorFactory, Seed};
use serde_json::Value;

use super::pattern::{compiled, cost};
use super::sentences::sentences;
use super::text::{boundary, is_lower, is_upper, split, strip};
use super::words;
use crate::language::json_text;

/// How a number is compared.
#[derive(Debug, Clone, Copy)]
enum Relation {
    LessThan,
    AtLeast,
}

/// A number with which a count is compared.
#[derive(Debug, Clone, Copy)]
pub struct Count {
    relation: Relation,
    number: usize,
}

impl Count {
    fn holds(self, found: usize) -> bool {
        match self.relation {
            Relation::LessThan => found < self.number,
            Relation::AtLeast => found >= self.number,
        }
    }
}

/// An instruction with its arguments.
#[derive(Debug, Clone)]
pub enum Check {
    /// keywords:existence
    Keywords(Vec<Regex>),
    /// keywords:frequency
    Frequency(Regex, Count),
    /// keywords:forbidden_words
    Forbidden(Vec<Regex>),
    /// keywords:letter_frequency
    Letters(char, Count),
    /// language:response_language
    Language(String),
    /// length_constraints:number_sentences
    Sentences(Count),
    /// length_constraints:number_paragraphs
    Paragraphs(usize),
    /// length_constraints:number_words
    Words(Count),
    /// length_constraints:nth_paragraph_first_word
    FirstWord {
        paragraphs: usize,
        nth: usize,
        word: String,
    },
    /// detectable_content:number_placeholders
    Placeholders(usize),
    /// detectable_content:postscript
    Postscript(Regex),
    /// detectable_format:number_bullet_lists
    Bullets(usize),
    /// detectable_format:constrained_response
    Constrained,
    /// detectable_format:number_highlighted_sections
    Highlights(usize),
    /// detectable_format:multiple_sections
    Sections(Regex, usize),
    /// detectable_format:json_format
    Json,
    /// detectable_format:title
    Title,
    /// combination:two_responses
    TwoResponses,
    /// combination:repeat_prompt
    Repeat(String),
    /// startend:end_checker
    End(String),
    /// startend:quotation
    Quotation,
    /// change_case:capital_word_frequency
    CapitalWords(Count),
    /// change_case:english_capital
    Capital,
    /// change_case:english_lowercase
    Lowercase,
    /// punctuation:no_comma
    NoComma,
}

/// Words that an instruction may have.
const WORDS: usize = 1000;

/// The arguments of an instruction; null means absent.
struct Arguments<'a>(&'a Value);

impl Arguments<'_> {
    fn value(&self, name: &str) -> Result<&Value, String> {
        let found = self.0.get(name).filter(|value| !value.is_null());
        found.ok_or_else(|| format!("its argument '{name}' is absent"))
    }

    fn text(&self, name: &str) -> Result<&str, String> {
        let value = self.value(name)?;
        value
            .as_str()
            .ok_or_else(|| format!("its argument '{name}' is {value}, expected a string"))
    }

    fn number(&self, name: &str) -> Result<usize, String> {
        let value = self.value(name)?;
        // In tables whose columns are often empty, integers are stored as floats.
        let number = value.as_f64().filter(|number| *number >= 0.0 && number.fract() == 0.0);
        number
            .map(|number| number as usize)
            .ok_or_else(|| format!("its argument '{name}' is {value}, expected a whole number"))
    }

    fn count(&self, relation: &str, number: &str) -> Result<Count, String> {
        let relation = match self.text(relation)? {
            "less than" => Relation::LessThan,
            "at least" => Relation::AtLeast,
            other => {
                return Err(format!(
                    "its argument '{relation}' is '{other}', expected 'less than' or 'at least'"
                ));
            }
        };
        Ok(Count {
            relation,
            number: self.number(number)?,
        })
    }

    fn texts(&self, name: &str) -> Result<Vec<&str>, String> {
        let wrong = || format!("its argument '{name}' is no list of strings, an empty one or one of more than {WORDS}");
        let list = self
            .value(name)?
            .as_array()
            .filter(|list| (1..=WORDS).contains(&list.len()))
            .ok_or_else(wrong)?;
        list.iter().map(|item| item.as_str().ok_or_else(wrong)).collect()
    }
}

impl Check {
    /// The instruction `id` with its arguments.
    pub fn new(id: &str, arguments: &Value) -> Result<Self, String> {
        let arguments = Arguments(arguments);
        Ok(match id {
            "keywords:existence" => {
                let of = |word: &str| compiled(word, &format!("(?i){word}"));
                Self::Keywords(
                    arguments
                        .texts("keywords")?
                        .into_iter()
                        .map(of)
                        .collect::<Result<_, _>>()?,
                )
            }
            "keywords:frequency" => {
                let word = strip(arguments.text("keyword")?);
                Self::Frequency(
                    compiled(word, &format!("(?i){word}"))?,
                    arguments.count("relation", "frequency")?,
                )
            }
            "keywords:forbidden_words" => {
                let edge = boundary();
                let of = |word: &str| compiled(word, &format!("(?i){edge}{word}{edge}"));
                Self::Forbidden(
                    arguments
                        .texts("forbidden_words")?
                        .into_iter()
                        .map(of)
                        .collect::<Result<_, _>>()?,
                )
            }
            "keywords:letter_frequency" => {
                let text = arguments.text("letter")?;
                let mut letters = text.chars();
                match (letters.next(), letters.next()) {
                    (Some(letter), None) if !letter.is_whitespace() => Self::Letters(
                        letter.to_lowercase().next().unwrap_or(letter),
                        arguments.count("let_relation", "let_frequency")?,
                    ),
                    _ => return Err(format!("its argument 'letter' is '{text}', expected one letter")),
                }
            }
            "language:response_language" => Self::Language(arguments.text("language")?.into()),
            "length_constraints:number_sentences" => Self::Sentences(arguments.count("relation", "num_sentences")?),
            "length_constraints:number_paragraphs" => Self::Paragraphs(arguments.number("num_paragraphs")?),
            "length_constraints:number_words" => Self::Words(arguments.count("relation", "num_words")?),
            "length_constraints:nth_paragraph_first_word" => {
                let (paragraphs, nth) = (arguments.number("num_paragraphs")?, arguments.number("nth_paragraph")?);
                if nth == 0 || nth > paragraphs {
                    return Err(format!(
                        "its argument 'nth_paragraph' is {nth}, of {paragraphs} paragraphs"
                    ));
                }
                Self::FirstWord {
                    paragraphs,
                    nth,
                    word: arguments.text("first_word")?.to_lowercase(),
                }
            }
            "detectable_content:number_placeholders" => Self::Placeholders(arguments.number("num_placeholders")?),
            "detectable_content:postscript" => {
                let marker = strip(arguments.text("postscript_marker")?);
                let own = match marker {
                    "P.P.S" => r"\s*p\.\s?p\.\s?s.*$".to_string(),
                    "P.S." => r"\s*p\.\s?s\..*$".to_string(),
                    other => format!(r"\s*{}.*$", other.to_lowercase()),
                };
                Self::Postscript(compiled(marker, &format!("(?m){own}"))?)
            }
            "detectable_format:number_bullet_lists" => Self::Bullets(arguments.number("num_bullets")?),
            "detectable_format:constrained_response" => Self::Constrained,
            "detectable_format:number_highlighted_sections" => Self::Highlights(arguments.number("num_highlights")?),
            "detectable_format:multiple_sections" => {
                let marker = strip(arguments.text("section_spliter")?);
                Self::Sections(
                    compiled(marker, &format!(r"\s?{marker}\s?\d+\s?"))?,
                    arguments.number("num_sections")?,
                )
            }
            "detectable_format:json_format" => Self::Json,
            "detectable_format:title" => Self::Title,
            "combination:two_responses" => Self::TwoResponses,
            "combination:repeat_prompt" => Self::Repeat(strip(arguments.text("prompt_to_repeat")?).to_lowercase()),
            "startend:end_checker" => Self::End(strip(arguments.text("end_phrase")?).to_lowercase()),
            "startend:quotation" => Self::Quotation,
            "change_case:capital_word_frequency" => {
                Self::CapitalWords(arguments.count("capital_relation", "capital_frequency")?)
            }
            "change_case:english_capital" => Self::Capital,
            "change_case:english_lowercase" => Self::Lowercase,
            "punctuation:no_comma" => Self::NoComma,
            _ => return Err("it is no kind of IFEval's".into()),
        })
    }

    /// What its patterns cost, see [`cost`].
    pub(super) fn cost(&self) -> usize {
        match self {
            Self::Keywords(words) | Self::Forbidden(words) => words.iter().map(cost).sum(),
            Self::Frequency(pattern, _) | Self::Postscript(pattern) | Self::Sections(pattern, _) => cost(pattern),
            _ => 0,
        }
    }

    /// Whether `response` follows it.
    pub fn is_followed(&self, response: &str) -> bool {
        match self {
            Self::Keywords(words) => words.iter().all(|word| occurs(word, response)),
            Self::Frequency(word, count) => count.holds(occurrences(word, response)),
            Self::Forbidden(words) => !words.iter().any(|word| occurs(word, response)),
            Self::Letters(letter, count) => {
                count.holds(response.to_lowercase().chars().filter(|c| c == letter).count())
            }
            Self::Language(language) => is_language(response, language),
            Self::Sentences(count) => count.holds(sentences(response).len()),
            Self::Paragraphs(number) => paragraphs(response) == Some(*number),
            Self::Words(count) => count.holds(words::count(response)),
            Self::FirstWord { paragraphs, nth, word } => has_first_word(response, *paragraphs, *nth, word),
            Self::Placeholders(number) => occurrences(&PLACEHOLDER, response) >= *number,
            Self::Postscript(marker) => occurs(marker, &response.to_lowercase()),
            Self::Bullets(number) => occurrences(&STARS, response) + occurrences(&DASHES, response) == *number,
            Self::Constrained => ANSWERS.iter().any(|answer| response.contains(answer)),
            Self::Highlights(number) => highlights(response) >= *number,
            Self::Sections(marker, number) => occurrences(marker, response) >= *number,
            Self::Json => is_json(response),
            Self::Title => has_title(response),
            Self::TwoResponses => are_two(response),
            Self::Repeat(prompt) => strip(response).to_lowercase().starts_with(prompt.as_str()),
            Self::End(phrase) => strip(response)
                .trim_matches('"')
                .to_lowercase()
                .ends_with(phrase.as_str()),
            Self::Quotation => {
                let text = strip(response);
                text.chars().nth(1).is_some() && text.starts_with('"') && text.ends_with('"')
            }
            Self::CapitalWords(count) => {
                count.holds(words::tokens(response).iter().filter(|word| is_upper(word)).count())
            }
            Self::Capital => is_upper(response) && is_language(response, "en"),
            Self::Lowercase => is_lower(response) && is_language(response, "en"),
            Self::NoComma => !response.contains(','),
        }
    }
}

fn known(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a valid pattern")
}

static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| known(r"\[.*?\]"));
static STARS: LazyLock<Regex> = LazyLock::new(|| known(r"(?m)^\s*\*[^*].*$"));
static DASHES: LazyLock<Regex> = LazyLock::new(|| known(r"(?m)^\s*-.*$"));
static HIGHLIGHT: LazyLock<Regex> = LazyLock::new(|| known(r"\*[^\n*]*\*"));
static DOUBLE_HIGHLIGHT: LazyLock<Regex> = LazyLock::new(|| known(r"\*\*[^\n*]*\*\*"));
static DIVIDER: LazyLock<Regex> = LazyLock::new(|| known(r"\s?\*\*\*\s?"));
static TITLE: LazyLock<Regex> = LazyLock::new(|| known(r"<<[^\n]+>>"));

const ANSWERS: [&str; 3] = ["My answer is yes.", "My answer is no.", "My answer is maybe."];

fn occurs(regex: &Regex, text: &str) -> bool {
    regex.is_match(text).unwrap_or(false)
}

fn occurrences(regex: &Regex, text: &str) -> usize {
    regex.find_iter(text).filter(Result::is_ok).count()
}

/// The detector is randomized; a fixed seed makes its result for a response reproducible.
static LANGUAGES: LazyLock<DetectorFactory> = LazyLock::new(|| {
    let mut languages = DetectorFactory::builtin().clone();
    languages.seed = Seed::int(0);
    languages
});

/// The language that langdetect detects; `None` for a text without letters.
pub(super) fn language(text: &str) -> Option<String> {
    LANGUAGES.detect(text).ok()
}

/// A text without letters matches any language.
fn is_language(text: &str, wanted: &str) -> bool {
    language(text).is_none_or(|found| found == wanted)
}

/// Paragraphs between dividers; `None` if one in the middle is empty.
fn paragraphs(response: &str) -> Option<usize> {
    let mut parts = Vec::new();
    let mut start = 0;
    for divider in DIVIDER.find_iter(response).filter_map(Result::ok) {
        parts.push(&response[start..divider.start()]);
        start = divider.end();
    }
    parts.push(&response[start..]);
    let empty = |part: &&str| strip(part).is_empty();
    let inner = parts.get(1..parts.len().saturating_sub(1)).unwrap_or_default();
    if inner.iter().any(empty) {
        return None;
    }
    Some(parts.iter().filter(|part| !empty(part)).count())
}

fn has_first_word(response: &str, wanted: usize, nth: usize, word: &str) -> bool {
    let parts: Vec<&str> = response.split("\n\n").collect();
    let count = parts.iter().filter(|part| !strip(part).is_empty()).count();
    if nth > count {
        return false;
    }
    // By its position among all parts, including empty ones.
    let Some(first) = split(parts[nth - 1]).next() else {
        return false;
    };
    let first = first.trim_start_matches('\'').trim_start_matches('"');
    let end = first.find(['.', ',', '?', '!', '\'', '"']).unwrap_or(first.len());
    count == wanted && first[..end].to_lowercase() == word
}

fn highlights(response: &str) -> usize {
    let inner = |text: &str| !strip(text).is_empty();
    let single = HIGHLIGHT.find_iter(response).filter_map(Result::ok);
    let single = single.filter(|found| inner(found.as_str().trim_matches('*'))).count();
    let double = DOUBLE_HIGHLIGHT.find_iter(response).filter_map(Result::ok);
    let double = double.filter(|found| {
        let text = found.as_str();
        let text = text.strip_prefix("**").unwrap_or(text);
        inner(text.strip_suffix("**").unwrap_or(text))
    });
    single + double.count()
}

fn is_json(response: &str) -> bool {
    let mut text = strip(response);
    for fence in ["```json", "```Json", "```JSON", "```"] {
        text = text.strip_prefix(fence).unwrap_or(text);
    }
    let text = strip(text.strip_suffix("```").unwrap_or(text));
    serde_json::from_str::<Value>(&json_text::standard(text)).is_ok()
}

fn has_title(response: &str) -> bool {
    let titles = TITLE.find_iter(response).filter_map(Result::ok);
    let mut titles = titles.map(|found| found.as_str().trim_start_matches('<').trim_end_matches('>'));
    titles.any(|title| !strip(title).is_empty())
}

fn are_two(response: &str) -> bool {
    let parts: Vec<&str> = response.split("******").collect();
    let last = parts.len() - 1;
    let mut valid = Vec::new();
    for (at, part) in parts.into_iter().enumerate() {
        match strip(part) {
            "" if at != 0 && at != last => return false,
            "" => {}
            text => valid.push(text),
        }
    }
    valid.len() == 2 && valid[0] != valid[1]
}
