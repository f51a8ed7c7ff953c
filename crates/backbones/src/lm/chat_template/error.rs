//! What goes wrong with chat templates.

use crate::error::TokenizerError;

/// Why chat messages could not become a prompt.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// A tokenizer without a template.
    #[error("this model has no chat template (tokenizer_config.json or chat_template.jinja)")]
    NoTemplate,
    /// Several templates, and none for this conversation.
    #[error("this model has several chat templates and none is called 'default'; it has {0}")]
    NoDefault(String),
    /// A template that fails or refuses the messages.
    #[error("the model's chat template fails: {0}")]
    Failed(String),
    /// A template that exceeds a limit.
    #[error("the model's chat template is refused: {0}")]
    Limit(String),
    /// A template that works too long or takes too much memory. Its thread cannot be stopped and works on until the program
    /// ends, so end the program soon.
    #[error("the model's chat template is given up: {0}")]
    GivenUp(String),
    /// A tokenizer that fails on the text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}
