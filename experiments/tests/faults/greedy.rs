//! Templates and tokenizers of strangers that would take all memory or never end, in a process of their own: what is given up
//! goes on until the process ends.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::work::{fails_with_a_sentence, folder, stderr, wegeft};

/// Address space of the process, kB: stacks and libraries included. Whoever takes more aborts.
const MEMORY: u32 = 1 << 20;
/// Longest time of the process.
const LONGEST: Duration = Duration::from_secs(20);

/// The shipped model with other files of its tokenizer.
fn model(folder: &Path, change: impl FnOnce(&mut Value, &mut Value)) {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/language-model");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(shipped.join(name), folder.join(name)).unwrap();
    }
    let names = ["tokenizer.json", "tokenizer_config.json"];
    let mut files = names.map(|name| {
        let text = std::fs::read_to_string(shipped.join(name)).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    });
    let [tokenizer, config] = &mut files;
    change(tokenizer, config);
    for (name, json) in names.iter().zip(&files) {
        std::fs::write(folder.join(name), json.to_string()).unwrap();
    }
}

/// `generate` with little memory.
fn generate(folder: &Path, prompt: &str) -> Output {
    let mut command = Command::new("sh");
    let program = wegeft();
    command.args(["-c", &format!("ulimit -v {MEMORY}; exec \"$@\""), "sh"]);
    command.arg(program.get_program());
    command.args([
        "generate",
        "--chat",
        "--max-new-tokens",
        "2",
        "--prompt",
        prompt,
        "--model",
    ]);
    command.arg(folder).env("RAYON_NUM_THREADS", "1");
    let start = Instant::now();
    let output = command.output().unwrap();
    assert!(start.elapsed() < LONGEST, "{:?}", start.elapsed());
    output
}

#[test]
fn a_template_is_given_up_before_it_takes_all_memory() {
    let huge = "{% set x = ['a' * 1000] * 10000000 %}";
    for (template, words) in [
        (format!("{huge}{{% set y = x ~ '' %}}"), "refused"),
        (format!("{huge}{{{{ '%s' | format(x) }}}}"), "refused"),
        (format!("{huge}{{{{ [x] | join(',') }}}}"), "refused"),
        (format!("{huge}{{{{ x | upper }}}}"), "MB of memory"),
        ("{{ (['x' * 1000000] * 100000) | join }}".into(), "chat template"),
        // Doubled by a macro, which has no namespace.
        (
            "{% macro m(x, n) %}{% if n %}{{ m([x, x], n - 1) }}{% else %}{{ (x ~ '') | length }}{% endif %}{% endmacro %}\
             {{ m([1], 60) }}"
                .into(),
            "refused",
        ),
    ] {
        let dir = folder();
        model(dir.path(), |_, config| config["chat_template"] = json!(template));
        let message = fails_with_a_sentence(&generate(dir.path(), "hi"), &template);
        assert!(message.contains(words), "{template}: {message}");
    }
}

#[test]
fn a_tokenizer_s_expression_is_given_up_before_it_takes_for_ever() {
    let dir = folder();
    model(dir.path(), |tokenizer, config| {
        config["chat_template"] = json!("{{ messages[0].content }}");
        // Just below the engine's own limit, again at each character.
        tokenizer["pre_tokenizer"] = json!({
            "type": "Split", "pattern": {"Regex": r"(?:(?:(?=a)a|(?=a)a){0,17}(?=c)|.)"}, "behavior": "Isolated",
            "invert": false,
        });
    });
    let message = fails_with_a_sentence(&generate(dir.path(), &"a".repeat(4000)), "a slow expression");
    assert!(message.contains("the tokenizer is given up"), "{message}");
    let output = generate(dir.path(), "bbb");
    assert!(output.status.success(), "{}", stderr(&output));
}
