//! The `generate` program and its library, against what transformers' `generate` made of the same tiny decoders
//! (tests/fixtures/generate/make.py).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use backbones::lm::chat_template::{Conversation, prompt};
use backbones::lm::{Decoder, LmTokenizer, LoadOptions, load_lm};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Distribution, Tensor};
use experiments::language::generation::{Generated, Generation, Generator};
use safetensors::SafeTensors;
use serde::Deserialize;
use wegeft::storage::read_tensors;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/generate")
}

fn decoder(name: &str) -> PathBuf {
    let folder = "../crates/backbones/tests/fixtures/lm";
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(name)
}

#[derive(Deserialize)]
struct Expected {
    chat: Chat,
    prompts: Vec<Vec<u32>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Chat {
    messages: Vec<serde_json::Value>,
    prompt: String,
}

#[derive(Deserialize)]
struct Case {
    model: String,
    eos: Vec<u32>,
    settings: Generation,
    outputs: Vec<Vec<u32>>,
}

fn expected() -> Expected {
    serde_json::from_str(&std::fs::read_to_string(fixtures().join("expected.json")).unwrap()).unwrap()
}

fn load(name: &str) -> Decoder {
    load_lm(&decoder(name), &LoadOptions::default(), &Device::flex())
        .unwrap()
        .model
}

fn tokens(generated: Vec<Generated>) -> Vec<Vec<u32>> {
    generated.into_iter().map(|one| one.tokens).collect()
}

/// A folder with the decoder `name` and the word tokenizer.
fn model(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let files = [decoder(name), fixtures()].map(|folder| std::fs::read_dir(folder).unwrap());
    for entry in files.into_iter().flatten().flatten() {
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_generate"));
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeds(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn fails(args: &[&str], parts: &[&str]) {
    let output = run(args);
    let message = text(&output.stderr);
    let last = message.lines().last().unwrap_or_default();
    assert!(
        !output.status.success() && !message.contains("panicked"),
        "{args:?}: {message}"
    );
    assert!(
        parts.iter().all(|part| last.contains(part)),
        "{parts:?} not in: {message}"
    );
}

#[test]
fn greedy_and_beam_search_are_transformers_own() {
    let expected = expected();
    let device = Device::flex();
    for case in &expected.cases {
        let model = load(&case.model);
        let generator = Generator {
            model: &model,
            tokenizer: None,
            eos: &case.eos,
            device: &device,
        };
        // All prompts in one batch, of unequal lengths.
        let ours = generator
            .generate(&expected.prompts, &case.settings, &mut |_, _| {})
            .unwrap();
        assert_eq!(tokens(ours), case.outputs, "{} {:?}", case.model, case.settings);
    }
}

#[test]
fn draws_depend_on_the_seed_and_not_on_the_batch() {
    let model = load("llama3");
    let device = Device::flex();
    let generator = Generator {
        model: &model,
        tokenizer: None,
        eos: &[2],
        device: &device,
    };
    let prompts = expected().prompts;
    let drawn = |prompts: &[Vec<u32>], seed: u64| {
        let settings = Generation {
            temperature: 1.0,
            top_k: 20,
            top_p: 0.9,
            seed,
            ..Generation::default()
        };
        tokens(generator.generate(prompts, &settings, &mut |_, _| {}).unwrap())
    };
    let all = drawn(&prompts, 5);
    assert_eq!(all, drawn(&prompts, 5));
    assert_ne!(all, drawn(&prompts, 6));
    for (index, prompt) in prompts.iter().enumerate() {
        assert_eq!(
            all[index..=index],
            drawn(std::slice::from_ref(prompt), 5 + index as u64)
        );
    }
}

#[test]
fn chat_template_stop_texts_and_streaming() {
    let dir = model("llama3");
    let tokenizer = LmTokenizer::load(dir.path()).unwrap();
    let chat = expected().chat;
    let conversation = Conversation {
        messages: &chat.messages,
        ..Conversation::default()
    };
    assert_eq!(prompt(&tokenizer, &conversation, true).unwrap(), chat.prompt);
    let model = load("llama3");
    let device = Device::flex();
    let generator = Generator {
        model: &model,
        tokenizer: Some(&tokenizer),
        eos: &[2],
        device: &device,
    };
    let prompts = expected().prompts;
    let settings = Generation {
        max_new_tokens: 12,
        ..Generation::default()
    };
    let watched = |settings: &Generation| {
        let mut seen = vec![String::new(); prompts.len()];
        let mut watch = |index: usize, text: &str| seen[index] += text;
        let generated = generator.generate(&prompts, settings, &mut watch).unwrap();
        for (generated, seen) in generated.iter().zip(seen) {
            assert_eq!(generated.text, seen);
        }
        generated
    };
    let whole = watched(&settings);
    let words: Vec<&str> = whole[1].text.split(' ').collect();
    assert_eq!(words.len(), 11, "special tokens are no text: {words:?}");
    let stopped = watched(&Generation {
        stop: vec![words[4..6].join(" ")],
        ..settings
    });
    assert_eq!(stopped[1].text, words[..4].join(" ") + " ");
    assert_eq!(stopped[1].tokens, whole[1].tokens[..6]);
}

#[test]
fn logits_are_the_reference_s_from_tokens_and_from_text() {
    let dir = model("gemma3");
    let (path, out) = (dir.path().display().to_string(), dir.path().join("out.safetensors"));
    let expected = read_tensors(&decoder("gemma3").join("expected.safetensors")).unwrap();
    let out_name = out.display().to_string();
    // Two prompts as text of the word tokenizer, which puts <s> in front: give the tokens instead, then their output again.
    let ids: Vec<i64> = expected["ids"].values.iter().map(|id| *id as i64).collect();
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::I64, vec![2, 9], &bytes).unwrap();
    let packed = safetensors::serialize([("input_ids", view)], None).unwrap();
    let given = dir.path().join("ids.safetensors");
    std::fs::write(&given, packed).unwrap();
    let given = given.display().to_string();
    let check = |input: &str, output: &str| {
        succeeds(&["--model", &path, "--input-ids", input, "--logits", output]);
        let bytes = std::fs::read(output).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for row in 0..2 {
            let logits = file.tensor(&format!("logits.{row}")).unwrap();
            assert_eq!(logits.shape(), [9, 32]);
            let theirs = &expected["logits"].values[row * 9 * 32..][..9 * 32];
            let ours = logits
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            let furthest = ours.zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(furthest < 1e-4, "{furthest}");
            assert_eq!(file.tensor(&format!("input_ids.{row}")).unwrap().shape(), [9]);
        }
    };
    check(&given, &out_name);
    let again = dir.path().join("again.safetensors").display().to_string();
    check(&out_name, &again);
    succeeds(&["--model", &path, "--prompt", "one two", "--logits", &out_name]);
    let bytes = std::fs::read(&out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("logits").unwrap().shape(), [3, 32]);
    let ids: Vec<u8> = [1i64, 6, 7].iter().flat_map(|id| id.to_le_bytes()).collect();
    assert_eq!(file.tensor("input_ids").unwrap().data(), ids);
}

#[test]
fn prompts_come_from_flags_files_and_chats() {
    let dir = model("llama3");
    let path = dir.path().display().to_string();
    let base = ["--model", &path, "--max-new-tokens", "5"];
    let with = |more: &[&str]| succeeds(&[&base[..], more].concat());
    let one = with(&["--prompt", "three four"]);
    let many = with(&["--prompt", "three four", "--prompt", "red", "--batch-size", "1"]);
    assert_eq!(many.lines().next(), Some(format!("[0] {}", one.trim_end()).as_str()));
    assert_eq!(many, with(&["--prompt", "three four", "--prompt", "red"]));
    let file = dir.path().join("prompts.txt");
    std::fs::write(&file, "three four\nred\n").unwrap();
    assert_eq!(many, with(&["--prompts", file.to_str().unwrap()]));
    let lines = dir.path().join("prompts.jsonl");
    std::fs::write(
        &lines,
        "{\"prompt\": \"three four\"}\n{\"messages\": [{\"role\": \"system\", \"content\": \"not\"}, {\"role\": \"user\", \"content\": \"red\"}]}\n",
    )
    .unwrap();
    let found = with(&["--prompts", lines.to_str().unwrap(), "--json"]);
    let found: Vec<serde_json::Value> = found.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found[0]["text"], one.trim_end());
    assert_eq!(found[1]["prompt"], "<s> system not user red assistant");
    let mut child = Command::new(env!("CARGO_BIN_EXE_generate"))
        .args(base)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"three four\n").unwrap();
    assert_eq!(text(&child.wait_with_output().unwrap().stdout), one);
    let chat = with(&["--prompt", "red", "--chat", "--system", "not", "--json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&chat).unwrap(), found[1]);
}

#[test]
fn a_chat_of_one_message_goes_into_the_template_too() {
    let dir = model("llama3");
    let (path, lines) = (dir.path().display().to_string(), dir.path().join("chat.jsonl"));
    std::fs::write(&lines, "{\"messages\": [{\"role\": \"user\", \"content\": \"red\"}]}\n").unwrap();
    let said = succeeds(&["--model", &path, "--json", "--prompts", lines.to_str().unwrap()]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["prompt"], "<s> user red assistant");
    let prompt = |more: &[&str]| {
        let said = succeeds(&[&["--model", path.as_str(), "--json", "--prompt", "red"], more].concat());
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        said["prompt"].as_str().unwrap().to_string()
    };
    assert_eq!(prompt(&["--template", "chat"]), "<s> user red assistant");
    assert_eq!(prompt(&["--template", "plain"]), "red\n");
}

#[test]
fn sampling_is_the_model_s_own_unless_flags_say_otherwise() {
    let dir = model("llama3");
    let path = dir.path().display().to_string();
    let say = |more: &[&str]| {
        succeeds(
            &[
                &["--model", &path, "--prompt", "one red", "--max-new-tokens", "20"],
                more,
            ]
            .concat(),
        )
    };
    let greedy = say(&[]);
    let write = |text: &str| std::fs::write(dir.path().join("generation_config.json"), text).unwrap();
    write(
        r#"{"eos_token_id": 2, "do_sample": true, "temperature": 0.8, "top_k": 7, "top_p": 0.9, "repetition_penalty": 1.3}"#,
    );
    // The most likely token stays the most likely one, with the file's penalty; what is drawn is drawn as the file says.
    assert_eq!(say(&["--repetition-penalty", "1"]), greedy);
    assert_eq!(say(&[]), say(&["--repetition-penalty", "1.3"]));
    assert_ne!(say(&[]), greedy);
    let own = say(&["--sample"]);
    let flags = [
        "--temperature",
        "0.8",
        "--top-k",
        "7",
        "--top-p",
        "0.9",
        "--repetition-penalty",
        "1.3",
    ];
    assert_eq!(own, say(&flags));
    assert_eq!(say(&["--sample", "--top-k", "1", "--repetition-penalty", "1"]), greedy);
    assert_eq!(say(&["--temperature", "0", "--sample"]), say(&["--temperature", "0"]));
    write(r#"{"eos_token_id": 2}"#);
    assert_eq!(say(&flags), own);
    assert_eq!(
        say(&["--sample"]),
        say(&["--temperature", "1", "--top-k", "50", "--top-p", "1"])
    );
    // Read where tokens are drawn only.
    write(r#"{"top_p": "most"}"#);
    assert_eq!(say(&[]), greedy);
    fails(
        &["--model", &path, "--prompt", "one", "--sample"],
        &["generation_config.json", "'top_p'", "number"],
    );
    write(r#"{"eos_token_id": "2"}"#);
    fails(
        &["--model", &path, "--prompt", "one"],
        &["generation_config.json", "'eos_token_id'", "expected a token id"],
    );
}

#[test]
fn what_changes_every_text_is_the_model_s_own_or_told() {
    let dir = model("llama3");
    let path = dir.path().display().to_string();
    let base = ["--model", &path, "--prompt", "one red", "--max-new-tokens", "20"];
    let say = |more: &[&str]| succeeds(&[&base[..], more].concat());
    let write = |text: &str| std::fs::write(dir.path().join("generation_config.json"), text).unwrap();
    write(r#"{"eos_token_id": 2}"#);
    let greedy = say(&[]);
    let [ngrams, beams] = [say(&["--no-repeat-ngram-size", "1"]), say(&["--num-beams", "4"])];
    assert!(greedy != ngrams && greedy != beams);
    write(r#"{"eos_token_id": 2, "no_repeat_ngram_size": 1}"#);
    assert_eq!(say(&[]), ngrams);
    assert_eq!(say(&["--no-repeat-ngram-size", "0"]), greedy);
    write(r#"{"eos_token_id": 2, "num_beams": 4}"#);
    assert_eq!(say(&[]), beams);
    assert_eq!(say(&["--num-beams", "1"]), greedy);
    write(r#"{"eos_token_id": 2, "min_new_tokens": 3, "bad_words_ids": [[3]], "num_beams": 1}"#);
    let out = run(&base);
    let lines = String::from_utf8(out.stderr).unwrap();
    assert!(
        out.status.success() && lines.contains("ignored: min_new_tokens, bad_words_ids"),
        "{lines}"
    );
}

struct Noise;

impl ModuleMapper for Noise {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            let device = tensor.device();
            Tensor::random(tensor.shape(), Distribution::Normal(0.0, 0.5), &device)
        })
    }
}

#[test]
fn an_adapter_is_bound_and_merged_it_says_the_same() {
    let dir = model("qwen3");
    let path = dir.path().display().to_string();
    Device::flex().seed(3);
    let adapter = dir.path().join("adapter");
    let config = wegeft::AdapterConfig::wegeft(4).with_target_modules(["q_proj", "v_proj", "up_proj"]);
    // Noise in every parameter; only the factors are saved.
    config
        .init(load("qwen3"))
        .unwrap()
        .map(&mut Noise)
        .save(&adapter)
        .unwrap();
    let adapter = adapter.display().to_string();
    let say = |more: &[&str]| succeeds(&[&["--model", &path, "--prompt", "one red", "--json"], more].concat());
    let (plain, bound) = (say(&[]), say(&["--adapter", &adapter]));
    assert_ne!(plain, bound);
    assert_eq!(bound, say(&["--adapter", &adapter, "--merge"]));
    let half = say(&["--adapter", &adapter, "--dtype", "bf16"]);
    assert_eq!(half.lines().count(), 1);
    fails(
        &["--model", &path, "--prompt", "one", "--adapter", &path],
        &["adapter_config.json"],
    );
}

#[test]
fn learned_positions_are_counted_with_the_virtual_tokens_of_an_adapter() {
    let dir = model("gpt2");
    let path = dir.path().display().to_string();
    let out = dir.path().join("logits.safetensors").display().to_string();
    let words = |count: usize| vec!["one"; count].join(" ");
    let logits = |count: usize, more: &[&str]| {
        let (out, words) = (out.clone(), words(count));
        let args = ["--model", &path, "--prompt", &words, "--logits", &out];
        [&args[..], more]
            .concat()
            .into_iter()
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let strings = |args: &[String], then: &dyn Fn(&[&str])| then(&args.iter().map(String::as_str).collect::<Vec<_>>());
    // The tokenizer adds <s>.
    strings(&logits(31, &[]), &|args| drop(succeeds(args)));
    strings(&logits(32, &[]), &|args| {
        fails(args, &["33 tokens", "positions for 32 tokens"])
    });
    for config in [
        wegeft::AdapterConfig::prompt_tuning(20),
        wegeft::AdapterConfig::prefix_tuning(20),
    ] {
        let adapter = dir.path().join("adapter");
        config.init(load("gpt2")).unwrap().save(&adapter).unwrap();
        let adapter = adapter.display().to_string();
        let more = ["--adapter", adapter.as_str()];
        strings(&logits(11, &more), &|args| drop(succeeds(args)));
        let taken = ["positions for 12 tokens beside the 20 virtual tokens"];
        strings(&logits(12, &more), &|args| fails(args, &taken));
        let say = ["--model", &path, "--prompt", "one red", "--adapter", &adapter];
        succeeds(&[&say[..], &["--max-new-tokens", "10"]].concat());
        fails(&[&say[..], &["--max-new-tokens", "11"]].concat(), &taken);
    }
}

#[test]
fn a_flag_that_nothing_reads_is_named() {
    let dir = model("gpt2");
    let path = dir.path().display().to_string();
    let told = |more: &[&str]| {
        let output = run(&[&["--model", &path, "--prompt", "one", "--max-new-tokens", "1"], more].concat());
        assert!(output.status.success(), "{more:?}: {}", text(&output.stderr));
        let lines = text(&output.stderr);
        let lines = lines.lines().filter(|line| line.contains("has no effect"));
        lines.map(str::to_string).collect::<Vec<_>>()
    };
    let drawn = ["--top-k", "3", "--top-p", "0.5", "--seed", "1"];
    let lines = told(&[&drawn[..], &["--length-penalty", "2"]].concat());
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!(lines[0], "--top-k has no effect: it needs --sample");
    assert_eq!(lines[3], "--length-penalty has no effect: it needs --num-beams above 1");
    assert_eq!(told(&[&drawn[..], &["--temperature", "0"]].concat()).len(), 3);
    assert!(told(&[&drawn[..], &["--sample"]].concat()).is_empty());
    assert!(told(&["--num-beams", "2", "--length-penalty", "2"]).is_empty());
}

#[test]
fn bad_input_is_one_sentence() {
    let dir = model("gpt2");
    let path = dir.path().display().to_string();
    let refused = |more: &[&str], parts: &[&str]| fails(&[&["--model", &path], more].concat(), parts);
    fails(
        &["--model", "no such model", "--prompt", "one"],
        &["no such model", "org/name"],
    );
    refused(&["--prompt", ""], &["no prompt", "--prompts"]);
    refused(&["--prompts", "nowhere.txt"], &["nowhere.txt"]);
    refused(&["--input-ids", "nowhere.safetensors"], &["nowhere.safetensors"]);
    refused(&["--prompt", "one", "--dtype", "f64"], &["--dtype", "f64", "bf16"]);
    refused(
        &["--prompt", "one", "--quantize", "int3"],
        &["--quantize", "int3", "int8"],
    );
    refused(
        &["--prompt", "one", "--adapter", "x", "--merge", "--quantize", "int8"],
        &["--merge", "--quantize"],
    );
    refused(&["--prompt", "one", "--temperature", "-1"], &["temperature is -1"]);
    refused(
        &["--prompt", "one", "--num-beams", "0"],
        &["--num-beams", "a whole number from 1"],
    );
    refused(&["--prompt", "one", "--top-p", "1.5"], &["top_p is 1.5"]);
    refused(&["--prompt", "one", "--device", "tpu"], &["--device tpu"]);
    refused(
        &["--prompt", "one", "--max-new-tokens", "40"],
        &["40", "positions for 32"],
    );
    let lines = dir.path().join("bad.jsonl");
    std::fs::write(&lines, "{\"prompt\": \"one\"}\n{\"text\": 1}\n").unwrap();
    refused(&["--prompts", lines.to_str().unwrap()], &["bad.jsonl:2", "messages"]);
    std::fs::write(&lines, "\n \n").unwrap();
    refused(&["--prompts", lines.to_str().unwrap()], &["no prompt in", "bad.jsonl"]);
    std::fs::write(dir.path().join("tokenizer_config.json"), "{}").unwrap();
    refused(&["--prompt", "one", "--chat"], &["no chat template", "--chat"]);
    std::fs::write(&lines, "{\"messages\": [{\"role\": \"user\", \"content\": \"one\"}]}\n").unwrap();
    refused(
        &["--prompts", lines.to_str().unwrap()],
        &["no chat template", "{\"prompt\": …}"],
    );
    let words = dir.path().join("tokenizer.json");
    let tokenizer = std::fs::read_to_string(&words).unwrap();
    std::fs::write(
        &words,
        tokenizer
            .replace("\"of\":31", "\"of\":47")
            .replace("\"of\": 31", "\"of\": 47"),
    )
    .unwrap();
    // Only a prompt that has such a token is wrong.
    refused(&["--prompt", "one of"], &["prompt 0", "'of' has id 47", "32 rows"]);
    succeeds(&["--model", &path, "--prompt", "one", "--max-new-tokens", "1"]);
    std::fs::remove_file(&words).unwrap();
    refused(&["--prompt", "one"], &["tokenizer.json", "missing"]);
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    refused(&["--prompt", "one"], &["model.safetensors"]);
}

/// 64 greedy tokens of a real model, in f32: run with its folder,
/// `GEMMA3_270M=FOLDER cargo test --workspace --test generate -- --ignored`.
#[test]
#[ignore = "needs Gemma 3 270M, 570 MB; give its folder as GEMMA3_270M"]
fn gemma_3_270m_says_what_it_says_in_transformers() {
    #[derive(Deserialize)]
    struct Case {
        prompt: String,
        input_ids: Vec<u32>,
        tokens: Vec<u32>,
        text: String,
    }
    let folder = PathBuf::from(std::env::var("GEMMA3_270M").unwrap());
    let cases = std::fs::read_to_string(fixtures().join("gemma3_270m.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&cases).unwrap();
    let device = Device::flex();
    let loaded = load_lm(&folder, &LoadOptions::default(), &device).unwrap();
    let tokenizer = LmTokenizer::load(&folder).unwrap();
    let generator = Generator {
        model: &loaded.model,
        tokenizer: Some(&tokenizer),
        eos: &loaded.generation.eos,
        device: &device,
    };
    let prompts: Vec<Vec<u32>> = cases
        .iter()
        .map(|case| tokenizer.encode(&case.prompt, true).unwrap())
        .collect();
    let generated = generator
        .generate(&prompts, &Generation::default(), &mut |_, _| {})
        .unwrap();
    for ((case, prompt), ours) in cases.iter().zip(&prompts).zip(&generated) {
        assert_eq!(&case.input_ids, prompt);
        assert_eq!((&ours.tokens, &ours.text), (&case.tokens, &case.text));
    }
}

#[test]
fn a_longrope_that_never_switches_generates() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(decoder("phi3_long").join(file), dir.path().join(file)).unwrap();
    }
    let path = dir.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    // More positions than can be counted.
    config["original_max_position_embeddings"] = serde_json::json!(1e300);
    std::fs::write(&path, config.to_string()).unwrap();
    let device = Device::flex();
    let model = load_lm(dir.path(), &LoadOptions::default(), &device).unwrap().model;
    let generator = Generator {
        model: &model,
        tokenizer: None,
        eos: &[],
        device: &device,
    };
    let settings = Generation {
        max_new_tokens: 3,
        ..Generation::default()
    };
    let generated = generator.generate(&[vec![1, 5, 7]], &settings, &mut |_, _| {}).unwrap();
    assert_eq!(generated[0].tokens.len(), 3);
}
