//! Which test sets, and how many of their questions.

use datasets::language::Question;

use crate::language::settings::Settings;

/// Those of `known` that `asked` names, all of them for `all`.
///
/// # Errors
/// A name that is not known.
pub fn chosen<'a>(asked: &[String], known: &[&'a str]) -> Result<Vec<&'a str>, String> {
    if asked.iter().any(|name| name == "all") {
        return Ok(known.to_vec());
    }
    asked
        .iter()
        .map(|name| {
            let found = known.iter().find(|known| known.eq_ignore_ascii_case(name));
            found
                .copied()
                .ok_or_else(|| format!("set '{name}' is unknown; there are: {}", known.join(", ")))
        })
        .collect()
}

/// The first `test_limit` of `questions`.
pub fn limited(mut questions: Vec<Question>, settings: &Settings) -> Vec<Question> {
    questions.truncate(settings.test_limit.unwrap_or(usize::MAX));
    questions
}
