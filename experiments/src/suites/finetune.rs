//! `finetune`: trains adapters on any instruction data.

use clap::{Args, Command};
use datasets::language::{Fields, example};

use crate::cli::output::tell;
use crate::language::corpus::Corpus;
use crate::language::lab::LanguageLab;
use crate::language::settings::FinetuneSettings;
use crate::report::layout::Layout;
use crate::suites::experiment::{Experiment, Given, Opened, Text};

/// The experiment.
pub struct Finetune;

const NAME: &str = "finetune";

const MORE: &str = "\
Training files contain instruction/input/output, prompt/completion or chat messages, as JSON, JSONL, CSV or parquet.

The run folder contains config.toml, summary.json, report.html and, for each method, metrics.jsonl, checkpoints/ and \
adapter/ (Hugging Face PEFT's layout). Running the same command again continues the run.";

impl Experiment for Finetune {
    fn text(&self) -> Text {
        Text {
            name: NAME,
            about: "Train adapters of a language model on instruction data",
            more: MORE,
            examples: "finetune --train-file data.jsonl
                finetune --model org/name --dtype bf16 --train-file data.jsonl --validation 0.1 --keep best --eval-steps 50
                finetune --train-file data.jsonl --method lora,dora,wegeft --set lora.r=32 --seed 42,43,44 --validation 0.1",
            defaults: concat!(include_str!("language.toml"), "learning_rate = 4e-4\n"),
            presets: &[],
        }
    }

    fn tests(&self) -> bool {
        false
    }

    fn flags(&self, command: Command) -> Command {
        FinetuneSettings::augment_args(command)
    }

    fn open(&self, given: &Given) -> Result<Opened, String> {
        let (settings, program) = given.settings::<FinetuneSettings>(&[], FinetuneSettings::check)?;
        let files = settings.data.train_file.clone();
        let name = files.first().and_then(|path| path.file_name());
        let fields = Fields::renamed(&settings.data.field)?;
        let read = files.clone();
        let examples = move || {
            let data = example::read(&read, &fields).map_err(|e| e.to_string())?;
            if let Some(bad) = data.describe_bad() {
                tell(format_args!("{bad}"));
            }
            Ok(data)
        };
        let corpus = Corpus {
            name: name.map_or(NAME.into(), |name| name.to_string_lossy().into_owned()),
            place: files.first().map(|path| path.display().to_string()),
            examples: Box::new(examples),
            template: settings.data.template.into(),
            sets: Vec::new(),
            files,
            evaluation: None,
        };
        Ok(Opened {
            lab: Box::new(LanguageLab::new(program, settings.common, corpus)),
            layout: Layout::Losses,
        })
    }
}
