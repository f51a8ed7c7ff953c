//! Chat messages to a prompt, by the model's own Jinja template.

use backbones::lm::LmTokenizer;
use datasets::language::Message;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value as Jinja, context};
use serde_json::Value;

/// Why chat messages could not become a prompt.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// A tokenizer without a template.
    #[error("this model has no chat template (tokenizer_config.json or chat_template.jinja)")]
    NoTemplate,
    /// A template that fails or refuses the messages.
    #[error("the model's chat template fails: {0}")]
    Failed(String),
}

/// The prompt of a chat with these tools (none as transformers has it where there are none), ready for the assistant's turn if `open`. It has its special tokens in it: encode it without
/// adding any.
///
/// # Errors
/// A tokenizer without a template, or a template that fails or refuses these messages.
pub fn prompt(tokenizer: &LmTokenizer, messages: &[Message], tools: &[Value], open: bool) -> Result<String, ChatError> {
    let template = tokenizer.chat_template.as_deref().ok_or(ChatError::NoTemplate)?;
    let failed = |error: Error| ChatError::Failed(format!("{error:#}"));
    let mut environment = Environment::new();
    // What transformers sets for these templates.
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(failed)?);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_template("chat", template).map_err(failed)?;
    let chat = environment.get_template("chat").map_err(failed)?;
    let token = |token: &Option<String>| token.clone().unwrap_or_default();
    chat.render(context! {
        messages => Jinja::from_serialize(messages),
        tools => (!tools.is_empty()).then(|| Jinja::from_serialize(tools)),
        add_generation_prompt => open,
        bos_token => token(&tokenizer.bos_token),
        eos_token => token(&tokenizer.eos_token),
        pad_token => token(&tokenizer.pad_token),
    })
    .map_err(failed)
}
