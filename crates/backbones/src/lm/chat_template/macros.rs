//! Macros as Jinja calls them: a default is for what is not given, not for what is given and undefined, and it may have
//! other parameters in it; further arguments are `varargs` and `kwargs`. The engine knows none of this, so that a function
//! of ours sorts the arguments, and statements at the start of the macro set its defaults.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Kwargs, Object, ObjectRepr, Tuple, Value};
use minijinja::{Error, State};

use super::arguments::{split, wrong};
use super::operands::Walk;
use super::tokens::{Kind, Token};

/// Name of the function that puts a macro behind our own arguments.
pub(super) const MACRO: &str = "macro__";
/// Name of the parameter with the names of those that are not given.
const MISSING: &str = "missing__";
pub(super) const FURTHER: [&str; 2] = ["varargs", "kwargs"];

/// A macro whose end was not read yet.
pub(super) struct Open {
    name: String,
    parameters: Vec<String>,
    /// Parameters with defaults, each with the tokens from `=` on.
    defaults: Vec<(String, usize, usize)>,
    /// Whether its body names each of [`FURTHER`].
    further: [bool; 2],
}

impl Open {
    /// The macro whose head the tokens are, if the engine would call it otherwise than Jinja; `further`: whether the
    /// template names one of [`FURTHER`].
    pub fn of(walk: &Walk, further: bool) -> Option<Self> {
        let (name, parameters) = walk.macro_head()?;
        let defaults: Vec<(String, usize, usize)> = parameters
            .iter()
            .filter_map(|(name, default)| default.map(|(first, end)| ((*name).to_string(), first, end)))
            .collect();
        (!defaults.is_empty() || further).then(|| Self {
            name: name.to_string(),
            parameters: parameters.iter().map(|(name, _)| (*name).to_string()).collect(),
            defaults,
            further: [false; 2],
        })
    }

    /// Looks for [`FURTHER`] in a tag of its body.
    pub fn note(&mut self, tokens: &[Token]) {
        for (name, found) in FURTHER.iter().zip(&mut self.further) {
            let named = |token: &Token| token.kind == Kind::Name && token.text == *name;
            *found |= !self.parameters.iter().any(|known| known == name) && tokens.iter().any(named);
        }
    }

    /// The tokens of its head that are defaults.
    pub fn defaults(&self) -> impl Iterator<Item = (usize, usize)> {
        self.defaults.iter().map(|(_, first, end)| (*first, *end))
    }

    /// What stands in its head behind the parameters.
    pub fn hidden(&self) -> String {
        let further = FURTHER
            .iter()
            .filter(|name| !self.parameters.iter().any(|known| known == *name));
        let names: Vec<&str> = std::iter::once(MISSING).chain(further.copied()).collect();
        let comma = if self.parameters.is_empty() { "" } else { ", " };
        format!("{comma}{}", names.join(", "))
    }

    /// Statements behind `head`, its first tag, that set the defaults of what is not given; `rewritten` puts them in the
    /// engine's syntax.
    pub fn statements(&self, head: &str, tokens: &[Token], rewritten: impl Fn(&str) -> String) -> String {
        let mut statements = String::new();
        for (name, first, end) in &self.defaults {
            let last = &tokens[end - 1];
            // Behind the sign.
            let value = &head[tokens[first + 1].at..last.at + last.text.len()];
            let set = rewritten(&format!("{{% set {name} = {value} %}}"));
            statements.push_str(&format!("{{% if '{name}' in {MISSING} %}}{set}{{% endif %}}"));
        }
        match statements.strip_suffix("%}") {
            Some(statements) => format!("{statements}{}", close(head)),
            None => statements,
        }
    }

    /// Its last tag, and the statement that puts it behind our arguments.
    pub fn end(&self, tag: &str) -> String {
        let close = close(tag);
        let end = &tag[..tag.len() - close.len()];
        let Self { name, further, .. } = self;
        let quoted: Vec<String> = self.parameters.iter().map(|name| format!("'{name}'")).collect();
        let [varargs, kwargs] = further;
        let names = quoted.join(", ");
        format!("{end}%}}{{% set {name} = {MACRO}({name}, [{names}], {varargs}, {kwargs}) {close}")
    }
}

/// How a tag ends, with the sign that takes white space away.
fn close(tag: &str) -> &'static str {
    match tag.as_bytes().get(tag.len().saturating_sub(3)) {
        Some(b'-') => "-%}",
        Some(b'+') => "+%}",
        _ => "%}",
    }
}

/// The engine's macro behind our arguments.
pub(super) fn bound(inner: Value, parameters: Vec<String>, varargs: bool, kwargs: bool) -> Value {
    Value::from_object(Macro {
        inner,
        parameters,
        varargs,
        kwargs,
    })
}

#[derive(Debug)]
struct Macro {
    /// Has the parameters, then [`MISSING`] and those of [`FURTHER`] that are no parameters.
    inner: Value,
    parameters: Vec<String>,
    varargs: bool,
    kwargs: bool,
}

impl Macro {
    fn name(&self) -> String {
        let name = self.inner.get_attr("name").unwrap_or_default();
        name.as_str().unwrap_or_default().to_string()
    }
}

impl Object for Macro {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let names = || {
            self.parameters
                .iter()
                .map(|name| Value::from(name.as_str()))
                .collect::<Vec<_>>()
        };
        match key.as_str()? {
            "name" => Some(Value::from(self.name())),
            "arguments" => Some(Value::from(Tuple::from(names()))),
            "catch_varargs" => Some(Value::from(self.varargs)),
            "catch_kwargs" => Some(Value::from(self.kwargs)),
            _ => None,
        }
    }

    fn call(self: &Arc<Self>, state: &mut State, args: &[Value]) -> Result<Value, Error> {
        let (placed, named) = split(args)?;
        let most = self.parameters.len();
        if placed.len() > most && !self.varargs {
            let (name, found) = (self.name(), placed.len());
            return Err(wrong(format!(
                "macro '{name}' with {found} arguments; expected at most {most}"
            )));
        }
        let mut values: Vec<Option<Value>> = vec![None; most];
        for (value, place) in placed.iter().zip(&mut values) {
            *place = Some(value.clone());
        }
        let mut further: Vec<(Value, Value)> = Vec::new();
        let mut caller = None;
        for (name, value) in named {
            match self.parameters.iter().position(|known| *known == name) {
                Some(index) if values[index].is_none() => values[index] = Some(value),
                Some(_) => return Err(wrong(format!("macro '{}' with two arguments '{name}'", self.name()))),
                // What a `call` block gives; the engine refuses it of a macro that does not read it.
                None if name == "caller" => caller = Some(value),
                None if self.kwargs => further.push((Value::from(name), value)),
                None => {
                    let own = self.name();
                    return Err(wrong(format!(
                        "macro '{own}' with an argument '{name}', which it does not have"
                    )));
                }
            }
        }
        let is_parameter = |name: &str| self.parameters.iter().any(|known| known == name);
        let names = self.parameters.iter().zip(&values);
        let missing: Vec<Value> = names
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| Value::from(name.as_str()))
            .collect();
        let mut given: Vec<Value> = values
            .into_iter()
            .map(|value| value.unwrap_or(Value::UNDEFINED))
            .collect();
        given.push(Value::from(missing));
        if !is_parameter(FURTHER[0]) {
            let more = placed.get(most..).unwrap_or_default();
            given.push(Value::from(Tuple::from(more.to_vec())));
        }
        if !is_parameter(FURTHER[1]) {
            given.push(Value::from_pairs(further));
        }
        if let Some(caller) = caller {
            given.push(Kwargs::from_iter([("caller", caller)]).into());
        }
        self.inner.call(state, &given)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Macro '{}'>", self.name())
    }
}
