//! Chat messages to a prompt, by the model's own Jinja template, with what transformers offers to templates.
//!
//! A template is a third-party program: it runs under limits on its size, its depth, its work, its time, its memory and
//! its output.

mod arguments;
mod characters;
mod chat;
mod dumps;
mod error;
mod escape;
mod escapes;
mod filters;
mod globals;
mod join;
mod limits;
mod macros;
mod methods;
mod operands;
mod percent;
mod pretty;
mod python;
mod source;
mod str_format;
mod tags;
mod targets;
pub(crate) mod templates;
mod tokens;
mod values;
mod wrap;

pub use chat::{Chat, Conversation, Rendered, prompt};
pub use error::ChatError;
pub use targets::{ChatTokens, chat_tokens};
pub use templates::{ChatTemplates, FURTHER};
