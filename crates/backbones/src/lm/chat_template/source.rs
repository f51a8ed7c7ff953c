//! A template's text as Jinja reads it and the engine does not: line ends, Python's escapes in texts, `%` on texts, `~` on
//! what is no text, tuples without parentheses, a sign before a number, macros with defaults.

use std::collections::BTreeMap;

use super::escapes::literal;
use super::macros::{FURTHER, Open};
use super::operands::Walk;
use super::tokens::{Kind, tag_tokens};

/// Name of the filter that stands for the operator `%`, which the engine has for numbers alone.
pub(super) const PERCENT: &str = "percent__";
/// Name of the function that stands for the operator `~`, with which the engine writes numbers otherwise than Python.
pub(super) const CONCAT: &str = "concat__";
/// `%` operators at most: each is looked for from its own place.
const MOST: usize = 2_000;

/// `source` in the engine's own syntax. What is malformed stays as it is: the engine says what is wrong with it.
pub(super) fn rewritten(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut text = String::with_capacity(source.len());
    let mut rest = source.as_str();
    let mut left = MOST;
    let mut macros: Vec<Option<Open>> = Vec::new();
    let further = FURTHER.iter().any(|name| source.contains(name));
    while let Some(at) = rest.find('{') {
        let (before, tag) = rest.split_at(at);
        text.push_str(before);
        let raw = raw(tag);
        let end = match tag.as_bytes().get(1) {
            Some(b'#') => tag[2..].find("#}").map(|end| end + 4),
            Some(b'%') if raw.is_some() => raw.flatten(),
            Some(b'%' | b'{') => match tag_tokens(tag) {
                Some((tokens, end)) => {
                    let (this, behind) = tag.split_at(end);
                    let walk = Walk {
                        tokens: &tokens,
                        block: this.starts_with("{%"),
                    };
                    if walk.names("macro") {
                        let open = Open::of(&walk, further);
                        text.push_str(&rewritten_tag(this, &walk, open.as_ref(), &mut left));
                        text.extend(open.as_ref().map(|open| open.statements(this, &tokens, rewritten)));
                        macros.push(open);
                    } else if walk.names("endmacro")
                        && let Some(open) = macros.pop().flatten()
                    {
                        text.push_str(&open.end(this));
                    } else {
                        if let Some(Some(open)) = macros.last_mut() {
                            open.note(&tokens);
                        }
                        text.push_str(&rewritten_tag(this, &walk, None, &mut left));
                    }
                    rest = behind;
                    continue;
                }
                None => None,
            },
            _ => Some(1),
        };
        let Some(end) = end else {
            text.push_str(tag);
            return text;
        };
        text.push_str(&tag[..end]);
        rest = &tag[end..];
    }
    text.push_str(rest);
    text
}

/// Bytes of a `raw` block, to the end of its `endraw` if it has one; `None` if `tag` opens no such block.
fn raw(tag: &str) -> Option<Option<usize>> {
    let named = |text: &str, name: &str| -> Option<usize> {
        let inner = text.strip_prefix("{%")?.trim_start_matches(['-', '+']).trim_start();
        let inner = inner.strip_prefix(name)?.trim_start();
        let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
        inner.strip_prefix("%}").map(|rest| text.len() - rest.len())
    };
    let mut at = named(tag, "raw")?;
    while let Some(next) = tag[at..].find("{%") {
        at += next;
        match named(&tag[at..], "endraw") {
            Some(end) => return Some(Some(at + end)),
            None => at += 2,
        }
    }
    Some(None)
}

/// What is inserted before a token, in place of it and after it.
#[derive(Default)]
struct Edits {
    before: BTreeMap<usize, String>,
    instead: BTreeMap<usize, String>,
    after: BTreeMap<usize, String>,
}

impl Edits {
    /// What is enclosed later is around what already is.
    fn enclose(&mut self, first: usize, end: usize, open: &str, close: &str) {
        self.before.entry(first).or_default().insert_str(0, open);
        self.after.entry(end - 1).or_default().push_str(close);
    }
}

/// `tag` in the engine's own syntax; `open` if it is the head of a macro.
fn rewritten_tag(tag: &str, walk: &Walk, open: Option<&Open>, left: &mut usize) -> String {
    let mut edits = Edits::default();
    let tokens = walk.tokens;
    for (index, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Text if token.text.contains('\\') => {
                if let Some(text) = literal(token.text) {
                    edits.instead.insert(index, text);
                }
            }
            Kind::Sign if token.text == "+" && walk.opens(index) => {
                edits.instead.insert(index, " ".into());
            }
            Kind::Sign if token.text == "%" && *left > 0 => {
                if let (Some(first), Some(end)) = (walk.left(index), walk.right(index)) {
                    *left -= 1;
                    edits.enclose(first, index, "(", ")");
                    edits.instead.insert(index, format!("|{PERCENT}"));
                    edits.enclose(index + 1, end, "((", "))");
                }
            }
            _ => {}
        }
    }
    for chain in walk.chains() {
        let inside = &tokens[chain.first..chain.end];
        if inside.iter().any(|token| token.kind != Kind::Text && token.text != "~") {
            edits.enclose(chain.first, chain.end, &format!("{CONCAT}("), ")");
            edits
                .instead
                .extend(chain.operators.into_iter().map(|index| (index, ",".into())));
        }
    }
    if let Some((first, end)) = walk.bare_tuple() {
        edits.enclose(first, end, "(", ")");
    }
    if let Some(open) = open {
        for (first, end) in open.defaults() {
            for edits in [&mut edits.before, &mut edits.after] {
                edits.retain(|index, _| !(first..end).contains(index));
            }
            edits.instead.extend((first..end).map(|index| (index, String::new())));
        }
        let close = tokens[2].other.unwrap_or(tokens.len());
        edits.before.entry(close).or_default().push_str(&open.hidden());
    }
    let mut text = String::with_capacity(tag.len());
    let mut at = 0;
    for (index, token) in tokens.iter().enumerate() {
        text.push_str(&tag[at..token.at]);
        text.push_str(edits.before.get(&index).map_or("", String::as_str));
        text.push_str(edits.instead.get(&index).map_or(token.text, String::as_str));
        text.push_str(edits.after.get(&index).map_or("", String::as_str));
        at = token.at + token.text.len();
    }
    text.push_str(&tag[at..]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percent_takes_the_operands_that_jinja_gives_it() {
        for (source, expected) in [
            ("{{ a % b }}", "{{ (a) |percent__ ((b)) }}"),
            (
                "{{ a * -b % c.d[0] | e ~ f }}",
                "{{ concat__((a * -b) |percent__ ((c.d[0] | e)) , f) }}",
            ),
            ("{% if not a % 2 == 0 %}", "{% if not (a) |percent__ ((2)) == 0 %}"),
            ("{{ -a % (1, 2) + 1 }}", "{{ (-a) |percent__ (((1, 2))) + 1 }}"),
            ("{{ 7 % 4 % 2 }}", "{{ ((7) |percent__ ((4))) |percent__ ((2)) }}"),
            ("{{ a - b % c is odd }}", "{{ a - (b) |percent__ ((c is odd)) }}"),
        ] {
            assert_eq!(rewritten(source), expected);
        }
    }

    #[test]
    fn what_a_tilde_joins_are_arguments() {
        for (source, expected) in [
            ("'a' ~ b ~ \"c\" 'd'", "concat__('a' , b , \"c\" 'd')"),
            ("a ~ b.c[0] | trim + d", "concat__(a , b.c[0] | trim) + d"),
            ("a * 2 ~ -b / c", "concat__(a * 2 , -b / c)"),
            (
                "(a ~ 1) ~ f(b ~ 'x')",
                "concat__((concat__(a , 1)) , f(concat__(b , 'x')))",
            ),
            ("'a' ~ b is none", "concat__('a' , b is none)"),
            ("'a' ~ b % c", "concat__('a' , (b) |percent__ ((c)))"),
            ("a % b ~ c", "concat__((a) |percent__ ((b)) , c)"),
            ("x if a ~ '!' else b", "x if concat__(a , '!') else b"),
            ("a ~ b, c", "(concat__(a , b), c)"),
        ] {
            let tag = |inside: &str| format!("{{{{ {inside} }}}}");
            assert_eq!(rewritten(&tag(source)), tag(expected));
        }
        assert_eq!(rewritten("{% if a ~ b == c %}"), "{% if concat__(a , b) == c %}");
    }

    #[test]
    fn what_needs_nothing_stays() {
        for source in [
            "a % b {# {{ a % b }} #} {% raw %}{{ a % b }}{% endraw %} {{ 'a % b' }}",
            "{% for a, b in c %}{{ f(a, b) }}{% endfor %}",
            "{{ 'a' ~ 'b' ~ }}",
            "{{ a % }} {{ 'open",
            "{% raw %}{% raw %}{{ a % b }}",
            "{ {% set x = {'a': {'b': 1}} %}{{ x }}",
        ] {
            assert_eq!(rewritten(source), source);
        }
        assert_eq!(rewritten("a\r\nb\rc"), "a\nb\nc");
    }

    #[test]
    fn defaults_are_set_in_the_macro() {
        assert_eq!(
            rewritten("{% macro m(x, y=x.x + 1) -%}a{%- endmacro -%}b"),
            "{% macro m(x, y  , missing__, varargs, kwargs) -%}\
             {% if 'y' in missing__ %}{% set y = x.x + 1 %}{% endif -%}a\
             {%- endmacro %}{% set m = macro__(m, ['x', 'y'], false, false) -%}b"
        );
        let plain = "{% macro m(x, z) %}{{ x }}{% endmacro %}{{ n(y=1) }}";
        assert_eq!(rewritten(plain), plain);
    }

    #[test]
    fn a_macro_has_further_arguments_where_its_body_names_them() {
        assert_eq!(
            rewritten("{% macro m() %}{{ kwargs }}{% endmacro %}{% macro n(varargs) %}{{ varargs }}{% endmacro %}"),
            "{% macro m(missing__, varargs, kwargs) %}{{ kwargs }}{% endmacro %}\
             {% set m = macro__(m, [], false, true) %}\
             {% macro n(varargs, missing__, kwargs) %}{{ varargs }}{% endmacro %}\
             {% set n = macro__(n, ['varargs'], false, false) %}"
        );
    }

    #[test]
    fn tuples_and_signs_are_written_out() {
        assert_eq!(rewritten("{{ 1, +2 }}"), "{{ (1,  2) }}");
        assert_eq!(rewritten("{% for i in 1, 2 if i %}"), "{% for i in (1, 2) if i %}");
    }
}
