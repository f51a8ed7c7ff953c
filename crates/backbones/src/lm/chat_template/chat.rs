//! Compiled templates, and the texts they write.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State};
use serde_json::{Map, Value as Json};

use super::error::ChatError;
use super::limits::{self, Budget, watched};
use super::{filters, globals, join, macros, methods, python, source, tags, values};
use crate::lm::tokenizer::LmTokenizer;

/// What a template is given. Messages, tools and documents are JSON objects in the layout of transformers: a message has
/// `role` and `content` (text, or parts with a `type`), and may have `tool_calls` and whatever else the template reads.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conversation<'a> {
    /// Turns, first to last.
    pub messages: &'a [Json],
    /// JSON schemas of functions that the model may call.
    pub tools: Option<&'a [Json]>,
    /// Texts to answer from.
    pub documents: Option<&'a [Json]>,
    /// Further variables, such as `enable_thinking`.
    pub variables: Option<&'a Map<String, Json>>,
}

impl Conversation<'_> {
    fn parts(&self) -> impl Iterator<Item = &Json> {
        let lists = [Some(self.messages), self.tools, self.documents];
        let variables = self.variables.into_iter().flat_map(|variables| variables.values());
        lists.into_iter().flatten().flatten().chain(variables)
    }
}

/// A conversation as text. It already contains its special tokens: encode it without adding any.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Bytes of the text between `generation` tags: what the assistant says.
    pub generated: Vec<Range<usize>>,
}

/// The compiled templates of one tokenizer.
#[derive(Debug)]
pub struct Chat(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    environment: Environment<'static>,
    variables: BTreeMap<String, String>,
    /// Names of the templates without and with tools.
    names: [Result<String, ChatError>; 2],
}

impl Chat {
    /// Compiles the templates of `tokenizer`.
    ///
    /// # Errors
    /// A tokenizer without a template, or one that is malformed or beyond the limits.
    pub fn new(tokenizer: &LmTokenizer) -> Result<Self, ChatError> {
        let templates = tokenizer.chat_templates.clone();
        let names = [templates.choose(false), templates.choose(true)];
        if let [Err(error), Err(_)] = &names {
            return Err(error.clone());
        }
        let variables = tokenizer.special_tokens.clone();
        let length = names
            .iter()
            .flatten()
            .map(|name| templates.source(name).len() as u64)
            .sum();
        watched(limits::memory(length), move || {
            let mut environment = environment()?;
            for name in names.iter().flatten() {
                if environment.get_template(name).is_err() {
                    let source = limits::checked(templates.source(name))?;
                    let added = environment.add_template_owned(name.clone(), source);
                    added.map_err(failed)?;
                }
            }
            Ok(Self(Arc::new(Compiled {
                environment,
                variables,
                names,
            })))
        })
    }

    /// `conversation` as text, up to where the assistant's next turn starts if `open`.
    ///
    /// # Errors
    /// A template that fails, refuses the messages or exceeds a limit.
    pub fn render(&self, conversation: &Conversation, open: bool) -> Result<Rendered, ChatError> {
        let rendering = self.rendering(conversation)?;
        watched(rendering.budget.memory, move || rendering.render(usize::MAX, open))
    }

    /// What it takes to render `conversation` and its beginnings, on another thread.
    pub(super) fn rendering(&self, conversation: &Conversation) -> Result<Rendering, ChatError> {
        let Compiled { names, variables, .. } = &*self.0;
        let list = |items: &[Json]| Value::from(items.iter().map(values::value).collect::<Vec<_>>());
        let optional = |items: Option<&[Json]>| items.map_or(Value::from(()), list);
        let mut context: BTreeMap<String, Value> = BTreeMap::new();
        let named = variables.iter();
        context.extend(named.map(|(name, text)| (name.clone(), Value::from(text.as_str()))));
        context.insert("tools".into(), optional(conversation.tools));
        context.insert("documents".into(), optional(conversation.documents));
        let more = conversation.variables.into_iter().flatten();
        let more = more.map(|(name, json)| (name.clone(), values::value(json))).collect();
        Ok(Rendering {
            compiled: self.0.clone(),
            name: names[usize::from(conversation.tools.is_some())].clone()?,
            context,
            messages: conversation.messages.iter().map(values::message).collect(),
            more,
            budget: Budget::of(conversation.parts()),
        })
    }
}

/// A template and the conversation that it is given.
pub(super) struct Rendering {
    compiled: Arc<Compiled>,
    name: String,
    context: BTreeMap<String, Value>,
    messages: Vec<Value>,
    /// Variables of the user, which win over all others.
    more: Vec<(String, Value)>,
    pub budget: Budget,
}

impl Rendering {
    /// The first `end` messages as text, on this thread's stack.
    pub fn render(&self, end: usize, open: bool) -> Result<Rendered, ChatError> {
        let mut environment = self.compiled.environment.clone();
        environment.set_fuel(Some(self.budget.fuel));
        let template = environment.get_template(&self.name).map_err(failed)?;
        let messages = &self.messages[..end.min(self.messages.len())];
        let mut context = self.context.clone();
        context.insert("messages".into(), Value::from(messages.to_vec()));
        context.insert("add_generation_prompt".into(), open.into());
        context.extend(self.more.iter().cloned());
        let text = template.render(Value::from(context)).map_err(failed)?;
        Ok(unmarked(&self.budget.check(text)?))
    }
}

/// The text of a chat, ready for the assistant's turn if `open`.
///
/// # Errors
/// A tokenizer without a template, or a template that fails, refuses these messages or exceeds a limit.
pub fn prompt(tokenizer: &LmTokenizer, conversation: &Conversation, open: bool) -> Result<String, ChatError> {
    Ok(Chat::new(tokenizer)?.render(conversation, open)?.text)
}

/// What transformers sets up for templates.
fn environment() -> Result<Environment<'static>, ChatError> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(failed)?);
    environment.set_debug(false);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(|out, state, value| python::write(state, value, out));
    environment.set_unknown_method_callback(methods::method);
    environment.add_function("raise_exception", |message: Value| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, python::string(message)?))
    });
    environment.add_function(source::CONCAT, join::concat);
    environment.add_function(macros::MACRO, macros::bound);
    environment.add_function(tags::KEPT, |state: &State, value: Value| tags::kept(state, value));
    // Jinja has none, and it writes without fuel.
    environment.remove_global("debug");
    environment.add_function("strftime_now", python::strftime_now);
    globals::add(&mut environment);
    filters::add(&mut environment);
    environment.add_filter(tags::GENERATION, |text: String| format!("{OPENS}{text}{CLOSES}"));
    Ok(environment)
}

/// Noncharacters of Unicode, for use within a program: they mark what `generation` tags enclose.
const OPENS: char = '\u{fdd0}';
const CLOSES: char = '\u{fdd1}';

/// A text without its marks, and where they were.
fn unmarked(marked: &str) -> Rendered {
    let mut rendered = Rendered {
        text: String::with_capacity(marked.len()),
        generated: Vec::new(),
    };
    let mut open = None;
    for c in marked.chars() {
        let at = rendered.text.len();
        match c {
            OPENS => open = Some(at),
            CLOSES => rendered.generated.extend(open.take().map(|start| start..at)),
            c => rendered.text.push(c),
        }
    }
    rendered
}

/// An error of the engine in one line, without a terminal's control sequences.
fn failed(error: Error) -> ChatError {
    if error.kind() == ErrorKind::OutOfFuel {
        return ChatError::Limit("it works longer or writes more than any prompt needs".into());
    }
    let text = format!("{error:#}");
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    ChatError::Failed(line.take(500).collect())
}
