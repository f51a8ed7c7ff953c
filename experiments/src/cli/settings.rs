//! Settings, defined once: a flag, a TOML field, a line of help and a default are one field of a struct that derives
//! `clap::Args`, `Serialize` and `Deserialize`. From lowest to highest priority: the default, the program's own
//! defaults, the preset (or the run folder's config.toml), the flags.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, Command};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of a config.toml at most. Parsed TOML takes up to a hundred times its size in memory.
pub const LONGEST: u64 = 1 << 20;

/// Settings as TOML, and their source.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Path or name, for messages.
    pub name: String,
    /// TOML.
    pub text: String,
}

impl Layer {
    /// The TOML file at `path`.
    ///
    /// # Errors
    /// A file that cannot be read, or is longer than settings are.
    pub fn read(path: &Path) -> Result<Self, String> {
        Self::of(path, files::read_text(path, LONGEST))
    }

    /// The TOML file that the user names, which may be a pipe.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read_named(path: &Path) -> Result<Self, String> {
        Self::of(path, std::fs::read_to_string(path))
    }

    fn of(path: &Path, read: std::io::Result<String>) -> Result<Self, String> {
        Ok(Self {
            name: path.display().to_string(),
            text: read.map_err(|e| format!("cannot read {}: {e}", path.display()))?,
        })
    }

    /// Its fields.
    ///
    /// # Errors
    /// Text that is not TOML, with the line.
    pub fn table(&self) -> Result<toml::Table, String> {
        toml::from_str(&self.text).map_err(|e: toml::de::Error| {
            let at = e.span().map_or(0, |span| span.start);
            let line = self.text[..at].matches('\n').count();
            self.at(line, e.message())
        })
    }

    /// A message about a line, counted from 0.
    fn at(&self, line: usize, message: &str) -> String {
        // A flag is no file with lines.
        if self.name.starts_with("--") {
            return format!("{}: {}", self.name, message.replace('\n', " "));
        }
        let text = self.text.lines().nth(line).unwrap_or_default().trim();
        format!(
            "{}, line {} ('{text}'): {}",
            self.name,
            line + 1,
            message.replace('\n', " ")
        )
    }

    /// A message about a field.
    fn at_field(&self, field: &str, message: &str) -> String {
        let starts = |line: &str| {
            let rest = line.trim_start().strip_prefix(field);
            rest.is_some_and(|rest| rest.trim_start().starts_with(['=', '.']))
        };
        let of_table = |line: &str| line.trim_start().starts_with(&format!("[{field}"));
        match self.text.lines().position(|line| starts(line) || of_table(line)) {
            Some(line) => self.at(line, message),
            None => format!("{}, field '{field}': {message}", self.name),
        }
    }
}

/// The field that holds a table for each method.
const TABLES: &str = "methods";

/// Fields of a preset that a flag of another name stands in place of: (field, flag).
const IN_PLACE: &[(&str, &str)] = &[("devices", "device")];

/// Flags of a run that are no settings, and so no fields of a file.
pub const FLAGS_ALONE: [&str; 10] = [
    "config",
    "list_presets",
    "resume",
    "out",
    "jobs",
    "token_file",
    "dry_run",
    "log_steps",
    "quiet",
    "verbose",
];

/// Name of the layer with a program's settings for its sample, which are defaults too.
pub const SAMPLE: &str = "the sample's settings";

/// Fields whose default of the program gives way to a flag: (field, flag).
const GIVES_WAY: &[(&str, &str)] = &[("lora_alpha", "alpha")];

/// The flags that speak for a method's field, given the method's name and the field's.
pub type Own = fn(&str, &str) -> Vec<&'static str>;

/// `command` with the values of `own` as the defaults of its flags, so that the help shows them.
pub fn with_defaults(mut command: Command, own: &toml::Table) -> Command {
    for (id, value) in own {
        if value.is_table() {
            continue;
        }
        let text = |value: &toml::Value| match value {
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        // A list is one text, as it is written on the command line: the help shows it so.
        let value = match value {
            toml::Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(","),
            value => text(value),
        };
        // clap needs the text for as long as the program runs.
        let value = Some(value)
            .filter(|value| !value.is_empty())
            .map(|value| &*value.leak());
        command = command.mut_arg(id, |arg| {
            let arg = match arg.get_help().map(ToString::to_string) {
                // The program's own default replaces the one in the help text.
                Some(help) => arg.help(without_default(&help).to_string()),
                None => arg,
            };
            let arg = match arg.get_long_help().map(ToString::to_string) {
                Some(help) => arg.long_help(without_default(&help).to_string()),
                None => arg,
            };
            arg.default_value(value)
        });
    }
    command
}

/// A help text without a `[default: …]` at its end.
fn without_default(help: &str) -> &str {
    match help.rsplit_once(" [default: ") {
        Some((text, end)) if end.trim_end_matches('.').ends_with(']') => text,
        _ => help,
    }
}

/// True if the command line, not a default, gives the field; false if the program has no such field.
pub fn given(matches: &ArgMatches, field: &str) -> bool {
    matches.try_contains_id(field).is_ok() && matches.value_source(field) == Some(ValueSource::CommandLine)
}

/// The command line as settings: a table with every field that has a value, and the fields that were given as flags.
pub struct Flags<'a> {
    command: Command,
    matches: &'a ArgMatches,
    table: toml::Table,
}

impl<'a> Flags<'a> {
    /// The fields of `S` in `matches`.
    ///
    /// # Errors
    /// A number too large for TOML.
    pub fn new<S: Args + Serialize>(matches: &'a ArgMatches) -> Result<Self, String> {
        let parsed = S::from_arg_matches(matches).map_err(|e| e.to_string())?;
        let table = toml::Table::try_from(&parsed).map_err(|e| match e.to_string() {
            e if e.contains("UTF-8") => "a path among the flags is not UTF-8, as config.toml must be; rename it".into(),
            e => format!("a number among the flags is too large for config.toml ({e}); give a smaller one"),
        })?;
        Ok(Self {
            command: S::augment_args(Command::new("settings")),
            matches,
            table,
        })
    }

    /// True if the field was given on the command line.
    pub fn given(&self, field: &str) -> bool {
        given(self.matches, field)
    }

    /// The name of the field for a key of a TOML file, which is the name itself or an alias of its flag.
    fn field(&self, key: &str) -> Option<&str> {
        let flag = key.replace('_', "-");
        self.command
            .get_arguments()
            .find(|arg| {
                arg.get_id() == key
                    || arg.get_long() == Some(&flag)
                    || arg.get_all_aliases().is_some_and(|all| all.contains(&flag.as_str()))
            })
            .map(|arg| arg.get_id().as_str())
    }

    /// True if a flag or one of `layers` gives the field; the sample's settings are defaults.
    ///
    /// # Errors
    /// A layer that is not TOML.
    pub fn is_set(&self, field: &str, layers: &[Layer]) -> Result<bool, String> {
        if self.given(field) {
            return Ok(true);
        }
        for layer in layers.iter().filter(|layer| layer.name != SAMPLE) {
            if layer.table()?.keys().any(|key| self.field(key) == Some(field)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The settings: each layer overrides those before it, and the given flags override all of them. A field that
    /// contains tables, `[methods.NAME]`, is merged entry by entry; `own` tells which entries a given flag overrides.
    /// The layers in `last` (`--set`) override the flags.
    ///
    /// # Errors
    /// An unknown or malformed field, with its layer and line.
    pub fn overlaid<S: DeserializeOwned>(&self, layers: &[Layer], last: &[Layer], own: Own) -> Result<S, String> {
        let mut table = self.table.clone();
        for (above, layer) in layers
            .iter()
            .map(|layer| (false, layer))
            .chain(last.iter().map(|layer| (true, layer)))
        {
            let mut keys: BTreeMap<String, String> = BTreeMap::new();
            for (key, value) in layer.table()? {
                if let (true, toml::Value::Table(value)) = (key == TABLES, &value) {
                    let mut value = value.clone();
                    for (name, fields) in value.iter_mut() {
                        if let (false, toml::Value::Table(fields)) = (above, fields) {
                            fields.retain(|field, _| !own(name, field).iter().any(|flag| self.given(flag)));
                        }
                    }
                    merge(table.entry(key.clone()).or_insert(toml::Table::new().into()), &value);
                    check::<S>(&table).map_err(|message| layer.at_field(&key, &message))?;
                    continue;
                }
                let Some(field) = self.field(&key) else {
                    return Err(layer.at_field(&key, &self.unknown(&key)));
                };
                if let Some(first) = keys.insert(field.to_string(), key.clone()) {
                    let message = format!("'{first}' and '{key}' are the same field; leave one of them out");
                    return Err(layer.at_field(&key, &message));
                }
                let overridden = |(of, flag): &(&str, &str)| *of == field && self.given(flag);
                if self.given(field) || IN_PLACE.iter().any(overridden) {
                    continue;
                }
                let arg = self.command.get_arguments().find(|arg| arg.get_id() == field);
                let delimiter = arg.and_then(clap::Arg::get_value_delimiter);
                let many = delimiter.is_some() || arg.is_some_and(|arg| is_append(arg.get_action()));
                let value = match (value, delimiter) {
                    // As on the command line.
                    (toml::Value::String(text), Some(delimiter)) => {
                        toml::Value::Array(text.split(delimiter).map(|part| part.trim().into()).collect())
                    }
                    (scalar, _) if many && !scalar.is_array() => toml::Value::Array(vec![scalar]),
                    (value, _) => value,
                };
                table.insert(field.to_string(), value);
                check::<S>(&table).map_err(|message| layer.at_field(&key, &message))?;
            }
        }
        for (field, flag) in GIVES_WAY {
            if self.given(flag)
                && !self.is_set(field, layers)?
                && table.contains_key(*field)
                && let Some(value) = table.get(*flag).cloned()
            {
                table.insert(field.to_string(), value);
            }
        }
        table.try_into().map_err(|e: toml::de::Error| e.message().to_string())
    }

    /// A message about settings, with the file and line of `layers` that its first quoted name comes from: a field that
    /// no flag gives, or a name in a list. The message alone if it comes from elsewhere.
    pub fn located(&self, message: String, layers: &[Layer]) -> String {
        let Some(name) = message.split('\'').nth(1) else {
            return message;
        };
        let field = self.field(name);
        if field.is_some_and(|field| self.given(field)) {
            return message;
        }
        let in_list = [format!("\"{name}\""), format!("[{TABLES}.{name}]")];
        for layer in layers.iter().rev().filter(|layer| layer.name != SAMPLE) {
            let keys: Vec<String> = layer.table().unwrap_or_default().keys().cloned().collect();
            let key = keys.iter().find(|key| field.is_some() && self.field(key) == field);
            if let Some(key) = key {
                return layer.at_field(key, &message);
            }
            let listed = |line: &str| in_list.iter().any(|text| line.contains(text));
            if let Some(line) = layer.text.lines().position(listed) {
                return layer.at(line, &message);
            }
        }
        message
    }

    fn unknown(&self, key: &str) -> String {
        if FLAGS_ALONE.contains(&key) {
            let flag = key.replace('_', "-");
            return format!("'{key}' cannot be set in a file; give --{flag} on the command line");
        }
        let known: Vec<&str> = self.command.get_arguments().map(|arg| arg.get_id().as_str()).collect();
        match nearest(key, &known) {
            Some(near) => format!("unknown field '{key}'; did you mean '{near}'?"),
            None => format!("unknown field '{key}'; --help lists this program's"),
        }
    }
}

fn is_append(action: &ArgAction) -> bool {
    matches!(action, ArgAction::Append)
}

fn check<S: DeserializeOwned>(table: &toml::Table) -> Result<(), String> {
    let result: Result<S, toml::de::Error> = table.clone().try_into();
    result.map(drop).map_err(|e| plain(e.message()))
}

/// A message of serde in terms of TOML, not of Rust.
fn plain(message: &str) -> String {
    let (what, names) = message.split_once(", expected ").unwrap_or((message, ""));
    if let Some(name) = what
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.strip_suffix('`'))
    {
        // Every second part is a name in backticks.
        let known: Vec<&str> = names.split('`').skip(1).step_by(2).collect();
        return match nearest(name, &known) {
            Some(near) => format!("unknown field '{name}'; did you mean '{near}'?"),
            None => format!("unknown field '{name}'; known are {}", known.join(", ")),
        };
    }
    [
        ("expected usize", "expected a whole number"),
        ("expected u64", "expected a whole number"),
        ("expected f64", "expected a number"),
        ("expected a sequence", "expected a list"),
        (
            "expected struct MethodSettings",
            "expected a table with settings of one method",
        ),
        ("unknown variant", "unknown value"),
    ]
    .into_iter()
    .fold(message.to_string(), |text, (from, to)| text.replace(from, to))
    .replace('`', "'")
}

/// The one of `known` that `name` was probably meant to be.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let near = known.iter().map(|known| (strsim::jaro_winkler(known, name), *known));
    let near = near.filter(|(near, _)| *near > 0.8);
    near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

/// Writes the entries of `from` over those of `into`, table by table.
fn merge(into: &mut toml::Value, from: &toml::Table) {
    let Some(into) = into.as_table_mut() else { return };
    for (key, value) in from {
        match value {
            // Dashes and underscores in names are equivalent.
            toml::Value::Table(from) => merge(
                into.entry(key.replace('-', "_")).or_insert(toml::Table::new().into()),
                from,
            ),
            value => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

/// The settings of a group with its flags' defaults.
pub fn defaults<G: Args>() -> G {
    let matches = G::augment_args(Command::new("")).get_matches_from([""]);
    G::from_arg_matches(&matches).expect("every field has a default")
}

/// `path` as an absolute path.
///
/// # Errors
/// A working folder that is gone.
pub fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|e| format!("cannot resolve the path {}: {e}", path.display()))
}

/// The absolute path of a model; a hub name is returned unchanged.
///
/// # Errors
/// A working folder that is gone.
pub fn absolute_model(name: String) -> Result<String, String> {
    match Path::new(&name).exists() {
        true => Ok(absolute(Path::new(&name))?.display().to_string()),
        false => Ok(name),
    }
}

/// Refuses a learning rate that is not above 0.
///
/// # Errors
/// A learning rate that is not above 0.
pub fn check_learning_rate(field: &str, rate: f64) -> Result<(), String> {
    match rate.is_finite() && rate > 0.0 {
        true => Ok(()),
        false => Err(format!("field '{field}' is {rate}; it must be above 0")),
    }
}

/// Refuses a number below 0.
///
/// # Errors
/// A number below 0.
pub fn check_decay(field: &str, value: f64) -> Result<(), String> {
    match value.is_finite() && value >= 0.0 {
        true => Ok(()),
        false => Err(format!("field '{field}' is {value}; it must be 0 or more")),
    }
}

/// Refuses a field whose value is 0, and names it.
///
/// # Errors
/// The first such field or flag.
pub fn check_positive(fields: &[(&str, usize)]) -> Result<(), String> {
    match fields.iter().find(|(_, value)| *value == 0) {
        Some((field, _)) => Err(format!("field '{field}' is 0; it must be at least 1")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Args, Serialize, Deserialize)]
    struct Group {
        /// Passes.
        #[arg(long, default_value_t = 20)]
        epochs: usize,
        /// Peak.
        #[arg(long, alias = "lr", default_value_t = 1e-2)]
        learning_rate: f64,
        /// Seeds.
        #[arg(long, value_delimiter = ',', default_value = "42")]
        seed: Vec<u64>,
        /// Rank.
        #[arg(long)]
        #[serde(skip_serializing_if = "Option::is_none")]
        r: Option<usize>,
    }

    fn of(args: &[&str], layers: &[&str]) -> Result<Group, String> {
        let own = toml::from_str("epochs = 3").unwrap();
        let command = with_defaults(Group::augment_args(Command::new("x")), &own);
        let matches = command.get_matches_from([&["x"], args].concat());
        Group::from_arg_matches(&matches).unwrap();
        let layers: Vec<Layer> = layers
            .iter()
            .map(|text| Layer {
                name: "preset.toml".into(),
                text: text.to_string(),
            })
            .collect();
        Flags::new::<Group>(&matches)?.overlaid(&layers, &[], |_, _| Vec::new())
    }

    #[test]
    fn flags_win_over_presets_and_presets_over_defaults() {
        let found = of(&["--lr", "1"], &["lr = 2\nseed = 7\nr = 4", "r = 5"]).unwrap();
        let expected = Group {
            epochs: 3,
            learning_rate: 1.0,
            seed: vec![7],
            r: Some(5),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_wrong_field_is_named_with_its_line() {
        let message = of(&[], &["lr = 1e-3\nepochs = \"x\"\n"]).unwrap_err();
        for part in ["preset.toml, line 2 ('epochs = \"x\"')", "invalid type"] {
            assert!(message.contains(part), "{message}");
        }
        let message = of(&[], &["epocs = 3"]).unwrap_err();
        assert!(message.contains("line 1") && message.contains("'epochs'"), "{message}");
        assert!(of(&[], &["epochs = "]).unwrap_err().contains("line 1"));
    }

    #[test]
    fn a_refused_value_is_told_with_its_file_and_line() {
        let located = |args: &[&str], text: &str, message: &str| {
            let command = Group::augment_args(Command::new("x"));
            let matches = command.get_matches_from([&["x"], args].concat());
            let layer = Layer {
                name: "preset.toml".into(),
                text: text.into(),
            };
            Flags::new::<Group>(&matches).unwrap().located(message.into(), &[layer])
        };
        let text = "epochs = 3\nlr = -1\nmethod = [\"lorra\"]";
        let rate = "field 'learning_rate' is -1; it must be above 0";
        assert_eq!(
            located(&[], text, rate),
            format!("preset.toml, line 2 ('lr = -1'): {rate}")
        );
        // The flag is at fault, or the default.
        assert_eq!(located(&["--lr=-1"], text, rate), rate);
        assert_eq!(located(&[], "epochs = 3", rate), rate);
        let method = "method 'lorra' is unknown";
        assert_eq!(
            located(&[], text, method),
            format!("preset.toml, line 3 ('method = [\"lorra\"]'): {method}")
        );
        assert_eq!(located(&[], text, "no name here"), "no name here");
    }
}
