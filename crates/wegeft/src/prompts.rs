//! Where the prompts of a batch are.

/// The positions of tokens within their prompts, for methods that edit the first and last tokens of each prompt (ReFT).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prompts {
    /// For each token of a batch `[batch, tokens]`, row by row: how many tokens of its prompt come before it and how many after it.
    /// `None` for tokens outside prompts: padding, answers.
    pub places: Vec<Option<[usize; 2]>>,
}
