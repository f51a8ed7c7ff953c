//! Words as in NLTK 3.8: by `\w+`, and as `word_tokenize` splits them.

use std::sync::LazyLock;

use fancy_regex::Regex;

use super::sentences::sentences;
use super::text::{WORD, boundary, split};

static WORDS: LazyLock<Regex> = LazyLock::new(|| Regex::new(&format!("{WORD}+")).expect("a valid pattern"));

/// The number of runs of letters, digits and underscores.
pub fn count(text: &str) -> usize {
    WORDS.find_iter(text).filter(Result::is_ok).count()
}

/// Patterns and their replacements, in order.
static RULES: LazyLock<Vec<(Regex, String)>> = LazyLock::new(|| {
    let edge = boundary();
    let clitic = format!(r"(?i)(')(?!re|ve|ll|m|t|s|d|n)({WORD}){edge}");
    let joined = |first: &str, second: &str| format!("(?i){edge}({first})({second}){edge}");
    let patterns: Vec<(String, &str)> = vec![
        ("([«“‘„]|[`]+)".into(), " $1 "),
        ("^\"".into(), "``"),
        ("(``)".into(), " $1 "),
        (r#"([ (\[{<])("|'{2})"#.into(), "$1 `` "),
        (clitic, "$1 $2"),
        (r#"([^.])(\.)([\])}>"'»”’ ]*)\s*$"#.into(), "$1 $2 $3 "),
        (r"([:,])([^\d])".into(), " $1 $2"),
        (r"([:,])$".into(), " $1 "),
        (r"(\.{2,})".into(), " $1 "),
        ("([;@#$%&])".into(), " $1 "),
        (r#"([^.])(\.)([\])}>"']*)\s*$"#.into(), "$1 $2$3 "),
        ("([?!])".into(), " $1 "),
        ("([^'])' ".into(), "$1 ' "),
        (r"([*])".into(), " $1 "),
        (r"([\]\[(){}<>])".into(), " $1 "),
        ("(--)".into(), " $1 "),
        // Here the text gets a space at both ends.
        ("^(?s)(.*)$".into(), " $1 "),
        ("([»”’])".into(), " $1 "),
        ("('')".into(), " $1 "),
        ("\"".into(), " '' "),
        ("([^' ])('[sS]|'[mM]|'[dD]|') ".into(), "$1 $2 "),
        ("([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ".into(), "$1 $2 "),
        (joined("can", "not"), " $1 $2 "),
        (joined("d", "'ye"), " $1 $2 "),
        (joined("gim", "me"), " $1 $2 "),
        (joined("gon", "na"), " $1 $2 "),
        (joined("got", "ta"), " $1 $2 "),
        (joined("lem", "me"), " $1 $2 "),
        (joined("more", "'n"), " $1 $2 "),
        (format!(r"(?i){edge}(wan)(na)(?=\s)"), " $1 $2 "),
        (format!("(?i) ('t)(is){edge}"), " $1 $2 "),
        (format!("(?i) ('t)(was){edge}"), " $1 $2 "),
    ];
    let rule = |(pattern, becomes): (String, &str)| {
        let becomes = becomes
            .replace("$1", "${1}")
            .replace("$2", "${2}")
            .replace("$3", "${3}");
        (Regex::new(&pattern).expect("a valid pattern"), becomes)
    };
    patterns.into_iter().map(rule).collect()
});

/// The words and marks of `text`, sentence by sentence.
pub fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    for sentence in sentences(text) {
        let mut spaced = sentence.to_string();
        for (regex, becomes) in RULES.iter() {
            spaced = regex.replace_all(&spaced, becomes.as_str()).into_owned();
        }
        tokens.extend(split(&spaced).map(String::from));
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_parted_as_in_the_treebank() {
        let of = |text: &str| tokens(text).join("|");
        assert_eq!(of("I CAN'T pay $3.88 (USD)."), "I|CA|N'T|pay|$|3.88|(|USD|)|.");
        assert_eq!(
            of("They'll say \"CANNOT\", Ben's too."),
            "They|'ll|say|``|CAN|NOT|''|,|Ben|'s|too|."
        );
        assert_eq!(of("U.S. law: yes... no"), "U.S.|law|:|yes|...|no");
        assert_eq!(count("don't stop-it, já 3.5"), 7);
    }
}
