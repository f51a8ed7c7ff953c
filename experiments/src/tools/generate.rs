//! The `generate` program: turns prompts into continuations (or logits).

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use backbones::lm::chat_template::{ChatError, Conversation, prompt};
use backbones::lm::{Decoder, GenerationConfig, LmTokenizer, LoadOptions, PretrainedLm, load_lm};
use backbones::resolve_lm;
use burn::tensor::Device;
use clap::Parser;
use datasets::language::Template;
use serde_json::{Map, Value, json};

use crate::cli::output::{note, print, write};
use crate::cli::shipped;
use crate::language::adapted::{Merge, adapted};
use crate::language::generation::{Generation, Generator};
use crate::language::model::BASE_MODEL;
use crate::run::memory::peak_note;
use crate::tools::flags::{DTYPES, QUANTIZED};
use crate::tools::token_files::{read_input_ids, write_logits};

/// Continues prompts with a language model, with or without an adapter. Text goes to standard output, measurements to
/// standard error.
#[derive(Debug, Parser)]
pub struct Args {
    /// Model: a folder in Hugging Face's layout, or a hub name [default: the model that the adapter was trained on, or
    /// the small one that ships with the program].
    #[arg(long, alias = "backbone")]
    pub model: Option<String>,
    /// A prompt; repeat the flag for several.
    #[arg(long)]
    pub prompt: Vec<String>,
    /// File with one prompt per line; in a .jsonl file, each line is {"prompt": …} or {"messages": [{"role",
    /// "content"}, …]}. Messages go into the model's chat template, with "tools", "documents" and
    /// "chat_template_kwargs" if present.
    #[arg(long, conflicts_with = "prompt")]
    pub prompts: Option<PathBuf>,
    /// Tokens instead of text: a safetensors file with `input_ids`, as --logits writes it.
    #[arg(long, conflicts_with_all = ["prompt", "prompts", "chat"])]
    pub input_ids: Option<PathBuf>,
    /// Put plain-text prompts into the model's chat template too, as a user message.
    #[arg(long)]
    pub chat: bool,
    /// Template that `finetune --template` trained with: alpaca, plain or chat. Plain-text prompts become its
    /// instruction; `chat` is the same as --chat.
    #[arg(long, value_parser = Template::named, conflicts_with_all = ["chat", "input_ids"])]
    pub template: Option<Template>,
    /// System message before the user message.
    #[arg(long, requires = "chat")]
    pub system: Option<String>,
    /// Adapter folder; the adapter is bound, not merged.
    #[arg(long)]
    pub adapter: Option<PathBuf>,
    /// Merge the adapter into the weights first; the text stays the same.
    #[arg(long, requires = "adapter")]
    pub merge: bool,
    /// Write `input_ids` and `logits` (tokens by vocabulary) of each prompt to this safetensors file and generate
    /// nothing; for several prompts, `input_ids.0`, `logits.0` and so on.
    #[arg(long)]
    pub logits: Option<PathBuf>,
    /// Maximum tokens after the prompt.
    #[arg(long, default_value_t = 64)]
    pub max_new_tokens: usize,
    /// Sample each token instead of taking the most likely one; settings that no flag gives come from the model's
    /// generation_config.json.
    #[arg(long, conflicts_with = "num_beams")]
    pub sample: bool,
    /// Sampling temperature, by which logits are divided; a value above 0 implies --sample, 0 takes the most likely
    /// token [default: 0; with --sample the model's, or else 1].
    #[arg(long, allow_negative_numbers = true)]
    pub temperature: Option<f64>,
    /// Sample only from this many most likely tokens; 0 for all [default: the model's, or else 50 as in transformers].
    #[arg(long)]
    pub top_k: Option<usize>,
    /// Sample only from the most likely tokens whose total probability reaches this value [default: the model's, or
    /// else 1].
    #[arg(long, allow_negative_numbers = true)]
    pub top_p: Option<f64>,
    /// Number of beams of a beam search.
    #[arg(long, default_value_t = 1)]
    pub num_beams: usize,
    /// Length penalty of beam search: a beam's score is divided by its length raised to this power.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub length_penalty: f64,
    /// Above 1, tokens that the text already contains become less likely [default: 1; when sampling, the model's].
    #[arg(long, allow_negative_numbers = true)]
    pub repetition_penalty: Option<f64>,
    /// Never repeat a sequence of this many tokens; 0 for no such limit.
    #[arg(long, default_value_t = 0)]
    pub no_repeat_ngram_size: usize,
    /// Text that ends a continuation; repeat the flag for several.
    #[arg(long)]
    pub stop: Vec<String>,
    /// Prompts per batch.
    #[arg(long, default_value_t = 8)]
    pub batch_size: usize,
    /// Print one JSON line per prompt.
    #[arg(long)]
    pub json: bool,
    /// Data type of the weights in memory. The two 16-bit types halve the memory, and with it the time per token.
    #[arg(long, default_value = "f32", value_parser = DTYPES)]
    pub dtype: String,
    /// Quantize the weights of linear layers; on a CPU, each weight takes one byte in both.
    #[arg(long, value_parser = QUANTIZED)]
    pub quantize: Option<String>,
    /// Device: flex, ndarray, vulkan, cuda:1, …
    #[arg(long, default_value = crate::cli::device::DEFAULT)]
    pub device: String,
    /// Seed for sampling.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
}

impl Args {
    fn is_chat(&self) -> bool {
        self.chat || self.template == Some(Template::Chat)
    }

    /// The settings; when sampling, flags that were not given are taken from `model`.
    fn generation(&self, model: &GenerationConfig) -> Result<Generation, String> {
        let draws = match self.temperature {
            Some(temperature) => temperature != 0.0,
            None => self.sample,
        };
        let own = GenerationConfig::default();
        let model = if draws { model } else { &own };
        let default = Generation::default();
        let temperature = if draws { 1.0 } else { 0.0 };
        let settings = Generation {
            max_new_tokens: self.max_new_tokens,
            num_beams: self.num_beams,
            length_penalty: self.length_penalty,
            temperature: self.temperature.or(model.temperature).unwrap_or(temperature),
            top_k: self.top_k.or(model.top_k).unwrap_or(TOP_K),
            top_p: self.top_p.or(model.top_p).unwrap_or(default.top_p),
            repetition_penalty: self
                .repetition_penalty
                .or(model.repetition_penalty)
                .unwrap_or(default.repetition_penalty),
            no_repeat_ngram_size: self.no_repeat_ngram_size,
            stop: self.stop.clone(),
            seed: self.seed,
        };
        settings.check()?;
        Ok(settings)
    }

    fn options(&self) -> Result<LoadOptions, String> {
        Ok(LoadOptions {
            precision: self.dtype.parse().map_err(|e| format!("--dtype: {e}"))?,
            quantize: match &self.quantize {
                Some(name) => Some(name.parse().map_err(|e| format!("--quantize: {e}"))?),
                None => None,
            },
        })
    }
}

/// The top_k of transformers if neither the user nor the model sets it.
pub(crate) const TOP_K: usize = 50;

/// Text or tokens to continue.
enum Input {
    Text(String),
    Chat(Chat),
}

/// A conversation, in the form that chat templates expect.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Chat {
    messages: Vec<Value>,
    tools: Option<Vec<Value>>,
    documents: Option<Vec<Value>>,
    chat_template_kwargs: Option<Map<String, Value>>,
}

/// A prompt: its text, if it has one, and its tokens.
struct Prompt {
    text: Option<String>,
    tokens: Vec<u32>,
}

/// Runs the program.
///
/// # Errors
/// One sentence: settings, a model, adapter, tokenizer or prompts that cannot be read or do not fit.
pub fn generate(args: &Args) -> Result<(), String> {
    // Before the model is loaded, which may take a long time.
    args.generation(&GenerationConfig::default())?;
    if args.batch_size == 0 {
        return Err("--batch-size must be at least 1".into());
    }
    let options = args.options()?;
    let precision = options.precision;
    if args.merge && options.quantize.is_some() {
        return Err("--merge writes into weights that --quantize has rounded; leave one of them out".into());
    }
    let device = crate::cli::device::device(&args.device)?;
    device.seed(args.seed);
    let texts = match args.input_ids {
        Some(_) => Vec::new(),
        None => inputs(args)?,
    };
    let start = Instant::now();
    let folder = folder(args)?;
    // Before the weights: reading a vocabulary temporarily takes three times the memory that it needs afterwards.
    let tokenizer = LmTokenizer::load(&folder);
    let loaded = load_lm(&folder, &options, &device).map_err(|e| e.to_string())?;
    let seconds = start.elapsed().as_secs_f64();
    note(format_args!("loaded in {seconds:.1} s{}", peak_note(&device)));
    let (tokenizer, prompts) = match &args.input_ids {
        // Tokens need no tokenizer; with one, their continuations are also decoded to text.
        Some(path) => {
            let prompts = read_input_ids(path)?.into_iter();
            let prompts = prompts.map(|tokens| Prompt { text: None, tokens }).collect();
            (tokenizer.ok(), prompts)
        }
        None => {
            let tokenizer = tokenizer.map_err(|e| e.to_string())?;
            let prompts = texts.into_iter().map(|input| encoded(args, &tokenizer, input));
            let prompts = prompts.collect::<Result<Vec<_>, String>>()?;
            (Some(tokenizer), prompts)
        }
    };
    let PretrainedLm {
        model,
        generation,
        notes,
    } = loaded;
    for note in notes {
        crate::cli::output::note(note);
    }
    let settings = args.generation(&generation)?;
    if args.logits.is_none() {
        generation.check(settings.temperature > 0.0)?;
    }
    let model = match &args.adapter {
        Some(adapter) => {
            let device = &device;
            let merge = args.merge.then_some(Merge { precision, device });
            adapted(model, adapter, merge)?
        }
        None => model,
    };
    if let Some(tokenizer) = &tokenizer {
        let rows = model.config().vocab_size;
        for (index, prompt) in prompts.iter().enumerate().filter(|(_, prompt)| prompt.text.is_some()) {
            let checked = tokenizer.check_ids(&prompt.tokens, rows);
            checked.map_err(|e| format!("prompt {index}: {e}"))?;
        }
    }
    match &args.logits {
        Some(path) => logits(&model, &prompts, path, &device),
        None => {
            let generator = Generator {
                model: &model,
                tokenizer: tokenizer.as_ref(),
                eos: &generation.eos,
                device: &device,
            };
            continuations(&generator, &prompts, &settings, args)
        }
    }
}

/// The prompts from the flags, a file or standard input.
fn inputs(args: &Args) -> Result<Vec<Input>, String> {
    let texts: Vec<String> = match &args.prompts {
        Some(path) => return from_file(path),
        None if !args.prompt.is_empty() => args.prompt.clone(),
        None if std::io::stdin().is_terminal() => {
            return Err("give --prompt, --prompts or --input-ids, or a prompt on standard input".into());
        }
        None => {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|e| format!("standard input: {e}"))?;
            // The line break at the end of a shell's output is not part of the prompt.
            vec![text.strip_suffix('\n').unwrap_or(&text).to_string()]
        }
    };
    if texts.iter().all(String::is_empty) {
        return Err("there is no prompt; give --prompt, --prompts or --input-ids".into());
    }
    Ok(texts.into_iter().map(Input::Text).collect())
}

fn from_file(path: &Path) -> Result<Vec<Input>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let is_json = path.extension().is_some_and(|extension| extension == "jsonl");
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let inputs = lines.map(|(index, line)| match is_json {
        true => json_prompt(line).map_err(|e| format!("{}:{}: {e}", path.display(), index + 1)),
        false => Ok(Input::Text(line.to_string())),
    });
    let inputs = inputs.collect::<Result<Vec<_>, String>>()?;
    match inputs.is_empty() {
        true => Err(format!("there is no prompt in {}; write one a line", path.display())),
        false => Ok(inputs),
    }
}

fn json_prompt(line: &str) -> Result<Input, String> {
    const EXPECTED: &str = r#"expected {"prompt": …} or {"messages": [{"role": …, "content": …}, …]}"#;
    let json: Value = serde_json::from_str(line).map_err(|_| EXPECTED)?;
    if let Some(prompt) = json.get("prompt").and_then(Value::as_str) {
        return Ok(Input::Text(prompt.to_string()));
    }
    let is_message = |message: &Value| message.get("role").is_some_and(Value::is_string);
    match serde_json::from_value::<Chat>(json.clone()) {
        Ok(chat) if chat.messages.iter().all(is_message) && json.get("messages").is_some() => {
            match chat.messages.is_empty() {
                true => Err("'messages' is empty; give at least one".into()),
                false => Ok(Input::Chat(chat)),
            }
        }
        _ => Err(EXPECTED.into()),
    }
}

fn encoded(args: &Args, tokenizer: &LmTokenizer, input: Input) -> Result<Prompt, String> {
    let mut chat = match input {
        Input::Text(text) if !args.is_chat() => {
            let text = match args.template {
                Some(template) => template.prompt(&text, ""),
                None => text,
            };
            return Ok(Prompt {
                tokens: tokenizer.encode(&text, true)?,
                text: Some(text),
            });
        }
        Input::Text(text) => Chat {
            messages: vec![json!({ "role": "user", "content": text })],
            ..Chat::default()
        },
        Input::Chat(chat) => chat,
    };
    if let Some(system) = &args.system {
        let message = json!({ "role": "system", "content": system });
        chat.messages.insert(0, message);
    }
    let conversation = Conversation {
        messages: &chat.messages,
        tools: chat.tools.as_deref(),
        documents: chat.documents.as_deref(),
        variables: chat.chat_template_kwargs.as_ref(),
    };
    let text = prompt(tokenizer, &conversation, true).map_err(|error| match error {
        ChatError::NoTemplate if args.is_chat() => format!("{error}; leave --chat or --template out"),
        ChatError::NoTemplate => format!("{error}; give the prompts as {{\"prompt\": …}}"),
        other => other.to_string(),
    })?;
    Ok(Prompt {
        tokens: tokenizer.encode(&text, false)?,
        text: Some(text),
    })
}

fn continuations(generator: &Generator, prompts: &[Prompt], settings: &Generation, args: &Args) -> Result<(), String> {
    let start = Instant::now();
    let mut count = 0;
    // Streaming is useful only for a single prompt.
    let stream = prompts.len() == 1 && !args.json && settings.num_beams == 1 && generator.tokenizer.is_some();
    for (batch, prompts) in prompts.chunks(args.batch_size).enumerate() {
        let tokens: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.tokens.clone()).collect();
        let first = batch * args.batch_size;
        let settings = Generation {
            seed: settings.seed.wrapping_add(first as u64),
            ..settings.clone()
        };
        let mut shown = Ok(());
        let mut show = |_: usize, text: &str| {
            if stream && shown.is_ok() {
                shown = write(text);
            }
        };
        let generated = generator.generate(&tokens, &settings, &mut show)?;
        shown?;
        for (index, (prompt, generated)) in prompts.iter().zip(&generated).enumerate() {
            count += generated.tokens.len();
            let tokens = || format!("{:?}", generated.tokens);
            let text = generator.tokenizer.map(|_| &generated.text);
            if args.json {
                let line = json!({ "prompt": prompt.text, "text": text, "tokens": generated.tokens });
                print(line)?;
            } else if stream {
                print("")?;
            } else {
                print(format_args!(
                    "[{}] {}",
                    first + index,
                    text.cloned().unwrap_or_else(tokens)
                ))?;
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    note(format_args!(
        "{count} tokens in {seconds:.1} s, {:.1} tokens/s, prompts included{}",
        count as f64 / seconds,
        peak_note(generator.device)
    ));
    Ok(())
}

/// Folder of the requested model, or of the one that the adapter was trained on.
fn folder(args: &Args) -> Result<PathBuf, String> {
    if let Some(name) = &args.model {
        return resolve_lm(name).map_err(|e| e.to_string());
    }
    let config = args.adapter.as_ref().map(wegeft::read_config).transpose();
    let config = config.map_err(|e| e.to_string())?;
    let base = config
        .as_ref()
        .and_then(|config| config.extra.get(BASE_MODEL)?.as_str());
    match base.filter(|name| !name.is_empty()) {
        Some(name) => resolve_lm(name).map_err(|e| format!("{e}, or give the adapter's model as --model")),
        None => shipped::language_model(),
    }
}

fn logits(model: &Decoder, prompts: &[Prompt], path: &Path, device: &Device) -> Result<(), String> {
    let tokens: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.tokens.as_slice()).collect();
    write_logits(model, &tokens, path, device)?;
    note(format_args!(
        "logits of {} prompts written to {}{}",
        prompts.len(),
        path.display(),
        peak_note(device)
    ));
    Ok(())
}
