//! Tokenizers and chat templates.

use std::path::Path;

use backbones::lm::LmTokenizer;
use backbones::lm::chat_template::{Chat, Conversation};
use serde_json::json;

use crate::harness::Reader;
use crate::{beside, bytes_of, written};

pub const READERS: &[Reader] = &[
    Reader {
        name: "tokenizer",
        seeds: || {
            let names = ["always", "bytes", "bytes_both", "first", "prepend", "unigram"];
            let path = |name: &&str| format!("crates/backbones/tests/fixtures/chat/tokenizers/{name}.json");
            names.iter().map(|name| bytes_of(&path(name))).collect()
        },
        repair: None,
        read: |folder, bytes| {
            written(folder, "tokenizer.json", bytes);
            tokenizer(folder).map(drop)
        },
    },
    Reader {
        name: "tokenizer-config",
        seeds: || {
            let template = "{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}{{ eos_token }}{% endfor %}\
                            {% if add_generation_prompt %}<|assistant|>{% endif %}";
            let named =
                json!([{ "name": "default", "template": template }, { "name": "tool_use", "template": template }]);
            let token = json!({ "content": "</s>", "lstrip": false, "special": true });
            [
                json!({ "eos_token": "</s>", "bos_token": null, "chat_template": template, "add_bos_token": true }),
                json!({ "eos_token": token, "bos_token": "<s>", "chat_template": named, "model_max_length": 1e30 }),
            ]
            .map(|config| serde_json::to_vec_pretty(&config).unwrap())
            .to_vec()
        },
        repair: None,
        read: |folder, bytes| {
            written(folder, "tokenizer_config.json", bytes);
            chat(folder)
        },
    },
    Reader {
        name: "chat-template",
        seeds: || {
            let cases: serde_json::Value =
                serde_json::from_slice(&bytes_of("crates/backbones/tests/fixtures/chat/cases.json")).unwrap();
            let mut found = Vec::new();
            collect(&cases, &mut found);
            found.push(b"{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}".to_vec());
            found.truncate(24);
            found
        },
        repair: None,
        read: |folder, bytes| {
            written(folder, "chat_template.jinja", bytes);
            chat(folder)
        },
    },
    Reader {
        name: "chat-template-json",
        seeds: || {
            let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
            let named = json!([{ "name": "default", "template": template }]);
            [json!({ "chat_template": template }), json!({ "chat_template": named })]
                .map(|file| serde_json::to_vec(&file).unwrap())
                .to_vec()
        },
        repair: None,
        read: |folder, bytes| {
            written(folder, "chat_template.json", bytes);
            chat(folder)
        },
    },
    // As they were before tokenizer_config.json listed all tokens.
    Reader {
        name: "special-tokens-map",
        seeds: || {
            let token = json!({ "content": "</s>", "lstrip": false, "normalized": false, "rstrip": true, "single_word": false });
            [
                json!({ "bos_token": "<s>", "eos_token": token, "additional_special_tokens": ["<|im_start|>", "<more>"] }),
                json!({ "unk_token": "<unk>", "pad_token": null }),
            ]
            .map(|file| serde_json::to_vec(&file).unwrap())
            .to_vec()
        },
        repair: None,
        read: |folder, bytes| {
            beside(folder, "tokenizer.json", BYTES);
            written(folder, "special_tokens_map.json", bytes);
            tokenizer(folder).map(drop)
        },
    },
    Reader {
        name: "added-tokens",
        seeds: || {
            [json!({ "<more>": 376, "<most>": 377 }), json!({ "<s>": 0 })]
                .map(|file| serde_json::to_vec(&file).unwrap())
                .to_vec()
        },
        repair: None,
        read: |folder, bytes| {
            beside(folder, "tokenizer.json", BYTES);
            written(folder, "added_tokens.json", bytes);
            tokenizer(folder).map(drop)
        },
    },
];

const BYTES: &str = "crates/backbones/tests/fixtures/chat/tokenizers/bytes.json";

/// All texts of a JSON value that are templates.
fn collect(value: &serde_json::Value, found: &mut Vec<Vec<u8>>) {
    match value {
        serde_json::Value::String(text) if text.contains("{%") => found.push(text.as_bytes().to_vec()),
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        serde_json::Value::Object(fields) => fields.values().for_each(|value| collect(value, found)),
        _ => {}
    }
}

fn tokenizer(folder: &Path) -> Result<LmTokenizer, String> {
    let tokenizer = LmTokenizer::load(folder).map_err(|e| e.to_string())?;
    let ids = tokenizer.encode("Héllo, wörld 12  \n<s>", true)?;
    tokenizer.decode(&ids, true)?;
    let _ = tokenizer.check_ids(&ids, 100);
    Ok(tokenizer)
}

fn chat(folder: &Path) -> Result<(), String> {
    beside(folder, "tokenizer.json", BYTES);
    let tokenizer = LmTokenizer::load(folder).map_err(|e| e.to_string())?;
    let chat = Chat::new(&tokenizer).map_err(|e| e.to_string())?;
    let messages = [
        json!({ "role": "system", "content": "Be brief." }),
        json!({ "role": "user", "content": "1 + 1?" }),
        json!({ "role": "assistant", "content": "2" }),
    ];
    let conversation = Conversation {
        messages: &messages,
        ..Conversation::default()
    };
    chat.render(&conversation, true).map(drop).map_err(|e| e.to_string())
}
