//! Prompts and tokens of transformers' apply_chat_template, for tokenizers and templates of many kinds
//! (tests/fixtures/chat/make.py), and templates that must not harm.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use backbones::lm::LmTokenizer;
use backbones::lm::chat_template::{Chat, ChatError, ChatTemplates, Conversation, chat_tokens, prompt};
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/chat")
        .join(name)
}

fn read(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture(name)).unwrap()).unwrap()
}

static CASES: LazyLock<Value> = LazyLock::new(|| read("cases.json"));

/// A tokenizer of the fixtures with other files beside it.
fn tokenizer(name: &str, files: &Value) -> LmTokenizer {
    let dir = tempfile::tempdir().unwrap();
    let source = fixture(&format!("tokenizers/{name}.json"));
    std::fs::copy(source, dir.path().join("tokenizer.json")).unwrap();
    for (file, content) in files.as_object().into_iter().flatten() {
        let path = dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = content.as_str().map_or_else(|| content.to_string(), String::from);
        std::fs::write(path, text).unwrap();
    }
    LmTokenizer::load(dir.path()).unwrap()
}

fn with_template(template: &str) -> LmTokenizer {
    tokenizer(
        "bytes",
        &json!({"tokenizer_config.json": {"bos_token": "<s>", "chat_template": template}}),
    )
}

fn conversation(case: &Value) -> Conversation<'_> {
    let list = |field: &str| case.get(field).and_then(Value::as_array).map(Vec::as_slice);
    Conversation {
        messages: list("messages").unwrap(),
        tools: list("tools"),
        documents: list("documents"),
        variables: case.get("variables").and_then(Value::as_object),
    }
}

fn agrees(name: &str) {
    let case = &CASES[name];
    let tokenizer = tokenizer(case["tokenizer"].as_str().unwrap(), &case["files"]);
    let open = case["open"] == true;
    let text = prompt(&tokenizer, &conversation(case), open).unwrap();
    assert_eq!(text, case["text"].as_str().unwrap());
    assert_eq!(json!(tokenizer.encode(&text, false).unwrap()), case["ids"]);
    if let Some(mask) = case["mask"].as_array() {
        let chat = Chat::new(&tokenizer).unwrap();
        let found = chat_tokens(&tokenizer, &chat, &conversation(case), |_| true).unwrap();
        let ours: Vec<Value> = found.targets.iter().map(|target| json!(u8::from(*target))).collect();
        assert_eq!((&ours, json!(found.ids)), (mask, case["ids"].clone()));
    }
}

macro_rules! cases {
    ($($name:ident,)*) => {
        mod transformers {
            $(#[test]
            fn $name() {
                super::agrees(stringify!($name));
            })*
        }
    };
}

include!("fixtures/chat/names.rs");

#[test]
fn texts_have_the_tokens_of_transformers_with_what_the_tokenizer_adds() {
    for (name, texts) in read("plain.json").as_object().unwrap() {
        let tokenizer = tokenizer(name, &CASES[format!("inst_{name}")]["files"]);
        for case in texts.as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let found = tokenizer.encoded(text, true).unwrap();
            assert_eq!(json!(found.ids), case["ids"], "{name} {text}");
            assert_eq!(
                tokenizer.decode(&found.ids, true).unwrap(),
                case["back"].as_str().unwrap(),
                "{name} {text}"
            );
            let without = tokenizer.encode(text, false).unwrap();
            assert_eq!(
                without[..],
                found.ids[found.before..found.ids.len() - found.after],
                "{name} {text}"
            );
        }
    }
}

/// The target tokens of a conversation as text, and the numbers of turns found and lost.
fn learned(case: &str, tokenizer: &LmTokenizer) -> (String, usize, usize) {
    let chat = Chat::new(tokenizer).unwrap();
    let found = chat_tokens(tokenizer, &chat, &conversation(&CASES[case]), |_| true).unwrap();
    let targets = found.ids.iter().zip(&found.targets).filter(|(_, target)| **target);
    let targets: Vec<u32> = targets.map(|(id, _)| *id).collect();
    (tokenizer.decode(&targets, false).unwrap(), found.turns, found.lost)
}

#[test]
fn turns_are_found_in_the_text_of_the_whole_conversation() {
    let of = |case: &str| {
        learned(
            case,
            &tokenizer(CASES[case]["tokenizer"].as_str().unwrap(), &CASES[case]["files"]),
        )
    };
    let chatml = "It is 4.<|im_end|>\nI do not know.<|im_end|>\n";
    assert_eq!(of("chatml_bytes"), (chatml.into(), 2, 0));
    let inst = of("inst_prepend");
    assert_eq!(
        (inst.0.replace("  ", " ").trim(), inst.1, inst.2),
        ("It is 4. </s> I do not know. </s>", 2, 0)
    );
    // Earlier turns lose their thoughts: those without any are found, those with are counted.
    let last = "<think>\nso\n</think>\n\nd<|im_end|>\n";
    assert_eq!(of("think_last"), (last.into(), 1, 1));
    let think = tokenizer("bytes", &CASES["think_last"]["files"]);
    let two = "It is 4.<|im_end|>\n<think>\n\n</think>\n\nI do not know.<|im_end|>\n";
    assert_eq!(learned("chatml_bytes", &think), (two.into(), 2, 0));
    // A call of a tool is a turn as well.
    let calls = of("tools");
    assert!(calls.0.starts_with("<call>{\"name\": \"get_weather\"") && calls.0.ends_with("a sunny day<|im_end|>\n"));
    assert_eq!((calls.1, calls.2), (2, 0));
}

fn refusal(template: &str) -> ChatError {
    let messages = [json!({"role": "user", "content": "hi"})];
    let conversation = Conversation {
        messages: &messages,
        ..Conversation::default()
    };
    let tokenizer = with_template(template);
    prompt(&tokenizer, &conversation, true).unwrap_err()
}

#[test]
fn a_template_cannot_hang_fill_the_memory_or_overflow_the_stack() {
    let double = "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}";
    let nested = "{% set ns = namespace(s=[]) %}{% for i in range(9999) %}{% for j in range(9999) %}{% set ns.s = [ns.s] %}\
                  {% endfor %}{% endfor %}{{ ns.s | length }}";
    let shared = "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}";
    let loops = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}";
    let repeat =
        "{% set ns = namespace(l=[]) %}{% set x = 'x' * 1000000 %}{% for i in range(9999) %}{% for j in range(99) %}";
    let ends = "{% endfor %}{% endfor %}";
    let templates = [
        loops.to_string(),
        double.to_string(),
        nested.to_string(),
        format!("{shared}{{{{ ns.s }}}}"),
        format!("{shared}{{{{ ns.s | tojson }}}}"),
        format!("{shared}{{{{ ns.s | string }}}}"),
        "{% set x = 'ab' * 99999999 %}{{ x * 100 }}".into(),
        "{{ 'a\\nb' | indent(1000000000) }}".into(),
        "{{ '%1000000000d' | format(1) }}".into(),
        "{{ ('x' * 1000000) | replace('x', 'y' * 1000000) }}".into(),
        "{{ ('x' * 1000000).replace('x', 'y' * 1000000) }}".into(),
        "{{ [1] | batch(1000000000, 0) | list }}".into(),
        "{{ [1] | slice(1000000000, 0) | list }}".into(),
        "{{ messages | tojson(indent=1000000000) }}".into(),
        "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(1) }}".into(),
        "{{ not ".to_string() + &"not ".repeat(100_000) + "1 }}",
        format!("{{{{ {}1 }}}}", "1+".repeat(100_000)),
        format!("{{{{ 1{} }}}}", "|trim".repeat(100_000)),
        format!("{{{{ a{} }}}}", ".a".repeat(100_000)),
        format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(100_000)),
        "{% if a %}".repeat(100_000),
        "x".repeat(2 << 20),
        // A value that contains itself, written, compared, and as a key.
        "{% set ns = namespace() %}{% set ns.a = ns %}{% set ns.b = ns %}{% set x = ns ~ '' %}".into(),
        "{% set ns = namespace() %}{% set ns.a = [{'k': (1, [ns] * 2)}] %}{{ ns == ns.a or {ns: 1} }}".into(),
        "{% set ns = namespace() %}{% set ns.a, ns.b = 1, ns %}{{ [ns]|join }}".into(),
        format!("{shared}{{% set x = ns.s ~ '' %}}"),
        format!("{shared}{{{{ ns.s == [ns.s] }}}}"),
        // What the engine counts too late or not at all.
        "{{ '{:>1000000000}'.format(1) }}".into(),
        "{{ '{:.1000000000f}'.format(1.5) }}".into(),
        "{{ ('{:9999}' * 100000).format(1) }}".into(),
        "{{ strftime_now('%c' * 40000000) }}".into(),
        "{{ ([[[[1] * 1000] * 100] * 100] * 10) | pprint }}".into(),
        format!("{repeat}{{% set ns.l = [ns.l, x.partition('q')] %}}{ends}"),
        format!("{repeat}{{% set ns.l = [ns.l, x.split('q')] %}}{ends}"),
        format!("{repeat}{{% set ns.l = ns.l + [1] %}}{ends}"),
        // A text that no prompt is, though there is work enough for it.
        "{{ 'x' * 3000000 }}".into(),
    ];
    for template in templates {
        let shown: String = template.chars().take(60).collect();
        let message = refusal(&template).to_string();
        assert!(
            message.starts_with("the model's chat template") && message.len() < 600,
            "{shown}: {message}"
        );
        assert!(!message.contains('\n'), "{shown}: {message}");
    }
    // As deep as the limit on operators lets it be.
    let deep = [
        format!("{{{{ {}1 }}}}", "1+".repeat(29_000)),
        format!("{{{{ 1{} }}}}", "|string".repeat(29_000)),
        format!("{{{{ messages{} }}}}", "[0]".repeat(14_000)),
        format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(9_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(29_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(29_000)),
    ];
    let messages = [json!({"role": "user", "content": "hi"})];
    let conversation = Conversation {
        messages: &messages,
        ..Conversation::default()
    };
    for template in deep {
        let _ = prompt(&with_template(&template), &conversation, true);
    }
}

/// What valid templates do with namespaces goes on as before.
#[test]
fn a_namespace_holds_lists_texts_and_numbers() {
    let template = "{% set ns = namespace(l=[], n=0, t='') %}{% for m in messages %}{% set ns.l = ns.l + [m.role] %}\
                    {%- set ns.n = ns.n + 1 -%} {% set ns.t = ns.t ~ '%}' if ns.n == 1 else \"{{\" %}{% endfor %}\
                    {% set ns.a, ns.b = 1, (2, 3) %}{{ ns.l }} {{ ns.n }} {{ ns.t }} {{ ns.a + ns.b[1] }} {{ ns.l[0] }}\
                    {% raw %}{% set ns.x = 1 %}{% endraw %}";
    let messages = [json!({"role": "user", "content": "hi"})];
    let conversation = Conversation {
        messages: &messages,
        ..Conversation::default()
    };
    let text = prompt(&with_template(template), &conversation, true).unwrap();
    assert_eq!(text, "['user'] 1 %} 4 user{% set ns.x = 1 %}");
    // As long a conversation as there are.
    let many: Vec<Value> = (0..2000)
        .map(|turn| {
            let role = ["user", "assistant"][turn % 2];
            json!({"role": role, "content": "word ".repeat(200)})
        })
        .collect();
    let conversation = Conversation {
        messages: &many,
        ..Conversation::default()
    };
    let gathers = "{% set ns = namespace(l=[]) %}{% for m in messages %}{% set ns.l = ns.l + [m] %}{% endfor %}\
                   {% for m in ns.l %}<{{ m.role }}>{{ m.content | trim }}{% endfor %}";
    let text = prompt(&with_template(gathers), &conversation, false).unwrap();
    assert!(text.len() > 2_000_000, "{}", text.len());
}

/// Work on a text with a strange expression or strange replacements ends.
#[test]
fn a_tokenizer_cannot_hang_or_fill_the_memory() {
    let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
    let load = |field: &str, value: Value| {
        let dir = tempfile::tempdir().unwrap();
        let mut json = read("tokenizers/bytes.json");
        json[field] = value;
        std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        LmTokenizer::load(dir.path())
    };
    // Slow, but it ends by itself: under limits it is as it was.
    let strange = load("pre_tokenizer", split(r"(?:(?:(?=a)a|(?=a)a){0,6}(?=c)|.)")).unwrap();
    assert_eq!(
        strange.decode(&strange.encode("aaa", false).unwrap(), false).unwrap(),
        "aaa"
    );
    let long = load("pre_tokenizer", split(&"(?=x)[a-z]".repeat(2000)))
        .unwrap_err()
        .to_string();
    assert!(long.contains("regular expressions of 20000 bytes"), "{long}");
    let doubling = json!({"type": "Sequence", "normalizers": vec![double; 17]});
    let error = load("normalizer", doubling)
        .unwrap()
        .encode(&"a".repeat(64), false)
        .unwrap_err();
    assert!(error.to_string().contains("the tokenizer is given up"), "{error}");
}

#[test]
fn what_a_template_says_is_one_plain_line() {
    let error = refusal("{{ raise_exception('only\\n\\x1b[2Jusers') }}");
    assert!(matches!(&error, ChatError::Failed(message) if message.contains("only") && !message.contains('\u{1b}')));
    assert!(
        refusal("{{ messages[0].content.nothing() }}")
            .to_string()
            .contains("the model's chat template fails")
    );
    assert!(
        refusal("{% if %}")
            .to_string()
            .contains("the model's chat template fails")
    );
    assert!(refusal("{{ strftime_now('%Q') }}").to_string().contains("strftime_now"));
}

#[test]
fn models_without_a_template_and_with_several() {
    let none = tokenizer("bytes", &json!({}));
    let conversation = Conversation::default();
    assert_eq!(prompt(&none, &conversation, true), Err(ChatError::NoTemplate));
    assert!(none.chat_templates.is_empty());
    let named = json!([{"name": "rag", "template": "r"}, {"name": "tool_use", "template": "t"}]);
    let several = tokenizer("bytes", &json!({"tokenizer_config.json": {"chat_template": named}}));
    assert_eq!(
        prompt(&several, &conversation, true),
        Err(ChatError::NoDefault("rag, tool_use".into()))
    );
    let tools = Conversation {
        tools: Some(&[]),
        ..conversation
    };
    assert_eq!(prompt(&several, &tools, true), Ok("t".into()));
    assert!(!ChatTemplates::one("x").is_empty());
}

#[test]
fn damaged_tokenizers_are_refused_and_tokens_beyond_the_embedding_are_named() {
    let refused = |change: fn(&mut Value), part: &str| {
        let dir = tempfile::tempdir().unwrap();
        let mut json = read("tokenizers/bytes.json");
        change(&mut json);
        std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        let message = LmTokenizer::load(dir.path()).unwrap_err().to_string();
        assert!(
            message.contains("tokenizer.json") && message.contains(part),
            "{message}"
        );
    };
    // The tokenizers library panics on each of these.
    refused(
        |json| {
            json["model"]["continuing_subword_prefix"] = json!("é");
            json["model"]["merges"] = json!([["t", "h"]]);
        },
        "gives up",
    );
    refused(|json| json["decoder"] = json!({"type": 3}), "tokenizer");
    refused(|json| json["model"]["vocab"] = json!({"a": -1}), "no tokenizer");
    refused(
        |json| json["normalizer"] = json!({"type": "Replace", "pattern": {"String": 4}, "content": ""}),
        "no tokenizer",
    );
    let tokenizer = with_template("x");
    let ids = tokenizer.encode("the cat", false).unwrap();
    let least = *ids.iter().max().unwrap() as usize;
    assert_eq!(tokenizer.check_ids(&ids, least + 1), Ok(()));
    let message = tokenizer.check_ids(&ids, least).unwrap_err().to_string();
    assert!(
        message.contains(&format!("has id {least}")) && message.contains(&format!("{least} rows")),
        "{message}"
    );
}

#[test]
fn turns_that_are_not_to_be_learned_are_left_out() {
    for case in ["tags", "chatml_bytes"] {
        let case = &CASES[case];
        let tokenizer = tokenizer("bytes", &case["files"]);
        let chat = Chat::new(&tokenizer).unwrap();
        let of = |learned: fn(usize) -> bool| {
            let found = chat_tokens(&tokenizer, &chat, &conversation(case), learned).unwrap();
            (found.turns, found.targets)
        };
        let (both, first, last) = (of(|_| true), of(|index| index == 1), of(|index| index == 3));
        assert_eq!((both.0, first.0, last.0, of(|_| false).0), (2, 1, 1, 0));
        let either: Vec<bool> = first.1.iter().zip(&last.1).map(|(a, b)| a | b).collect();
        assert_eq!(either, both.1);
        assert!(first.1 != both.1 && last.1 != both.1);
    }
}
