//! Models by hub name, fetched from a server on this machine.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use backbones::lm::{LoadOptions, load_lm};
use burn::tensor::Device;
use wegeft::AdapterConfig;

fn fixture(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates/backbones/tests/fixtures/timm")
        .join(file)
}

/// What the server has: the timm fixture as `org/tiny`, a decoder in shards with the word tokenizer as `org/words`.
fn served(path: &str) -> Option<PathBuf> {
    if let Some(file) = path.strip_prefix("/org/tiny/resolve/main/") {
        return Some(fixture(file));
    }
    let file = path.strip_prefix("/org/words/resolve/main/")?;
    let folder = if file.starts_with("token") {
        "tests/fixtures/generate"
    } else {
        "../crates/backbones/tests/fixtures/lm/llama3"
    };
    Some(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(file))
}

/// Serves the fixtures; returns its address and the request heads it saw.
fn server() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let seen = seen.clone();
            std::thread::spawn(move || while answer(&stream, &seen).is_some() {});
        }
    });
    (address, heads)
}

fn answer(mut stream: &TcpStream, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut head = String::new();
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        head += &line;
    }
    seen.lock().unwrap().push(head.clone());
    let path = head.split(' ').nth(1)?;
    let Some(bytes) = served(path).and_then(|file| std::fs::read(file).ok()) else {
        write!(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").ok()?;
        return Some(());
    };
    let common = format!(
        "x-repo-commit: 0123456789abcdef\r\netag: \"{}\"\r\naccept-ranges: bytes\r\n",
        path.rsplit('/').next().unwrap_or_default()
    );
    let range = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let (from, to) = value.trim().strip_prefix("bytes=")?.split_once('-')?;
        let to = to.parse::<usize>().unwrap_or(bytes.len() - 1).min(bytes.len() - 1);
        name.eq_ignore_ascii_case("range")
            .then_some((from.parse::<usize>().ok()?, to))
    });
    match range {
        Some((from, to)) => {
            let part = &bytes[from..=to];
            let total = bytes.len();
            write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\n{common}content-range: bytes {from}-{to}/{total}\r\ncontent-length: {}\r\n\r\n",
                part.len()
            )
            .ok()?;
            stream.write_all(part).ok()?;
        }
        None => {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\n{common}content-length: {}\r\n\r\n",
                bytes.len()
            )
            .ok()?;
            stream.write_all(&bytes).ok()?;
        }
    }
    Some(())
}

fn predict(cache: &Path, endpoint: &str, name: &str, offline: bool) -> Output {
    Command::new(env!("CARGO_BIN_EXE_predict"))
        .arg(fixture("expected.safetensors"))
        .args(["--backbone", name])
        .env("HF_HOME", cache)
        .env("HF_ENDPOINT", endpoint)
        .env("HF_TOKEN", "hf_secret")
        .env("HF_HUB_OFFLINE", if offline { "1" } else { "0" })
        .output()
        .unwrap()
}

#[test]
fn a_model_is_fetched_once_and_then_read_from_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let (endpoint, heads) = server();
    let stderr = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();

    let early = predict(cache.path(), &endpoint, "org/tiny", true);
    assert!(
        !early.status.success() && stderr(&early).contains("HF_HUB_OFFLINE"),
        "{}",
        stderr(&early)
    );
    assert!(heads.lock().unwrap().is_empty(), "offline asked the server");

    let first = predict(cache.path(), &endpoint, "org/tiny", false);
    assert!(first.status.success(), "{}", stderr(&first));
    let asked = heads.lock().unwrap().join("\n");
    assert!(
        asked.contains("model.safetensors") && asked.contains("config.json"),
        "{asked}"
    );
    assert!(
        asked.to_lowercase().contains("authorization: bearer hf_secret"),
        "{asked}"
    );
    assert!(cache.path().join("hub/models--org--tiny").is_dir());

    heads.lock().unwrap().clear();
    let second = predict(cache.path(), &endpoint, "org/tiny", true);
    assert!(second.status.success(), "{}", stderr(&second));
    assert_eq!(first.stdout, second.stdout);
    assert!(heads.lock().unwrap().is_empty());

    let missing = predict(cache.path(), &endpoint, "org/none", false);
    assert!(
        !missing.status.success() && stderr(&missing).contains("org/none"),
        "{}",
        stderr(&missing)
    );
}

#[test]
fn a_server_that_is_not_there_is_one_sentence() {
    let cache = tempfile::tempdir().unwrap();
    let output = predict(cache.path(), "http://127.0.0.1:9", "org/tiny", false);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && message.contains("cannot fetch 'config.json' of org/tiny"),
        "{message}"
    );
}

#[test]
fn a_language_model_comes_in_shards_with_its_tokenizer() {
    let cache = tempfile::tempdir().unwrap();
    let (endpoint, heads) = server();
    let generate = |offline: &str| {
        Command::new(env!("CARGO_BIN_EXE_generate"))
            .args(["--model", "org/words", "--prompt", "one two", "--max-new-tokens", "4"])
            .env("HF_HOME", cache.path())
            .env("HF_ENDPOINT", &endpoint)
            .env("HF_HUB_OFFLINE", offline)
            .output()
            .unwrap()
    };
    let early = generate("1");
    let message = String::from_utf8_lossy(&early.stderr).into_owned();
    assert!(
        !early.status.success() && message.contains("HF_HUB_OFFLINE"),
        "{message}"
    );
    let first = generate("0");
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let asked = heads.lock().unwrap().join("\n");
    assert!(
        asked.contains("model-00003-of-00003.safetensors") && asked.contains("tokenizer.json"),
        "{asked}"
    );
    heads.lock().unwrap().clear();
    let second = generate("1");
    assert_eq!(first.stdout, second.stdout);
    assert!(second.status.success() && heads.lock().unwrap().is_empty());
}

#[test]
fn an_adapter_s_language_model_is_found_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (endpoint, _) = server();
    let decoder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/backbones/tests/fixtures/lm/llama3");
    let model = load_lm(&decoder, &LoadOptions::default(), &Device::flex())
        .unwrap()
        .model;
    let mut config = AdapterConfig::wegeft(2).with_target_modules(["q_proj"]);
    config
        .extra
        .insert("base_model_name_or_path".into(), "org/words".into());
    config.init(model).unwrap().save(dir.path().join("adapter")).unwrap();
    let merge = |out: &str, more: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_adapter"))
            .current_dir(dir.path())
            .args([&["merge", "adapter", "--out", out], more].concat())
            .env("HF_HOME", dir.path().join("cache"))
            .env("HF_ENDPOINT", &endpoint)
            .output()
            .unwrap()
    };
    let merged = merge("merged", &[]);
    assert!(merged.status.success(), "{}", String::from_utf8_lossy(&merged.stderr));
    for file in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        assert!(dir.path().join("merged").join(file).is_file(), "{file}");
    }
    let missing = merge("other", &["--backbone", "org/none"]);
    let message = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(!missing.status.success() && message.contains("org/none"), "{message}");
}
