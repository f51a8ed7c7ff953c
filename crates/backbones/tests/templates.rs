//! Templates as transformers' Jinja environment renders them: each filter, test, function and method, and `%` on texts
//! (tests/fixtures/templates/make.py).

use std::collections::BTreeMap;
use std::path::Path;

use backbones::lm::LmTokenizer;
use backbones::lm::chat_template::{Chat, ChatTemplates, Conversation};
use serde_json::{Value, json};

fn read(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/templates")
        .join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Texts of `templates` of one tokenizer, or what is wrong with them.
fn rendered(templates: &[&str], context: &Value) -> Vec<Result<String, String>> {
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat/tokenizers/bytes.json");
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(tokenizer, folder.path().join("tokenizer.json")).unwrap();
    let mut tokenizer = LmTokenizer::load(folder.path()).unwrap();
    let conversation = Conversation {
        messages: context["messages"].as_array().unwrap(),
        variables: context["variables"].as_object(),
        ..Conversation::default()
    };
    let render = |template: &&str| {
        tokenizer.chat_templates = ChatTemplates::one(*template);
        let chat = Chat::new(&tokenizer).map_err(|e| e.to_string())?;
        chat.render(&conversation, false)
            .map(|text| text.text)
            .map_err(|e| e.to_string())
    };
    templates.iter().map(render).collect()
}

#[test]
fn templates_are_rendered_as_transformers_renders_them() {
    let (cases, context) = (read("cases.json"), read("context.json"));
    let cases = cases.as_array().unwrap();
    assert!(cases.len() > 1000);
    let templates: Vec<&str> = cases.iter().map(|case| case[0].as_str().unwrap()).collect();
    let mut wrong = Vec::new();
    for (case, found) in cases.iter().zip(rendered(&templates, &context)) {
        let expected = case[1].as_str();
        if found.as_deref().ok() != expected {
            wrong.push(format!("{}\n  expected {expected:?}\n  found    {found:?}", case[0]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Texts of transformers 5.24.
#[test]
fn macros_are_called_as_in_jinja() {
    let context = json!({"messages": [{"role": "user"}], "variables": {}});
    let cases = [
        // A default is for what is not given, not for what is undefined.
        (
            "{% macro m(a, b='d') %}{{ a }}|{{ b }}{% endmacro %}{{ m(1, nope) }};{{ m(1, messages[0].x) }};{{ m(1) }}",
            "1|;1|;1|d",
        ),
        (
            "{% macro m(a=b, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ m() }};{{ m(b=3) }}",
            "2;33",
        ),
        (
            "{% macro m(a, b=a+1, c=b) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }};{{ m(1, c=5) }}",
            "122;125",
        ),
        (
            "{% macro m(a) %}{{ a }}{{ varargs }}{% endmacro %}{{ m(1,2,3) }}{{ m(1) }}",
            "1(2, 3)1()",
        ),
        (
            "{% macro m(a) %}{{ a }}{{ kwargs }}{% endmacro %}{{ m(1, z=2, y='q') }}",
            "1{'z': 2, 'y': 'q'}",
        ),
        (
            "{% macro m(a, b=2) %}{{ varargs|length }}{{ kwargs|length }}{% endmacro %}\
             {{ m(1) }}{{ m.name }}{{ m.arguments }}{{ m is callable }}",
            "00m('a', 'b')True",
        ),
        (
            "{% macro m(x, d='.') %}{{ d }}{% if x %}{{ m(x-1, '!') }}{% endif %}{% endmacro %}{{ m(2) }}",
            ".!!",
        ),
        (
            "{% macro m(a='A') %}{{ a }}[{{ caller(1) }}]{% endmacro %}{% call(n) m() %}z{{ n }}{% endcall %}",
            "A[z1]",
        ),
        ("{% macro m(a='x') -%}  {{ a }}  {%- endmacro -%}  {{ m() }}", "x"),
        ("{% macro m() %}{% endmacro %}{{ m is callable }}", "True"),
        // Others than macros.
        ("{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}", "12"),
        (
            "{% set ns = namespace(a=1) %}{{ ns is mapping }}{{ ns is iterable }}{{ ns is sequence }}",
            "FalseFalseFalse",
        ),
        ("{{ [[2,'b'],[1,'a']]|sort(attribute=1) }}", "[[1, 'a'], [2, 'b']]"),
        ("{{ {'a': [1]}|tojson(indent=-1) }}", "{\n\"a\": [\n1\n]\n}"),
    ];
    let templates = cases.map(|(template, _)| template);
    for (found, (template, expected)) in rendered(&templates, &context).into_iter().zip(cases) {
        assert_eq!(found.as_deref(), Ok(expected), "{template}");
    }
    let refused = [
        "{% macro m(a, b=1) %}{{ a }}{% endmacro %}{{ m(1, 2, 3) }}",
        "{% macro m(a, b=1) %}{{ a }}{% endmacro %}{{ m(1, z=2) }}",
        "{% macro m(a, b=1) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}",
    ];
    for (found, template) in rendered(&refused, &context).into_iter().zip(refused) {
        let message = found.expect_err(template);
        assert!(message.contains("macro 'm'"), "{template}: {message}");
    }
}

#[test]
fn what_templates_cannot_have_is_named() {
    let context = json!({"messages": [], "variables": {"items": [1, 2]}});
    let refused: BTreeMap<&str, &str> = [
        ("{{ items | random }}", "the filter 'random'"),
        ("{{ lipsum() }}", "the function 'lipsum'"),
        ("{{ 'a b.com' | urlize }}", "the filter 'urlize'"),
        ("{{ 'a'.encode() }}", "the method 'encode'"),
        ("{{ items.append(3) }}", "the method 'append' changes a value"),
        ("{{ 1 | sharpen }}", "filter sharpen is unknown"),
        ("{{ 1 is sharp }}", "test sharp is unknown"),
        ("{{ '%y' % 1 }}", "% with the letter 'y'"),
        ("{{ '%99999999d' % 1 }}", "a width of more than"),
        ("{{ 'x'.center(999999999) }}", "writes more than any prompt needs"),
    ]
    .into();
    let templates: Vec<&str> = refused.keys().copied().collect();
    for (found, (template, expected)) in rendered(&templates, &context).into_iter().zip(refused) {
        let message = found.expect_err(template);
        assert!(message.contains(expected), "{template}: {message}");
    }
}

#[test]
fn a_processor_s_file_of_a_template_is_read() {
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat/tokenizers/bytes.json");
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(tokenizer, folder.path().join("tokenizer.json")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let text = || {
        let tokenizer = LmTokenizer::load(folder.path()).map_err(|e| e.to_string())?;
        let chat = Chat::new(&tokenizer).map_err(|e| e.to_string())?;
        let text = chat
            .render(&Conversation::default(), false)
            .map_err(|e| e.to_string())?;
        Ok::<_, String>(text.text)
    };
    write("chat_template.json", r#"{"chat_template": "processor"}"#);
    assert_eq!(text().unwrap(), "processor");
    write("tokenizer_config.json", r#"{"chat_template": "tokenizer"}"#);
    assert_eq!(text().unwrap(), "tokenizer");
    write("chat_template.jinja", "file");
    assert_eq!(text().unwrap(), "file");
    std::fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    write("tokenizer_config.json", "{}");
    for (content, expected) in [("{", "no JSON"), (r#"{"chat_template": 3}"#, "no text or named texts")] {
        write("chat_template.json", content);
        assert!(text().unwrap_err().contains(expected));
    }
}
