//! Experiments: each is a file in this folder that implements [`Experiment`], and a line in `EXPERIMENTS`.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::path::Path;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::interrupt::{Interrupter, stop_on_ctrl_c};
use crate::cli::output::{note, print, set_verbosity};
use crate::cli::remote::set_token_file;
use crate::cli::settings::{self, Flags, Layer, SAMPLE, with_defaults};
use crate::methods::{self, NONE, Wing};
use crate::report::layout::Layout;
use crate::report::run_folder;
use crate::report::table::Frame;
use crate::run::args::RunArgs;
use crate::run::folder::CONFIG;
use crate::run::outcome::Outcome;
use crate::run::suite::{Lab, Program, Run};
use crate::suites::unread;

/// A preset that `--config` knows by name.
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// TOML; its first comment describes it.
    pub text: &'static str,
}

/// Name, help and defaults of a program.
pub struct Text {
    /// Its name: the subcommand, the thin binary, and the run folder under runs/.
    pub name: &'static str,
    /// One-line description.
    pub about: &'static str,
    /// Additional text of `--help`.
    pub more: &'static str,
    /// Two or three commands, one per line.
    pub examples: &'static str,
    /// Its own defaults, TOML.
    pub defaults: &'static str,
    /// Its presets.
    pub presets: &'static [Preset],
}

/// An opened experiment: its lab, and the layout of its results.
pub struct Opened {
    /// Trains and tests.
    pub lab: Box<dyn Lab>,
    /// Layout of the table.
    pub layout: Layout,
}

/// An experiment.
pub trait Experiment: Sync {
    /// Name, help and defaults.
    fn text(&self) -> Text;

    /// The kind of models that it adapts.
    fn wing(&self) -> Wing {
        Wing::Language
    }

    /// True if it tests models, also one that is not trained.
    fn tests(&self) -> bool {
        true
    }

    /// `command` with the flags of its settings.
    fn flags(&self, command: Command) -> Command;

    /// Opens its lab with the settings that the command line gives.
    ///
    /// # Errors
    /// Bad settings or data.
    fn open(&self, given: &Given) -> Result<Opened, String>;

    /// The tasks that completions offer; others may be in --data.
    fn task_names(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// Columns and published rows that reports show with runs whose tasks are `found`.
    fn published(&self, _found: &[String]) -> Option<Frame> {
        None
    }
}

/// What was given: flags, a preset or a run folder.
pub struct Given<'a> {
    matches: &'a ArgMatches,
    command: Command,
    text: Text,
    layers: Vec<Layer>,
    last: Vec<Layer>,
    args: RunArgs,
    interrupter: Interrupter,
    tests: bool,
}

impl Given<'_> {
    /// The settings, after `check` has brought them into their final form. If neither a model nor data is given, the
    /// fields of `sample` replace the defaults; preset and flags override them.
    ///
    /// # Errors
    /// An unknown field, a value out of range.
    pub fn settings<S>(
        &self,
        sample: &[&str],
        check: impl FnOnce(&mut S) -> Result<(), String>,
    ) -> Result<(S, Program), String>
    where
        S: Args + Serialize + DeserializeOwned + 'static,
    {
        let flags = Flags::new::<S>(self.matches)?;
        let mut layers = vec![self.own()?];
        let named = flags.is_set("model", &self.layers)? || flags.is_set("data", &self.layers)?;
        if !named {
            layers.extend(sample.iter().map(|text| Layer {
                name: SAMPLE.into(),
                text: text.to_string(),
            }));
        }
        layers.extend(self.layers.iter().cloned());
        let mut settings: S = flags.overlaid(&layers, &self.last, methods::flags_of)?;
        check(&mut settings).map_err(|message| flags.located(message, &self.layers))?;
        let table = toml::Table::try_from(&settings).map_err(|e| e.to_string())?;
        let set = self.last.iter().map(Layer::table).collect::<Result<Vec<_>, String>>()?;
        for line in unread::lines(&table, &|field| flags.given(field), &set, self.tests) {
            note(line);
        }
        let (command, own) = (self.command.clone(), self.own()?);
        let reader = move |layer: &Layer| -> Result<toml::Table, String> {
            let matches = command.clone().try_get_matches_from([""]).map_err(|e| e.to_string())?;
            let flags = Flags::new::<S>(&matches)?;
            let settings: S = flags.overlaid(&[own.clone(), layer.clone()], &[], methods::flags_of)?;
            toml::Table::try_from(&settings).map_err(|e| e.to_string())
        };
        let program = Program {
            experiment: self.text.name,
            table,
            reader: Box::new(reader),
            interrupter: self.interrupter.clone(),
            log_steps: self.args.log_steps,
        };
        Ok((settings, program))
    }

    /// True if the command line has this flag, which is not a setting: no preset and no run folder can give it. A child
    /// process inherits it from its parent.
    pub fn has(&self, flag: &str) -> bool {
        !self.args.trial.is_empty() || self.matches.get_flag(flag)
    }

    /// The last part of the path in `--data` of an earlier start in this run folder, if it has results under that name.
    pub fn data_before(&self) -> Option<String> {
        let config = Layer::read(&self.args.out.join(CONFIG)).ok()?.table().ok()?;
        let name = Path::new(config.get("data")?.as_str()?)
            .file_name()?
            .to_str()?
            .to_string();
        self.args.out.join(&name).is_dir().then_some(name)
    }

    /// Stops the run.
    pub fn interrupter(&self) -> Interrupter {
        self.interrupter.clone()
    }

    /// The tables in the program's own defaults; its other fields are already defaults of the flags.
    fn own(&self) -> Result<Layer, String> {
        let mut table: toml::Table = toml::from_str(self.text.defaults).map_err(|e| e.to_string())?;
        table.retain(|_, value| value.is_table());
        Ok(Layer {
            name: "the program's own settings".into(),
            text: toml::to_string(&table).map_err(|e| e.to_string())?,
        })
    }
}

/// The command of an experiment.
pub fn command(experiment: &dyn Experiment) -> Command {
    let text = experiment.text();
    let command = RunArgs::augment_args(Command::new(text.name));
    let command = experiment.flags(command);
    let own: toml::Table = toml::from_str(text.defaults).expect("defaults are TOML");
    let set = clap::Arg::new("set")
        .long("set")
        .value_name("METHOD.FIELD=VALUE")
        .action(clap::ArgAction::Append)
        .help_heading("Adapter")
        .help("Set a field of one method, overriding all other flags, such as lora.r=16; may be repeated")
        .long_help(methods::fields_help(experiment.wing()));
    let offer = |command: Command, flag: &str, names: Vec<&'static str>| {
        command.mut_arg(flag, |arg| arg.value_parser(Offered(names)).hide_possible_values(true))
    };
    let wing = experiment.wing();
    let none = (wing != Wing::Vision && experiment.tests()).then_some(NONE);
    let command =
        with_defaults(command, &own).mut_arg("method", |arg| arg.help(methods::help(wing, experiment.tests())));
    let command = offer(
        command,
        "method",
        none.into_iter().chain(methods::names(wing)).collect(),
    );
    let command = offer(
        command,
        "config",
        text.presets.iter().map(|preset| preset.name).collect(),
    );
    let command = match experiment.task_names() {
        names if names.is_empty() => command,
        names => offer(command, "task", names),
    };
    command
        .arg(set)
        .about(text.about)
        .long_about(format!("{}\n\n{}", text.about, text.more))
        .mut_arg("out", |arg| arg.default_value(&*format!("runs/{}", text.name).leak()))
}

/// Accepts any text, which is checked later, by a message that says more; completions offer the names.
#[derive(Clone)]
struct Offered(Vec<&'static str>);

impl TypedValueParser for Offered {
    type Value = String;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let names = self.0.iter().map(PossibleValue::new);
        (!self.0.is_empty()).then(|| Box::new(names) as Box<dyn Iterator<Item = PossibleValue>>)
    }
}

/// Runs an experiment from its command line to its report and returns the outcomes of the whole run folder.
///
/// # Errors
/// One sentence: bad settings, data or weights, a trial that failed, an interruption.
pub fn run(
    experiment: &dyn Experiment,
    presets: &[Preset],
    matches: &ArgMatches,
    interrupter: &Interrupter,
) -> Result<Vec<Outcome>, String> {
    let args = RunArgs::from_arg_matches(matches).map_err(|e| e.to_string())?;
    let text = experiment.text();
    if args.list_presets {
        if text.presets.is_empty() {
            print("this program has no presets")?;
        }
        text.presets.iter().try_for_each(|preset| {
            let what: Vec<&str> = preset.text.lines().map_while(|line| line.strip_prefix("# ")).collect();
            let what = what.join(" ");
            let ends = [". ", ", by ", ", the settings", ": "]
                .iter()
                .filter_map(|end| what.find(end));
            let end = ends.min().unwrap_or(what.len());
            print(format_args!("{:<28} {}", preset.name, &what[..end]))
        })?;
        return Ok(Vec::new());
    }
    set_verbosity(args.quiet, args.verbose);
    if let Some(path) = &args.token_file {
        set_token_file(path)?;
    }
    let layers = match (&args.config, args.resume) {
        (Some(name), _) => vec![preset(name, text.presets, presets)?],
        (None, true) => vec![Layer::read(&args.out.join(CONFIG))?],
        (None, false) => Vec::new(),
    };
    let set = matches.get_many::<String>("set").into_iter().flatten();
    let last = set.map(|text| of_method(text)).collect::<Result<Vec<_>, String>>()?;
    let given = Given {
        matches,
        command: command(experiment),
        text,
        layers,
        last,
        args: args.clone(),
        interrupter: interrupter.clone(),
        tests: experiment.tests(),
    };
    let Opened { mut lab, layout } = experiment.open(&given)?;
    for (field, why) in lab.unread() {
        if settings::given(matches, field) {
            note(unread::unread(field, why));
        }
    }
    let report = |outcomes: &[Outcome], new: bool| {
        let table = layout.table(outcomes);
        let path = args.out.join("report.html");
        if new || !path.is_file() {
            run_folder::write(&args.out, given.text.name, &layout, outcomes, &table)?;
        }
        Ok(format!("{table}\n\nreport: {}", path.display()))
    };
    Run {
        out: &args.out,
        resume: args.resume,
        jobs: args.jobs,
        trial: &args.trial,
        dry_run: args.dry_run,
        log_steps: args.log_steps,
        interrupter,
        report: &report,
        whole: RefCell::default(),
    }
    .run(&mut *lab)
}

/// Runs an experiment as a program that Ctrl-C stops.
///
/// # Errors
/// As [`run`].
pub fn main(experiment: &dyn Experiment, presets: &[Preset], matches: &ArgMatches) -> Result<(), String> {
    let interrupter = Interrupter::new();
    stop_on_ctrl_c(&interrupter)?;
    run(experiment, presets, matches, &interrupter).map(drop)
}

/// The preset of that name, or the file.
fn preset(name: &str, own: &[Preset], all: &[Preset]) -> Result<Layer, String> {
    let path = std::path::Path::new(name);
    if path.is_file() {
        return Layer::read(path);
    }
    let short = name.strip_suffix(".toml").unwrap_or(name);
    let found = own.iter().chain(all).find(|preset| preset.name == short);
    match found {
        Some(preset) => Ok(Layer {
            name: format!("preset {}", preset.name),
            text: preset.text.into(),
        }),
        // A path that does not exist gets its own message.
        None if name.contains(['/', '\\', '.']) => Layer::read_named(path),
        None => {
            let names: Vec<&str> = own.iter().map(|preset| preset.name).collect();
            let presets = match names.is_empty() {
                true => "this program has no presets".into(),
                false => format!("the presets are {}", names.join(", ")),
            };
            Err(format!("--config {name}: neither a file nor a preset; {presets}"))
        }
    }
}

/// `METHOD.FIELD=VALUE` as a layer.
fn of_method(text: &str) -> Result<Layer, String> {
    let wrong = || format!("--set {text}: write it as METHOD.FIELD=VALUE, such as lora.r=16");
    let (key, value) = text.split_once('=').ok_or_else(wrong)?;
    let (method, field) = key.trim().split_once('.').ok_or_else(wrong)?;
    let (field, value) = (field.trim().replace('-', "_"), value.trim());
    let is_number = |text: &str| text.trim().parse::<f64>().is_ok();
    let value = match () {
        () if is_number(value) || value.starts_with('[') => value.to_string(),
        () if value.split(',').all(is_number) => format!("[{value}]"),
        // The only field whose values are words.
        () if field == "target_modules" => {
            toml::Value::Array(value.split(',').map(|word| word.trim().into()).collect()).to_string()
        }
        () => toml::Value::from(value).to_string(),
    };
    Ok(Layer {
        name: format!("--set {text}"),
        text: format!("[methods.{}]\n{field} = {value}\n", method.replace('-', "_")),
    })
}
