//! Chat messages to a prompt, by the model's own Jinja template, with what transformers offers to templates.
//!
//! A template is a stranger's program: it runs under limits on its size, its depth, its work, its time, its memory and what
//! it writes.

mod chat;
mod error;
mod limits;
mod python;
mod tags;
mod targets;
pub(crate) mod templates;
mod values;

pub use chat::{Chat, Conversation, Rendered, prompt};
pub use error::ChatError;
pub use targets::{ChatTokens, chat_tokens};
pub use templates::ChatTemplates;
