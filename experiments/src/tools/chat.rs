//! The `chat` program: a conversation with a language model in the terminal, with adapters that can be switched on and
//! off.

use std::io::{BufRead, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use backbones::TokenizerError;
use backbones::lm::chat_template::{Chat, ChatError, Conversation};
use backbones::lm::{Decoder, GenerationConfig, LmTokenizer, load_lm};
use burn::tensor::Device;
use clap::Parser;
use datasets::language::Template;
use serde_json::{Value, json};

use crate::cli::output::{no_effect, note, plain};
use crate::cli::{model_folder, shipped};
use crate::language::adapted::adapted;
use crate::language::generation::{Generation, Generator};
use crate::language::model::BASE_MODEL;
use crate::language::settings::Form;
use crate::tools::flags::{Drawing, Weights, whole};
use crate::tools::generate::{MOST_NEW_TOKENS, TOP_K};

const COMMANDS: &str = "\
/adapter on|off|NAME  answer with an adapter or without (NAME: one of --adapter)
/system TEXT          set the system message; without TEXT, remove it
/reset                forget the conversation
/help                 this list
/quit                 end (so does the end of the input)";

/// Chat with a language model, with or without adapters
///
/// Each line is a message; a line that starts with / is a command, and /help lists the commands. Answers go to standard
/// output as they are generated, everything else to standard error.
#[derive(Debug, Parser)]
pub struct Args {
    /// Model: a folder in Hugging Face's layout, or a hub name [default: the adapter's, or the shipped one].
    #[arg(long, alias = "backbone")]
    pub model: Option<String>,
    /// Adapter folder, or NAME=FOLDER; repeat the flag for several adapters.
    ///
    /// The first one is active at the start.
    #[arg(long)]
    pub adapter: Vec<String>,
    /// System message.
    #[arg(long)]
    pub system: Option<String>,
    /// How messages become a prompt [default: chat; alpaca for the shipped model].
    ///
    /// chat is the model's chat template; alpaca and plain are for models that `finetune --template` trained with them.
    #[arg(long, value_enum)]
    pub template: Option<Form>,
    /// Maximum tokens per answer.
    #[arg(long, default_value_t = 256, value_parser = whole(1..=MOST_NEW_TOKENS))]
    pub max_new_tokens: usize,
    /// Sampling temperature; 0 always takes the most likely token [default: the model's, or else 0].
    ///
    /// Logits are divided by it.
    #[arg(long)]
    pub temperature: Option<f64>,
    /// How tokens are drawn.
    #[command(flatten)]
    pub drawing: Drawing,
    /// The weights in memory.
    #[command(flatten)]
    pub weights: Weights,
    /// Device: flex, ndarray, vulkan, cuda:1, …
    #[arg(long, default_value = crate::cli::device::DEFAULT)]
    pub device: String,
}

impl Args {
    /// The settings; flags that were not given are taken from `model`.
    fn generation(&self, model: &GenerationConfig) -> Result<Generation, String> {
        let temperature = self.temperature.or(model.temperature).unwrap_or(0.0);
        let settings = Generation {
            max_new_tokens: self.max_new_tokens,
            temperature,
            top_k: self.drawing.top_k.or(model.top_k).unwrap_or(TOP_K),
            top_p: self.drawing.top_p.or(model.top_p).unwrap_or(1.0),
            repetition_penalty: model.repetition_penalty.unwrap_or(1.0),
            no_repeat_ngram_size: model.no_repeat_ngram_size.unwrap_or(0),
            seed: self.drawing.seed(),
            ..Generation::default()
        };
        settings.check()?;
        Ok(settings)
    }

    /// A line for each flag that was given although nothing reads it with these settings.
    fn unread(&self, settings: &Generation) -> Vec<String> {
        let given = match settings.temperature > 0.0 {
            true => Vec::new(),
            false => self.drawing.given(),
        };
        let line = |flag| no_effect(flag, "the temperature is 0, which takes the most likely token");
        given.into_iter().map(line).collect()
    }

    /// Names and folders of the adapters.
    fn adapters(&self) -> Result<Vec<(String, PathBuf)>, String> {
        let mut named: Vec<(String, PathBuf)> = Vec::new();
        for text in &self.adapter {
            // The name of a folder may contain an equals sign.
            let (name, folder) = match text.split_once('=') {
                Some((name, folder)) if !Path::new(text).exists() => (name.to_string(), PathBuf::from(folder)),
                _ => {
                    let folder = PathBuf::from(text);
                    let name = folder
                        .file_name()
                        .map_or(text.clone(), |name| name.to_string_lossy().into_owned());
                    (name, folder)
                }
            };
            if matches!(name.as_str(), "on" | "off" | "") {
                return Err(format!(
                    "--adapter {text}: '{name}' cannot be the name of an adapter; give NAME=FOLDER"
                ));
            }
            if named.iter().any(|(known, _)| *known == name) {
                return Err(format!(
                    "--adapter {text}: '{name}' is already the name of another adapter; give NAME=FOLDER"
                ));
            }
            named.push((name, folder));
        }
        Ok(named)
    }
}

/// Why a conversation ends.
enum End {
    /// The output was closed, or the input has ended.
    Over,
    /// An error, in one sentence.
    Failed(String),
}

impl From<String> for End {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

/// Runs the program.
///
/// # Errors
/// One sentence: a model or adapter that cannot be read or does not fit, a model without a chat template.
pub fn chat(args: &Args) -> Result<(), String> {
    args.generation(&GenerationConfig::default())?;
    let adapters = args.adapters()?;
    let device = crate::cli::device::device(&args.device)?;
    device.seed(args.drawing.seed());
    let (folder, shipped) = model_folder(args, &adapters)?;
    let tokenizer = LmTokenizer::load(&folder).map_err(|e| e.to_string())?;
    let own = if shipped { Form::Alpaca } else { Form::Chat };
    let template = Template::from(args.template.unwrap_or(own));
    let form = match template {
        // Before the weights are read, which may take a long time.
        Template::Chat => Prompts::Chat(Box::new(Chat::new(&tokenizer).map_err(|error| match error {
            ChatError::NoTemplate => {
                format!("{error}; give --template alpaca or plain, as the model was trained, or choose another model")
            }
            other => other.to_string(),
        })?)),
        other => Prompts::Plain(other),
    };
    let loaded = load_lm(&folder, &args.weights.options(), &device).map_err(|e| e.to_string())?;
    for text in &loaded.notes {
        note(text);
    }
    let settings = args.generation(&loaded.generation)?;
    loaded.generation.check(settings.temperature > 0.0)?;
    if let Some(warning) = loaded.generation.warning(settings.num_beams) {
        note(warning);
    }
    if loaded.generation.num_beams.is_some_and(|beams| beams > 1) {
        note("generation_config.json asks for a beam search; a chat has none and takes the most likely token");
    }
    args.unread(&settings).into_iter().for_each(note);
    let bound = adapters.into_iter().map(|(name, folder)| {
        let model = adapted(loaded.model.clone(), &folder, None)?;
        Ok((name, model))
    });
    let adapters: Vec<(String, Decoder)> = bound.collect::<Result<_, String>>()?;
    let mut eos = loaded.generation.eos.clone();
    eos.extend(tokenizer.eos_token().and_then(|token| tokenizer.token_id(token)));
    let mut talk = Talk {
        on: (!adapters.is_empty()).then_some(0),
        last: 0,
        base: loaded.model,
        adapters,
        tokenizer,
        eos,
        device,
        form,
        settings,
        system: args.system.clone(),
        turns: Vec::new(),
    };
    match talk.run(&mut std::io::stdin().lock()) {
        Ok(()) | Err(End::Over) => Ok(()),
        Err(End::Failed(message)) => Err(message),
    }
}

/// Folder of the requested model or of the one that the first adapter was trained on, and whether it is the one that
/// ships with the program.
fn model_folder(args: &Args, adapters: &[(String, PathBuf)]) -> Result<(PathBuf, bool), String> {
    let resolved = |name: &str| backbones::resolve_lm(name).map_err(|e| e.to_string());
    if let Some(name) = &args.model {
        let folder = resolved(name)?;
        model_folder::refuse_adapter(&folder)?;
        model_folder::note_adapter(&folder, adapters.iter().map(|(_, adapter)| adapter.as_path()));
        return Ok((folder, false));
    }
    let config = adapters
        .first()
        .map(|(_, folder)| wegeft::read_config(folder))
        .transpose();
    let config = config.map_err(|e| e.to_string())?;
    let base = config
        .as_ref()
        .and_then(|config| config.extra.get(BASE_MODEL)?.as_str());
    match base.filter(|name| !name.is_empty()) {
        Some(name) => Ok((resolved(name)?, false)),
        None => Ok((shipped::language_model()?, true)),
    }
}

/// How a conversation becomes a prompt.
enum Prompts {
    Chat(Box<Chat>),
    Plain(Template),
}

/// A conversation.
struct Talk {
    base: Decoder,
    adapters: Vec<(String, Decoder)>,
    /// The active adapter.
    on: Option<usize>,
    /// The adapter that `/adapter on` activates.
    last: usize,
    tokenizer: LmTokenizer,
    eos: Vec<u32>,
    device: Device,
    form: Prompts,
    settings: Generation,
    system: Option<String>,
    /// The turns of the user and the model.
    turns: Vec<(String, String)>,
}

impl Talk {
    fn run(&mut self, input: &mut impl BufRead) -> Result<(), End> {
        let asks = std::io::stdin().is_terminal();
        if asks {
            note("Type a message; /help lists the commands.");
        }
        let mut line = Vec::new();
        loop {
            if asks {
                said("> ")?;
            }
            line.clear();
            let read = input.read_until(b'\n', &mut line);
            if read.map_err(|e| End::Failed(format!("standard input: {e}")))? == 0 {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim();
            match text.strip_prefix('/') {
                _ if text.is_empty() => {}
                Some("quit") => return Ok(()),
                Some(command) => self.command(command),
                None => self.answer(text)?,
            }
        }
    }

    fn command(&mut self, text: &str) {
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        match name {
            "help" => note(COMMANDS),
            "reset" => {
                self.turns.clear();
                note("the conversation is forgotten");
            }
            "system" => {
                self.system = (!rest.is_empty()).then(|| rest.to_string());
                note(if rest.is_empty() {
                    "no system message"
                } else {
                    "the system message is set"
                });
            }
            "adapter" => self.switch(rest),
            other => note(format_args!("there is no command /{other}; /help lists them")),
        }
    }

    fn switch(&mut self, name: &str) {
        let names: Vec<&str> = self.adapters.iter().map(|(name, _)| name.as_str()).collect();
        if names.is_empty() {
            return note("there is no adapter; start with --adapter FOLDER");
        }
        self.on = match name {
            "on" => Some(self.last),
            "off" => None,
            "" => self.on,
            name => match names.iter().position(|known| *known == name) {
                Some(at) => Some(at),
                None => {
                    return note(format_args!(
                        "there is no adapter '{name}'; there are: {}",
                        names.join(", ")
                    ));
                }
            },
        };
        self.last = self.on.unwrap_or(self.last);
        match self.on {
            Some(at) => note(format_args!("adapter {}", names[at])),
            None => note("no adapter"),
        }
    }

    /// Answers `text` in the context of the conversation.
    fn answer(&mut self, text: &str) -> Result<(), End> {
        let tokens = match self.prompt(text) {
            Ok(tokens) => tokens,
            Err(Unasked::Refused(message)) => {
                note(message);
                return Ok(());
            }
            Err(Unasked::GivenUp(message)) => return Err(End::Failed(message)),
        };
        let model = self.on.map_or(&self.base, |at| &self.adapters[at].1);
        let generator = Generator {
            model,
            tokenizer: Some(&self.tokenizer),
            eos: &self.eos,
            device: &self.device,
        };
        let settings = Generation {
            // Each turn has different random numbers.
            seed: self.settings.seed.wrapping_add(self.turns.len() as u64),
            ..self.settings.clone()
        };
        let mut shown = Ok(());
        let mut show = |_: usize, piece: &str| {
            if shown.is_ok() {
                shown = said(piece);
            }
        };
        let generated = generator.generate(&[tokens], &settings, &mut show);
        shown?;
        match generated {
            Ok(generated) => {
                said("\n")?;
                let answer = generated.into_iter().next().map(|generated| generated.text);
                let answer = answer.unwrap_or_default().trim().to_string();
                self.turns.push((text.to_string(), answer));
            }
            Err(message) => note(format_args!("{message}; /reset forgets the conversation")),
        }
        Ok(())
    }

    /// The tokens of the conversation with `text` as its last message.
    fn prompt(&self, text: &str) -> Result<Vec<u32>, Unasked> {
        let tokens = match &self.form {
            Prompts::Chat(chat) => {
                let message = |role: &str, content: &str| json!({ "role": role, "content": content });
                let mut messages: Vec<Value> = self.system.iter().map(|text| message("system", text)).collect();
                for (asked, answered) in &self.turns {
                    messages.extend([message("user", asked), message("assistant", answered)]);
                }
                messages.push(message("user", text));
                let conversation = Conversation {
                    messages: &messages,
                    ..Conversation::default()
                };
                let rendered = chat.render(&conversation, true).map_err(|error| match error {
                    ChatError::GivenUp(_) => Unasked::GivenUp(error.to_string()),
                    error => Unasked::Refused(error.to_string()),
                })?;
                self.tokenizer.encode(&rendered.text, false)?
            }
            Prompts::Plain(template) => {
                let turns = self
                    .turns
                    .iter()
                    .map(|(asked, answered)| [asked.as_str(), answered.as_str()]);
                let whole = template.after(self.system.as_deref(), turns, &template.prompt(text, ""));
                self.tokenizer.encode(&whole, true)?
            }
        };
        self.tokenizer.check_ids(&tokens, self.base.config().vocab_size)?;
        Ok(tokens)
    }
}

/// Why a message does not become a prompt.
enum Unasked {
    /// A template may refuse a message; the conversation continues.
    Refused(String),
    /// The template or the tokenizer still works and takes memory.
    GivenUp(String),
}

impl From<TokenizerError> for Unasked {
    fn from(error: TokenizerError) -> Self {
        match error {
            TokenizerError::GivenUp(_) => Self::GivenUp(error.to_string()),
            error => Self::Refused(error.to_string()),
        }
    }
}

/// Prints `text` immediately; ends the conversation if the output was closed.
fn said(text: &str) -> Result<(), End> {
    let mut out = std::io::stdout().lock();
    match write!(out, "{}", plain(text)).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(End::Over),
        Err(error) => Err(End::Failed(format!("cannot write to standard output: {error}"))),
    }
}
