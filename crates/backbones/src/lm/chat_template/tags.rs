//! A template as the engine is given it: `generation` tags as blocks that it knows, and assignments to namespaces by way of
//! a function of ours, since nothing else lets a value contain itself or grow without end.

use std::sync::LazyLock;

use minijinja::value::{ObjectRepr, Tuple, Value};
use minijinja::{Error, ErrorKind, State};
use regex::{Captures, Regex};

use super::globals;
use super::values::Ordered;

/// Name of the filter that marks what `generation` tags enclose.
pub(super) const GENERATION: &str = "generation__";
/// Name of the function that looks at what is put into a namespace.
pub(super) const KEPT: &str = "kept__";

/// Values within a value of a namespace at most.
const MOST_VALUES: usize = 100_000;
/// Lists and objects within each other at most.
const DEEPEST: usize = 100;
/// Values that one unit of fuel pays for.
const VALUES_PER_FUEL: usize = 16;

/// `source` with its tags replaced.
pub(super) fn replaced(source: &str) -> String {
    static GENERATIONS: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").expect("a valid pattern"));
    let replaced = GENERATIONS.replace_all(source, |tag: &Captures| {
        let (left, right) = (&tag[1], &tag[3]);
        match tag.get(2) {
            None => format!("{{%{left} filter {GENERATION} {right}%}}"),
            Some(_) => format!("{{%{left} endfilter {right}%}}"),
        }
    });
    with_kept(&replaced)
}

/// `{% set a.b = VALUE %}` becomes `{% set a.b = kept__((VALUE)) %}`, outside of comments, texts and raw blocks.
fn with_kept(source: &str) -> String {
    static SET: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^\{%[-+]?\s*set\s+([\w\s.,()]*\.[\w\s.,()]*)=").expect("a valid pattern"));
    static RAW: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\{%[-+]?\s*raw\b").expect("a valid pattern"));
    static END_RAW: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\{%[-+]?\s*endraw\b").expect("a valid pattern"));
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find('{') {
        let (before, tag) = rest.split_at(at);
        text.push_str(before);
        let length = if tag.starts_with("{#") {
            tag.find("#}").map_or(tag.len(), |end| end + 2)
        } else if tag.starts_with("{{") {
            end_of_tag(tag, "}}").map_or(tag.len(), |end| end + 2)
        } else if RAW.is_match(tag) {
            END_RAW.find(tag).map_or(tag.len(), |end| end.end())
        } else if tag.starts_with("{%") {
            let length = end_of_tag(tag, "%}").map_or(tag.len(), |end| end + 2);
            let set = SET
                .find(&tag[..length])
                .filter(|set| !tag[set.end()..].starts_with('='));
            if let (Some(set), Some(end)) = (set, end_of_tag(tag, "%}")) {
                // The sign that takes white space away stands at the end.
                let signed = tag[set.end()..end].ends_with(['-', '+']);
                let end = end - usize::from(signed);
                text.push_str(set.as_str());
                text.push_str(&format!(" {KEPT}(({})) ", &tag[set.end()..end]));
                text.push_str(&tag[end..length]);
                rest = &tag[length..];
                continue;
            }
            length
        } else {
            1
        };
        text.push_str(&tag[..length]);
        rest = &tag[length..];
    }
    text.push_str(rest);
    text
}

/// Where `end` stands in `tag` outside of quotes.
fn end_of_tag(tag: &str, end: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in tag.char_indices().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if tag[at..].starts_with(end) => return Some(at),
            None => {}
        }
    }
    None
}

/// A value that a namespace may hold: of some depth and size, without a namespace in it, its items there and not to be
/// worked out at each look.
pub(super) fn kept(state: &State, value: Value) -> Result<Value, Error> {
    let mut seen = 0;
    let kept = solid(value, 0, &mut seen);
    state.consume_fuel((seen / VALUES_PER_FUEL) as u64)?;
    kept
}

/// `value`, what is worked out at each look as a list.
fn solid(value: Value, depth: usize, seen: &mut usize) -> Result<Value, Error> {
    let wrong = |message: String| Err(Error::new(ErrorKind::InvalidOperation, message));
    *seen += 1;
    if *seen > MOST_VALUES {
        return Err(Error::from(ErrorKind::OutOfFuel));
    }
    let Some(object) = value.as_object() else {
        return Ok(value);
    };
    if is_namespace(&value) {
        return wrong("a namespace is put into a namespace".into());
    }
    if depth > DEEPEST {
        return wrong(format!("a value of more than {DEEPEST} lists within each other"));
    }
    // What messages and tools are made of does not grow, nor does a range.
    if object.downcast_ref::<Ordered>().is_some() || globals::range_repr(&value).is_some() {
        return Ok(value);
    }
    let tuple = object.downcast_ref::<Tuple>().is_some();
    match object.repr() {
        ObjectRepr::Map => {
            let mut pairs = Vec::new();
            for key in value.try_iter()? {
                let item = value.get_item(&key)?;
                pairs.push((solid(key, depth + 1, seen)?, solid(item, depth + 1, seen)?));
            }
            Ok(Value::from_pairs(pairs))
        }
        ObjectRepr::Seq | ObjectRepr::Iterable => {
            let mut items = Vec::new();
            for item in value.try_iter()? {
                items.push(solid(item, depth + 1, seen)?);
            }
            Ok(match tuple {
                true => Value::from(Tuple::from(items)),
                false => Value::from(items),
            })
        }
        _ => Ok(value),
    }
}

/// True for a namespace, which is no object of JSON although it has names.
pub(super) fn is_namespace(value: &Value) -> bool {
    value
        .as_object()
        .is_some_and(|object| object.type_name() == namespace_type())
}

/// The engine's type of namespaces, which it does not name.
fn namespace_type() -> &'static str {
    static NAME: LazyLock<&'static str> = LazyLock::new(|| {
        let namespace = minijinja::functions::namespace(None).unwrap_or_default();
        namespace.as_object().map_or("", |object| object.type_name())
    });
    *NAME
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_to_namespaces_are_looked_at_and_nothing_else_changes() {
        for (source, expected) in [
            ("{% set ns.x = 1 %}", "{% set ns.x = kept__(( 1 )) %}"),
            (
                "{%- set ns.x = '%}' ~ \"-\" -%}",
                "{%- set ns.x = kept__(( '%}' ~ \"-\" )) -%}",
            ),
            ("a{%set ns.x=1,2%}b", "a{%set ns.x= kept__((1,2)) %}b"),
            ("{% set ns.a, ns.b = x, y %}", "{% set ns.a, ns.b = kept__(( x, y )) %}"),
            ("{% set ns.s %}x{% endset %}", "{% set ns.s %}x{% endset %}"),
            ("{% set x = a.b == 1 %}", "{% set x = a.b == 1 %}"),
            ("{% if a.b == 1 %}", "{% if a.b == 1 %}"),
            ("{# {% set ns.x = 1 %} #}", "{# {% set ns.x = 1 %} #}"),
            ("{{ '{% set ns.x = 1 %}' }}", "{{ '{% set ns.x = 1 %}' }}"),
            (
                "{% raw %}{% set ns.x = 1 %}{% endraw %}{ {%",
                "{% raw %}{% set ns.x = 1 %}{% endraw %}{ {%",
            ),
            (
                "{% generation %}é{%- endgeneration %}",
                "{% filter generation__ %}é{%- endfilter %}",
            ),
        ] {
            assert_eq!(replaced(source), expected);
        }
    }
}
