//! The `generate` program: turns prompts into continuations (or logits).

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use backbones::lm::chat_template::{ChatError, Conversation, prompt};
use backbones::lm::{Decoder, GenerationConfig, LmTokenizer, PretrainedLm, load_lm};
use backbones::resolve_lm;
use burn::tensor::Device;
use clap::Parser;
use datasets::language::Template;
use serde_json::json;

use crate::cli::output::{counted, no_effect, note, print, write};
use crate::cli::{model_folder, shipped};
use crate::language::adapted::{Merge, adapted};
use crate::language::generation::{Generation, Generator};
use crate::language::model::BASE_MODEL;
use crate::language::settings::Form;
use crate::run::memory::peak_note;
use crate::tools::flags::{Drawing, Weights, whole, within};
use crate::tools::own_file::{refuse_another, remove_left};
use crate::tools::prompts::{Chat, Input, from_file};
use crate::tools::token_files::{read_input_ids, write_logits};

/// Continue prompts with a language model, with or without an adapter
///
/// Text goes to standard output, measurements to standard error. Without --prompt, --prompts and --input-ids the prompt
/// is read from standard input.
#[derive(Debug, Parser)]
pub struct Args {
    /// Model: a folder in Hugging Face's layout, or a hub name [default: the adapter's, or the shipped one].
    #[arg(long, alias = "backbone")]
    pub model: Option<String>,
    /// A prompt; repeat the flag for several.
    #[arg(long)]
    pub prompt: Vec<String>,
    /// File with one prompt per line, or a .jsonl, .json, .csv, .tsv or .parquet file.
    ///
    /// In those, each record is {"prompt": …} or {"messages": [{"role", "content"}, …]}. Messages go into the
    /// model's chat template, with "tools", "documents" and "chat_template_kwargs" if present.
    #[arg(long, conflicts_with = "prompt")]
    pub prompts: Option<PathBuf>,
    /// Tokens instead of text: a safetensors file with `input_ids`, as --logits writes it.
    #[arg(long, conflicts_with_all = ["prompt", "prompts", "chat"])]
    pub input_ids: Option<PathBuf>,
    /// Put plain-text prompts into the model's chat template too, as a user message.
    #[arg(long)]
    pub chat: bool,
    /// Template that `finetune --template` trained with.
    ///
    /// Plain-text prompts become its instruction; `chat` is the same as --chat.
    #[arg(long, value_enum, conflicts_with_all = ["chat", "input_ids"])]
    pub template: Option<Form>,
    /// System message before the user message.
    #[arg(long, requires = "chat", conflicts_with = "input_ids")]
    pub system: Option<String>,
    /// Adapter folder; the adapter is bound, not merged.
    #[arg(long)]
    pub adapter: Option<PathBuf>,
    /// Merge the adapter into the weights first; the text stays the same.
    #[arg(long, requires = "adapter")]
    pub merge: bool,
    /// Write tokens and logits to this safetensors file and generate nothing.
    ///
    /// `input_ids` and `logits` (tokens by vocabulary) of the prompt; for several prompts, `input_ids.0`, `logits.0` and
    /// so on.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = [
            "max_new_tokens", "sample", "temperature", "top_k", "top_p", "seed", "num_beams", "length_penalty",
            "repetition_penalty", "no_repeat_ngram_size", "stop", "batch_size", "json"
        ]
    )]
    pub logits: Option<PathBuf>,
    /// Maximum tokens after the prompt.
    #[arg(long, default_value_t = 64, value_parser = whole(1..=MOST_NEW_TOKENS))]
    pub max_new_tokens: usize,
    /// Sample each token instead of taking the most likely one.
    ///
    /// Settings of sampling that no flag gives come from the model's generation_config.json.
    #[arg(long, conflicts_with = "num_beams")]
    pub sample: bool,
    /// Sampling temperature; above 0 it implies --sample [default: 0; with --sample the model's, or else 1].
    ///
    /// Logits are divided by it; 0 takes the most likely token.
    #[arg(long)]
    pub temperature: Option<f64>,
    /// How tokens are drawn.
    #[command(flatten)]
    pub drawing: Drawing,
    /// Number of beams of a beam search [default: the model's, or else 1].
    #[arg(long, value_parser = whole(1..=1024))]
    pub num_beams: Option<usize>,
    /// Length penalty of beam search [default: the model's, or else 1].
    ///
    /// A beam's score is divided by its length raised to this power.
    #[arg(long, value_parser = within("a number", -100.0..=100.0))]
    pub length_penalty: Option<f64>,
    /// Above 1, tokens that the text already contains become less likely [default: the model's, or else 1].
    #[arg(long)]
    pub repetition_penalty: Option<f64>,
    /// Never repeat a sequence of this many tokens; 0 for no such limit [default: the model's, or else 0].
    #[arg(long, value_parser = whole(0..=MOST_NEW_TOKENS))]
    pub no_repeat_ngram_size: Option<usize>,
    /// Text that ends a continuation; repeat the flag for several.
    #[arg(long)]
    pub stop: Vec<String>,
    /// Prompts per batch.
    #[arg(long, default_value_t = 8, value_parser = whole(1..=65_536))]
    pub batch_size: usize,
    /// Print one JSON line per prompt.
    #[arg(long)]
    pub json: bool,
    /// The weights in memory.
    #[command(flatten)]
    pub weights: Weights,
    /// Device: flex, ndarray, vulkan, cuda:1, …
    #[arg(long, default_value = crate::cli::device::DEFAULT)]
    pub device: String,
}

/// The most tokens that a flag may ask for: room for all of them is made at the start.
pub(crate) const MOST_NEW_TOKENS: usize = 131_072;

impl Args {
    fn is_chat(&self) -> bool {
        self.chat || self.template == Some(Form::Chat)
    }

    /// True if tokens are sampled.
    fn draws(&self) -> bool {
        match self.temperature {
            Some(temperature) => temperature != 0.0,
            None => self.sample,
        }
    }

    /// A line for each flag that was given although nothing reads it; `beams`: those of the search.
    fn unread(&self, beams: usize) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.draws() {
            let why = match self.temperature {
                Some(_) => "--temperature 0 takes the most likely token",
                None => "it needs --sample",
            };
            lines.extend(self.drawing.given().into_iter().map(|flag| no_effect(flag, why)));
        }
        if beams == 1 && self.length_penalty.is_some() {
            lines.push(no_effect("--length-penalty", "it needs --num-beams above 1"));
        }
        // Messages in a file have a system message whatever the template is.
        let plain = self.template.is_some_and(|template| template != Form::Chat) && self.prompts.is_none();
        if plain && self.system.is_some() {
            lines.push(no_effect("--system", "only --template chat has a system message"));
        }
        lines
    }

    /// The settings; flags that were not given are taken from `model`, those of sampling only when sampling.
    fn generation(&self, model: &GenerationConfig) -> Result<Generation, String> {
        let draws = self.draws();
        let own = GenerationConfig::default();
        let drawn = if draws { model } else { &own };
        let default = Generation::default();
        let temperature = if draws { 1.0 } else { 0.0 };
        let settings = Generation {
            max_new_tokens: self.max_new_tokens,
            num_beams: self
                .num_beams
                .or(model.num_beams.filter(|_| !draws))
                .unwrap_or(default.num_beams),
            length_penalty: self
                .length_penalty
                .or(model.length_penalty)
                .unwrap_or(default.length_penalty),
            temperature: self.temperature.or(drawn.temperature).unwrap_or(temperature),
            top_k: self.drawing.top_k.or(drawn.top_k).unwrap_or(TOP_K),
            top_p: self.drawing.top_p.or(drawn.top_p).unwrap_or(default.top_p),
            repetition_penalty: self
                .repetition_penalty
                .or(model.repetition_penalty)
                .unwrap_or(default.repetition_penalty),
            no_repeat_ngram_size: self
                .no_repeat_ngram_size
                .or(model.no_repeat_ngram_size)
                .unwrap_or(default.no_repeat_ngram_size),
            stop: self.stop.clone(),
            seed: self.drawing.seed(),
        };
        settings.check()?;
        Ok(settings)
    }
}

/// The top_k of transformers if neither the user nor the model sets it.
pub(crate) const TOP_K: usize = 50;

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
    let options = args.weights.options();
    let precision = options.precision;
    if args.merge && options.quantize.is_some() {
        return Err("--merge writes into weights that --quantize has rounded; leave one of them out".into());
    }
    let device = crate::cli::device::device(&args.device)?;
    device.seed(args.drawing.seed());
    let texts = match args.input_ids {
        Some(_) => Vec::new(),
        None => inputs(args)?,
    };
    let start = Instant::now();
    if let Some(out) = &args.logits {
        refuse_another("--logits", out, "logits")?;
        remove_left(out, "logits");
    }
    let folder = folder(args)?;
    let shown = folder.display().to_string();
    model_folder::loading(&shown, &folder).into_iter().for_each(note);
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
    args.unread(settings.num_beams).into_iter().for_each(note);
    if args.logits.is_none() {
        generation.check(settings.temperature > 0.0)?;
        if let Some(warning) = generation.warning(settings.num_beams) {
            note(warning);
        }
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

fn encoded(args: &Args, tokenizer: &LmTokenizer, input: Input) -> Result<Prompt, String> {
    let mut chat = match input {
        Input::Text(text) if !args.is_chat() => {
            let text = match args.template {
                Some(template) => Template::from(template).prompt(&text, ""),
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
        "{} in {seconds:.1} s, {:.1} tokens/s, prompts included{}",
        counted(count, "token"),
        count as f64 / seconds,
        peak_note(generator.device)
    ));
    Ok(())
}

/// Folder of the requested model, or of the one that the adapter was trained on.
fn folder(args: &Args) -> Result<PathBuf, String> {
    if let Some(name) = &args.model {
        let folder = resolve_lm(name).map_err(|e| e.to_string())?;
        model_folder::check(&folder, args.adapter.as_deref())?;
        return Ok(folder);
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
        "logits of {} written to {}{}",
        counted(prompts.len(), "prompt"),
        path.display(),
        peak_note(device)
    ));
    Ok(())
}
