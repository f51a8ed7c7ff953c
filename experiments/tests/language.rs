//! The language programs, run as a user runs them, on small models; and every kind of bad input.

#[path = "language/bad_input.rs"]
mod bad_input;
#[path = "language/chat.rs"]
mod chat;
#[path = "language/code.rs"]
mod code;
#[path = "language/finetune.rs"]
mod finetune;
#[path = "language/instruct.rs"]
mod instruct;
#[path = "language/metamath.rs"]
mod metamath;
#[path = "language/parity.rs"]
mod parity;
#[path = "language/program.rs"]
mod program;
#[path = "language/sandbox.rs"]
mod sandbox;
#[path = "language/suites.rs"]
mod suites;
#[path = "language/texts.rs"]
mod texts;
