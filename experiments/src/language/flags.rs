//! Command line of `finetune`, `commonsense` and `arithmetic`: a flag for each field of [`Settings`].

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::flags::{absolute, absolute_model};
use crate::language::settings::Settings;
use crate::settings::read;

/// What every language program takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Preset (TOML); flags override its fields.
    #[arg(long, conflicts_with = "resume")]
    pub config: Option<PathBuf>,
    /// Go on with the run folder given by --out, with the settings it was made with.
    #[arg(long)]
    pub resume: bool,
    /// Run folder [default: runs/ and the program's name].
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// The settings, one flag a field.
    #[command(flatten)]
    pub flags: Flags,
}

/// One flag per field of [`Settings`].
#[derive(Debug, Default, clap::Args, Serialize)]
pub struct Flags {
    /// Language model: Hugging Face folder (config.json, safetensors, tokenizer.json) or hub name
    /// [default: the small one that ships].
    #[arg(long)]
    model: Option<String>,
    /// Type of the weights in memory: f32, bf16 or f16 [default: f32].
    #[arg(long)]
    dtype: Option<String>,
    /// Suites: folder with LLM-Adapters' files, `<set>/test.json` [default: the generated sample].
    #[arg(long)]
    data: Option<PathBuf>,
    /// Suites: test sets, separated by commas, or `all` [default: all].
    #[arg(long, value_delimiter = ',')]
    sets: Option<Vec<String>>,
    /// Suites: new (WeGeFT's code) or old (GIFT's) targets and extraction [default: new].
    #[arg(long)]
    protocol: Option<String>,
    /// Methods, separated by commas: none (the model as it is), lora, wegeft, full
    /// [default: wegeft; the samples: none,lora,wegeft].
    #[arg(long, value_delimiter = ',')]
    method: Option<Vec<String>>,
    /// Suites: evaluate this adapter folder, train nothing. finetune: start from it.
    #[arg(long)]
    adapter: Option<PathBuf>,
    /// Training files, JSON, JSONL or parquet, separated by commas or given several times
    /// [default: the suite's own under --data].
    #[arg(long, value_delimiter = ',')]
    train_file: Option<Vec<PathBuf>>,
    /// finetune: name of a field in the files, as `output=response`; several times for several fields.
    #[arg(long)]
    field: Option<Vec<String>>,
    /// finetune: how an instruction becomes a prompt: alpaca, plain, chat [default: alpaca].
    #[arg(long)]
    template: Option<String>,
    /// At most so many training examples [default: all].
    #[arg(long)]
    train_limit: Option<usize>,
    /// At most so many questions of each test set [default: all].
    #[arg(long)]
    test_limit: Option<usize>,
    /// Part of the training examples, from the end, that is held out and evaluated on [default: 0].
    #[arg(long, allow_negative_numbers = true)]
    validation: Option<f64>,
    /// Modules that LoRA and WeGeFT adapt, separated by commas [default: q_proj,k_proj,v_proj,up_proj,down_proj].
    #[arg(long, value_delimiter = ',')]
    target_modules: Option<Vec<String>>,
    /// Rank of WeGeFT [default: 64; the samples 16].
    #[arg(long)]
    r: Option<usize>,
    /// Numerator of WeGeFT's scale alpha / r [default: 128; the samples 32].
    #[arg(long, allow_negative_numbers = true)]
    alpha: Option<f64>,
    /// WeGeFT's dropout on the elements of W, in training; the paper's is 0.1 [default: 0].
    #[arg(long, allow_negative_numbers = true)]
    weight_dropout: Option<f64>,
    /// Rank of LoRA [default: 16; the samples 8].
    #[arg(long)]
    lora_r: Option<usize>,
    /// Numerator of LoRA's scale alpha / r [default: 32; the samples 16].
    #[arg(long, allow_negative_numbers = true)]
    lora_alpha: Option<f64>,
    /// LoRA's dropout on what A reads, in training [default: 0].
    #[arg(long, allow_negative_numbers = true)]
    lora_dropout: Option<f64>,
    /// Epochs [default: 3].
    #[arg(long)]
    epochs: Option<usize>,
    /// Sequences a batch [default: 16].
    #[arg(long)]
    batch_size: Option<usize>,
    /// Batches a step: their gradients are those of one batch of all [default: 1].
    #[arg(long)]
    accumulation: Option<usize>,
    /// Put several examples into a row, as many as fit max_length; none sees another. A batch is then batch_size
    /// rows, and the loss the mean over all their learned tokens [default: false].
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    packing: Option<bool>,
    /// Peak learning rate [default: 0.0004; commonsense 0.0002; the samples 0.005].
    #[arg(long, allow_negative_numbers = true)]
    learning_rate: Option<f64>,
    /// linear, cosine or constant, after the warm-up [default: linear].
    #[arg(long)]
    lr_scheduler: Option<String>,
    /// Part of the steps that are warm-up [default: 0.1].
    #[arg(long, allow_negative_numbers = true)]
    warmup_ratio: Option<f64>,
    /// Weight decay [default: 0].
    #[arg(long, allow_negative_numbers = true)]
    weight_decay: Option<f64>,
    /// Greatest norm over all gradients; 0 does not clip [default: 1].
    #[arg(long, allow_negative_numbers = true)]
    max_grad_norm: Option<f64>,
    /// Tokens of an example; what is longer is cut, and counted [default: 512].
    #[arg(long)]
    max_length: Option<usize>,
    /// Steps between evaluations and checkpoints [default: an epoch].
    #[arg(long)]
    eval_steps: Option<usize>,
    /// Which adapter is kept: last, or best (of the lowest validation loss) [default: last].
    #[arg(long)]
    keep: Option<String>,
    /// Keep only the layers' inputs and compute the rest again in the backward pass [default: false].
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    gradient_checkpointing: Option<bool>,
    /// Most memory that the estimate before the start may come to, MB [default: what is free].
    #[arg(long)]
    memory_limit: Option<u64>,
    /// Suites: questions that are answered at a time [default: 16; the samples 50].
    #[arg(long)]
    eval_batch_size: Option<usize>,
    /// Suites: tokens of an answer at most [default: commonsense 32, arithmetic 512; the samples 12 and 40].
    #[arg(long)]
    max_new_tokens: Option<usize>,
    /// Suites: beams; 1 is greedy [default: 1].
    #[arg(long)]
    num_beams: Option<usize>,
    /// commonsense: also choose the option of the greatest likelihood [default: true].
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    likelihood: Option<bool>,
    /// Seed [default: 42].
    #[arg(long)]
    seed: Option<u64>,
    /// flex, ndarray, vulkan, cuda:1, … [default: flex].
    #[arg(long)]
    device: Option<String>,
}

impl Args {
    /// The run folder of `program`.
    pub fn out(&self, program: &str) -> PathBuf {
        self.out.clone().unwrap_or_else(|| Path::new("runs").join(program))
    }

    /// The preset (or, with --resume, the run folder's settings; or `default`) with the flags on top, checked.
    ///
    /// # Errors
    /// A preset that cannot be read, an unknown key, a value out of range.
    pub fn settings(&self, program: &str, default: impl FnOnce(&Self) -> Settings) -> Result<Settings, String> {
        let base = match (&self.config, self.resume) {
            (Some(path), _) => read(path)?,
            (None, true) => read(&self.out(program).join("config.toml"))?,
            (None, false) => default(self),
        };
        let mut table = toml::Table::try_from(&base).map_err(|e| e.to_string())?;
        table.extend(toml::Table::try_from(&self.flags).map_err(|e| e.to_string())?);
        let mut settings: Settings = table.try_into().map_err(|e: toml::de::Error| e.message().to_string())?;
        // Paths from the root on: a run folder goes on from any working folder.
        settings.model = settings.model.map(absolute_model).transpose()?;
        for path in settings
            .data
            .iter_mut()
            .chain(&mut settings.adapter)
            .chain(&mut settings.train_file)
        {
            *path = absolute(path)?;
        }
        settings.check()?;
        Ok(settings)
    }

    /// True if neither a model nor data are named: the samples' settings apply.
    pub fn is_sample(&self) -> bool {
        self.flags.model.is_none() && self.flags.data.is_none()
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;
    use crate::language::{arithmetic, commonsense};

    fn command() -> Command {
        <Args as clap::Args>::augment_args(Command::new("finetune"))
    }

    fn parsed(args: &[&str]) -> Args {
        let matches = command().get_matches_from([&["finetune"], args].concat());
        Args::from_arg_matches(&matches).unwrap()
    }

    fn shown(value: toml::Value) -> String {
        match value {
            toml::Value::Array(values) => {
                let names: Vec<&str> = values.iter().filter_map(toml::Value::as_str).collect();
                names.join(",")
            }
            toml::Value::String(text) => text,
            toml::Value::Float(number) => number.to_string(),
            other => other.to_string(),
        }
    }

    fn fields(settings: &Settings) -> toml::Table {
        toml::Table::try_from(settings).unwrap()
    }

    #[test]
    fn help_states_the_defaults_that_hold() {
        let command = command();
        let help = |field: &str| {
            let flag = command.get_arguments().find(|flag| flag.get_id() == field).unwrap();
            flag.get_help().unwrap().to_string()
        };
        // The suites alone generate.
        let unused = ["max_new_tokens", "train_file", "field"];
        for (field, value) in fields(&Settings::default()) {
            let (help, value) = (help(&field), shown(value));
            assert!(
                unused.contains(&field.as_str()) || help.contains(&format!("[default: {value}")),
                "{field} is {value}, the help says: {help}"
            );
        }
        let programs = [
            ("commonsense", commonsense::full(), commonsense::of_sample()),
            ("arithmetic", arithmetic::full(), arithmetic::of_sample()),
        ];
        for (program, full, sample) in programs {
            let default = fields(&Settings::default());
            for (settings, name) in [(full, program), (sample, "samples")] {
                for (field, value) in fields(&settings) {
                    let (help, value) = (help(&field), shown(value));
                    let said = help.contains(&format!("{name} {value}"))
                        || help.contains(&format!("{name}: {value}"))
                        || (field == "max_new_tokens" && help.contains(&value));
                    assert!(
                        said || Some(&value) == default.get(&field).map(|own| shown(own.clone())).as_ref(),
                        "{field} is {value} in {name}, the help says: {help}"
                    );
                }
            }
        }
    }

    #[test]
    fn paths_are_from_the_root_on_and_hub_names_stay() {
        let args = parsed(&[
            "--train-file",
            "a.jsonl,b.jsonl",
            "--data",
            "some",
            "--adapter",
            "x",
            "--model",
            "src",
        ]);
        let settings = args.settings("finetune", |_| Settings::default()).unwrap();
        let paths = settings
            .train_file
            .iter()
            .chain(&settings.data)
            .chain(&settings.adapter);
        assert_eq!(paths.filter(|path| path.is_absolute()).count(), 4);
        assert!(Path::new(&settings.model.unwrap()).is_absolute());
        let named = parsed(&["--model", "org/name"]).settings("finetune", |_| Settings::default());
        assert_eq!(named.unwrap().model.as_deref(), Some("org/name"));
    }
}
