//! What a template may cost.

use std::sync::LazyLock;
use std::thread;

use regex::{Captures, Regex};

use super::error::ChatError;
use super::source::rewritten;
use super::templates::LONGEST;
use wegeft::guard::guarded;

/// Work of one rendering: about two million instructions, or 128 MB of text and values.
pub(super) const FUEL: u64 = 2_000_000;
/// Bytes of stack that compiling and rendering get; only what is used is ever in memory.
const STACK: usize = 256 << 20;
/// Operators at most, whatever stands in texts included: each may be a level of the compiler's recursion.
const OPERATORS: usize = 30_000;

/// Name of the filter that marks what `generation` tags enclose.
pub(super) const GENERATION: &str = "generation__";

/// A template within the limits on its length and depth, in the engine's syntax, its `generation` tags as blocks that the
/// engine knows.
pub(super) fn checked(source: &str) -> Result<String, ChatError> {
    static TAGS: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").expect("a valid pattern"));
    if source.len() > LONGEST {
        let length = source.len();
        return Err(ChatError::Limit(format!(
            "it has {length} bytes, expected at most {LONGEST}"
        )));
    }
    if operators(source) > OPERATORS {
        return Err(ChatError::Limit(format!("it has more than {OPERATORS} operators")));
    }
    let source = rewritten(source);
    let replaced = TAGS.replace_all(&source, |tag: &Captures| {
        let (left, right) = (&tag[1], &tag[3]);
        match tag.get(2) {
            None => format!("{{%{left} filter {GENERATION} {right}%}}"),
            Some(_) => format!("{{%{left} endfilter {right}%}}"),
        }
    });
    Ok(replaced.into_owned())
}

fn operators(source: &str) -> usize {
    static WORDS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\b(?:not|and|or|in|is|if|elif|else)\b|[-+*/%~|.(\[{<>=!]").expect("a valid pattern")
    });
    WORDS.find_iter(source).count()
}

/// Runs `work` where deep recursion has room: a template may nest its values as deep as its fuel lasts.
pub(super) fn on_deep_stack<T: Send>(work: impl FnOnce() -> Result<T, ChatError> + Send) -> Result<T, ChatError> {
    let gone = |what: String| ChatError::Failed(format!("the template engine gives up ({what})"));
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK);
        let running = thread
            .spawn_scoped(scope, || guarded(work))
            .map_err(|e| gone(e.to_string()))?;
        let result = running.join().map_err(|_| gone("no reason given".into()))?;
        result.unwrap_or_else(|panic| Err(gone(panic.message)))
    })
}
