//! The `finetune` program: an adapter from any instruction data.

use burn::train::Interrupter;
use datasets::language::{Fields, Template, example};

use crate::language::flags::Args;
use crate::language::model;
use crate::language::outcome::Outcome;
use crate::language::settings::Settings;
use crate::language::suite::adapter_of;
use crate::language::tokens::tokenize;
use crate::language::training::{Setting, train};
use crate::language::{folder, report, table};
use crate::memory::peak_mb;
use crate::output::tell;
use crate::run::write_json;

const PROGRAM: &str = "finetune";

/// Runs what `args` ask for and returns the outcomes, one a method; `interrupter` stops it.
///
/// # Errors
/// One sentence: bad settings, data or weights, a training that failed, an interruption.
pub fn finetune(args: &Args, interrupter: &Interrupter) -> Result<Vec<Outcome>, String> {
    let settings = args.settings(PROGRAM, |_| Default::default())?;
    if settings.train_file.is_empty() {
        return Err("no training file; give --train-file FILE (JSON, JSONL or parquet)".into());
    }
    if let Some(method) = settings.method.iter().find(|method| *method == "none") {
        return Err(format!("method '{method}' trains nothing; choose lora, wegeft or full"));
    }
    let out = args.out(PROGRAM);
    let device = crate::device::device(&settings.device)?.autodiff();
    let fields = Fields::renamed(&settings.field)?;
    let mut data = example::read(&settings.train_file, &fields).map_err(|e| e.to_string())?;
    if let Some(bad) = data.describe_bad() {
        tell(format_args!("{bad}"));
    }
    data.examples.truncate(settings.train_limit.unwrap_or(usize::MAX));
    let mut outcomes: Vec<Outcome> = folder::open(&out, &settings, args.resume)?;
    let done = |outcomes: &[Outcome], method: &str| outcomes.iter().any(|outcome| outcome.method == method);
    if settings.method.iter().all(|method| done(&outcomes, method)) {
        tell(format_args!(
            "{} is finished; choose another --out to run again",
            out.display()
        ));
        return Ok(outcomes);
    }
    let lm = model::load(&settings, &device)?;
    let mut tokens = tokenize(
        &data.examples,
        Template::named(&settings.template)?,
        &lm,
        settings.max_length,
    )?;
    tokens.empty += data.empty;
    tell(format_args!("{}", tokens.describe()));
    let setting = Setting {
        settings: &settings,
        lm: &lm,
        device: &device,
        interrupter,
    };
    for method in &settings.method {
        if done(&outcomes, method) {
            continue;
        }
        let folder = out.join(method);
        std::fs::create_dir_all(&folder).map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
        let adapted = match &settings.adapter {
            Some(adapter) => lm.with_adapter(adapter)?,
            None => adapter_of(&lm, &settings, method, &device)?,
        };
        let trained = train(&setting, method, adapted, tokens.sequences.clone(), &folder).map_err(|e| e.to_string())?;
        let adapter = folder.join("adapter");
        trained.adapted.save(&adapter).map_err(|e| e.to_string())?;
        let seconds = trained.seconds;
        let outcome = Outcome {
            experiment: PROGRAM.into(),
            task: task(&settings),
            method: method.clone(),
            trainable_params: trained.summary.trainable_params(),
            percent_trainable: if method == "full" {
                100.0
            } else {
                trained.summary.percent()
            },
            metric: "validation loss".into(),
            value: trained.validation,
            likelihood: None,
            questions: 0,
            seconds,
            training_seconds: seconds,
            tokens_per_second: trained.tokens_per_second,
            peak_mb: peak_mb(&device),
            seed: settings.seed,
        };
        tell(format_args!(
            "{}\n\nadapter: {}",
            table::finetune(&outcome),
            adapter.display()
        ));
        outcomes.push(outcome);
        write_json(&out.join("summary.json"), &outcomes)?;
    }
    let rows: Vec<String> = outcomes.iter().map(table::finetune).collect();
    report::write(&out, PROGRAM, &outcomes, &rows.join("\n"))?;
    Ok(outcomes)
}

/// Name of a run in tables: the first training file's.
fn task(settings: &Settings) -> String {
    let name = settings.train_file.first().and_then(|path| path.file_name());
    name.map_or(PROGRAM.into(), |name| name.to_string_lossy().into_owned())
}
