//! Language data: instruction files, the commonsense and arithmetic suites, and generated samples of both.

pub mod arithmetic;
pub mod commonsense;
pub mod error;
pub mod example;
pub mod extraction;
mod json_text;
pub mod message;
pub mod metamath;
pub mod published;
pub mod question;
pub mod records;
pub mod sample;
pub mod template;

pub use error::TextError;
pub use example::{Chat, Example, Examples, Fields};
pub use extraction::Protocol;
pub use message::Message;
pub use question::{Gold, Question};
pub use template::Template;
