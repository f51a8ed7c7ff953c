//! Language data: instruction files, the suites' training and test sets, and generated samples of both.

pub mod arithmetic;
pub mod code;
pub mod commonsense;
pub mod error;
pub mod example;
pub mod extraction;
pub mod ifeval;
pub mod instruct;
mod json_text;
pub mod message;
pub mod metamath;
pub mod published;
pub mod question;
pub(crate) mod record;
pub mod records;
pub mod sample;
pub mod template;

pub use code::CodeTask;
pub use error::TextError;
pub use example::{Chat, Example, Examples, Fields};
pub use extraction::Protocol;
pub use message::Message;
pub use question::{Gold, Question};
pub use template::Template;
