//! A server on this machine that does what servers should not.

mod versions;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::pace::Rate;
use super::{FetchError, Hub, HubError, HubModel, config_file, resolve, resolve_lm};

const TOKEN: &str = "hf_secret";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What one request asks.
#[derive(Debug, Clone)]
struct Request {
    path: String,
    headers: BTreeMap<String, String>,
}

impl Request {
    fn file(&self) -> &str {
        self.path.rsplit('/').next().unwrap()
    }

    /// First and last byte that are asked for.
    fn range(&self, size: usize) -> Option<(usize, usize)> {
        let (first, last) = self.headers.get("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().unwrap(), last.parse().unwrap_or(size - 1).min(size - 1)))
    }

    /// The first byte alone, which is how a file's size and ETag are asked for.
    fn is_question(&self) -> bool {
        self.headers.get("range").is_some_and(|range| range == "bytes=0-0")
    }
}

/// What it is answered with.
#[derive(Debug, Clone)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Bytes of the body that are sent before the connection is closed.
    cut: Option<usize>,
    /// Waits so long before the rest.
    stall: Option<(usize, Duration)>,
    /// Waits so long before each piece of so many bytes.
    drip: Option<(usize, Duration)>,
}

impl Reply {
    fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            cut: None,
            stall: None,
            drip: None,
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value.into()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self
    }

    /// What a good server answers: `bytes`, or the part that was asked for.
    fn good(request: &Request, bytes: &[u8]) -> Self {
        let reply = Self::status(200)
            .with("x-repo-commit", COMMIT)
            .with("etag", format!("\"{}\"", checksum(bytes)));
        match request.range(bytes.len()) {
            Some((first, _)) if first >= bytes.len() => Self { status: 416, ..reply },
            Some((first, last)) => Self {
                status: 206,
                body: bytes[first..=last].to_vec(),
                ..reply.with("content-range", format!("bytes {first}-{last}/{}", bytes.len()))
            },
            None => Self {
                body: bytes.to_vec(),
                ..reply
            },
        }
    }
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Server {
    address: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// `answer` gets the request and how many came before it.
    fn new(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (requests, answer) = (seen.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (requests, answer) = (requests.clone(), answer.clone());
                std::thread::spawn(move || while serve(&stream, &requests, &*answer).is_some() {});
            }
        });
        Self { address, seen }
    }

    fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: &TcpStream,
    seen: &Mutex<Vec<Request>>,
    answer: &(impl Fn(&Request, usize) -> Reply + ?Sized),
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let path = line.split(' ').nth(1)?.to_string();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_lowercase(), value.trim().to_string());
    }
    let request = Request { path, headers };
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(request.clone());
        seen.len() - 1
    };
    let reply = answer(&request, number);
    let mut head = format!("HTTP/1.1 {} .\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !reply.headers.iter().any(|(name, _)| *name == "content-length") {
        head += &format!("content-length: {}\r\n", reply.body.len());
    }
    stream.write_all((head + "\r\n").as_bytes()).ok()?;
    let (before, after) = reply.body.split_at(reply.stall.map_or(0, |(at, _)| at));
    stream.write_all(before).ok()?;
    if let Some((_, time)) = reply.stall {
        std::thread::sleep(time);
    }
    if let Some((bytes, time)) = reply.drip {
        for piece in after[..reply.cut.unwrap_or(after.len())].chunks(bytes) {
            std::thread::sleep(time);
            stream.write_all(piece).ok()?;
        }
        if reply.cut.is_some() {
            stream.shutdown(Shutdown::Both).ok()?;
        }
        return reply.cut.is_none().then_some(());
    }
    match reply.cut {
        Some(bytes) => {
            stream.write_all(&after[..bytes]).ok()?;
            stream.shutdown(Shutdown::Both).ok()?;
            None
        }
        None => stream.write_all(after).ok(),
    }
}

fn hub(endpoint: &str, cache: &Path) -> Hub {
    Hub {
        endpoint: endpoint.to_string(),
        cache: cache.to_path_buf(),
        token: Some(TOKEN.to_string()),
        timeout: Duration::from_secs(5),
        rate: Rate::USUAL,
        offline: false,
    }
}

fn fetch(hub: &Hub, file: &str) -> Result<PathBuf, HubError> {
    HubModel::parse("org/tiny", hub.clone())?.file(file)
}

/// Why a file could not be fetched.
fn reason(result: Result<PathBuf, HubError>) -> FetchError {
    match result {
        Err(HubError::Fetch { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

/// Bytes that look like weights.
fn weights() -> Vec<u8> {
    (0..200_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

/// Files below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

#[test]
fn a_file_is_fetched_once_into_the_layout_of_the_python_tools() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(|request, _| Reply::good(request, &weights()));
    let hub = hub(&server.address, cache.path());
    let path = fetch(&hub, "model.safetensors").unwrap();
    assert_eq!(fs::read(&path).unwrap(), weights());
    let folder = cache.path().join("models--org--tiny");
    assert_eq!(path, folder.join("snapshots").join(COMMIT).join("model.safetensors"));
    assert_eq!(fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(
        fs::read(folder.join("blobs").join(checksum(&weights()))).unwrap(),
        weights()
    );
    #[cfg(unix)]
    assert!(fs::read_link(&path).unwrap().is_relative());
    assert_eq!(server.seen().len(), 2);
    let offline = Hub { offline: true, ..hub };
    assert_eq!(fetch(&offline, "model.safetensors").unwrap(), path);
    assert!(matches!(fetch(&offline, "config.json"), Err(HubError::Offline { .. })));
    assert_eq!(server.seen().len(), 2);
}

/// Files that are there already are of one commit, and so is the next.
#[test]
fn the_next_file_is_asked_for_by_commit() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(|request, _| Reply::good(request, request.file().as_bytes()));
    let hub = hub(&server.address, cache.path());
    let first = fetch(&hub, "a.json").unwrap();
    let second = fetch(&hub, "b.json").unwrap();
    assert_eq!(first.parent(), second.parent());
    assert!(server.seen()[0].path.ends_with("/org/tiny/resolve/main/a.json"));
    for (number, file) in [(1, "a.json"), (2, "b.json"), (3, "b.json")] {
        let path = &server.seen()[number].path;
        assert!(path.ends_with(&format!("/org/tiny/resolve/{COMMIT}/{file}")), "{path}");
    }
}

#[test]
fn a_branch_that_moves_between_two_files_is_noticed() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(|request, number| {
        Reply::good(request, b"x").with("x-repo-commit", if number < 2 { "one" } else { "two" })
    });
    let model = HubModel::parse("org/tiny", hub(&server.address, cache.path())).unwrap();
    model.file("a.json").unwrap();
    assert!(matches!(reason(model.file("b.json")), FetchError::Changed { .. }));
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let cache = tempfile::tempdir().unwrap();
    let elsewhere = Server::new(|request, _| {
        Reply::good(request, &weights())
            .without("x-repo-commit")
            .with("etag", "\"other\"")
    });
    let target = elsewhere.address.clone();
    let here = Server::new(move |request, _| {
        let linked = |reply: Reply| {
            reply
                .with("x-repo-commit", COMMIT)
                .with("x-linked-etag", format!("\"{}\"", checksum(&weights())))
                .with("x-linked-size", weights().len().to_string())
        };
        match request.path.starts_with("/moved") {
            true => linked(Reply::status(302).with("location", format!("{target}/cdn/model.safetensors"))),
            false => linked(Reply::status(307).with("location", format!("/moved{}", request.path))),
        }
    });
    let path = fetch(&hub(&here.address, cache.path()), "model.safetensors").unwrap();
    assert_eq!(fs::read(path).unwrap(), weights());
    for request in here.seen() {
        assert_eq!(
            request.headers["authorization"],
            format!("Bearer {TOKEN}"),
            "{}",
            request.path
        );
    }
    assert!(elsewhere.seen().len() == 2);
    for request in elsewhere.seen() {
        assert!(!request.headers.contains_key("authorization"), "{request:?}");
    }
    for file in files(cache.path()) {
        let text = fs::read(&file).unwrap();
        let found = text.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
        assert!(!found, "{}", file.display());
    }
}

/// Once away, the token stays away.
#[test]
fn the_token_is_not_sent_when_another_host_redirects_back() {
    let cache = tempfile::tempdir().unwrap();
    let home: Arc<Mutex<String>> = Arc::default();
    let back = home.clone();
    let elsewhere =
        Server::new(move |_, _| Reply::status(302).with("location", format!("{}/back", back.lock().unwrap())));
    let away = elsewhere.address.clone();
    let here = Server::new(move |request, _| match request.path == "/back" {
        true => Reply::good(request, b"x"),
        false => Reply::good(request, b"x")
            .with("location", away.clone())
            .with("x-repo-commit", COMMIT),
    });
    *home.lock().unwrap() = here.address.clone();
    let redirecting = Server::new({
        let away = elsewhere.address.clone();
        move |_, _| {
            Reply::status(302)
                .with("location", away.clone())
                .with("x-repo-commit", COMMIT)
                .with("etag", "tag")
        }
    });
    let _ = fetch(&hub(&redirecting.address, cache.path()), "config.json");
    assert!(redirecting.seen()[0].headers.contains_key("authorization"));
    for request in here.seen().iter().chain(&elsewhere.seen()) {
        assert!(!request.headers.contains_key("authorization"), "{request:?}");
    }
    assert!(!here.seen().is_empty());
}

#[test]
fn every_refusal_has_its_own_sentence() {
    for (status, words) in [
        (401, "set HF_TOKEN"),
        (403, "accept the model's terms"),
        (404, "no such model, revision or file"),
        (418, "status 418"),
        (500, "the server failed (500)"),
        (503, "the server failed (503)"),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::new(move |_, _| Reply::status(status));
        let message = fetch(&hub(&server.address, cache.path()), "config.json")
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("cannot fetch 'config.json' of org/tiny") && message.contains(words),
            "{message}"
        );
        assert!(!message.contains(TOKEN));
        let tries = if status >= 500 { 3 } else { 1 };
        assert_eq!(server.seen().len(), tries, "{status}");
    }
}

#[test]
fn a_token_that_no_header_can_hold_is_named_before_anything_is_sent() {
    for (token, words) in [
        ("hf_se\ncret", r"has '\n' as character 6"),
        ("hf_sécret", "has 'é' as character 5"),
        ("hf_secret\u{7f}", r"'\u{7f}'"),
        ("hf se", "has ' ' as character 3"),
        ("hf_\u{fffd}", "character 4"),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::new(|request, _| Reply::good(request, b"{}"));
        let hub = Hub {
            token: Some(token.to_string()),
            ..hub(&server.address, cache.path())
        };
        let message = fetch(&hub, "config.json").unwrap_err().to_string();
        assert!(
            message.contains("HF_TOKEN") && message.contains(words) && !message.contains("check the network"),
            "{message}"
        );
        assert!(!message.contains("cret") && server.seen().is_empty(), "{message}");
    }
}

#[test]
fn too_many_requests_are_waited_for_if_it_is_short() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(|request, number| match number {
        0 => Reply::status(429).with("retry-after", "1"),
        _ => Reply::good(request, b"{}"),
    });
    let start = Instant::now();
    fetch(&hub(&server.address, cache.path()), "config.json").unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));

    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(|_, _| Reply::status(429).with("retry-after", "3600"));
    let error = fetch(&hub(&server.address, cache.path()), "config.json")
        .unwrap_err()
        .to_string();
    assert!(error.contains("429") && error.contains("in 3600 s"), "{error}");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_server_that_fails_once_is_asked_again() {
    for failing in [0, 1] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::new(move |request, number| match number == failing {
            true => Reply::status(503),
            false => Reply::good(request, &weights()),
        });
        let path = fetch(&hub(&server.address, cache.path()), "model.safetensors").unwrap();
        assert_eq!(fs::read(path).unwrap(), weights());
    }
}

#[test]
fn redirects_that_lead_nowhere_are_refused() {
    for (location, words) in [
        (None, "without saying where"),
        (Some("file:///etc/passwd"), "scheme 'file'"),
        (Some("/again"), "more than 10 times"),
        (Some("http://"), "not an address"),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::new(move |_, _| match location {
            Some(location) => Reply::status(302).with("location", location),
            None => Reply::status(302),
        });
        let error = fetch(&hub(&server.address, cache.path()), "config.json")
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn what_breaks_is_continued() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(|request, _| {
        let reply = Reply::good(request, &weights());
        // Never more than 70,000 bytes at a time.
        let cut = (!request.is_question() && reply.body.len() > 70_000).then_some(70_000);
        Reply { cut, ..reply }
    });
    let path = fetch(&hub(&server.address, cache.path()), "model.safetensors").unwrap();
    assert_eq!(fs::read(path).unwrap(), weights());
    let starts: Vec<usize> = server
        .seen()
        .iter()
        .map(|request| request.range(200_000).unwrap().0)
        .collect();
    assert_eq!(starts, [0, 0, 70_000, 140_000]);
}

#[test]
fn what_a_killed_process_left_is_continued_or_thrown_away() {
    let size = weights().len();
    let half = weights()[..size / 2].to_vec();
    let wrong = vec![7; size / 2];
    let longer = [weights(), vec![1, 2, 3]].concat();
    for (left, ranges) in [
        (half, true),
        (wrong, true),
        (longer, true),
        (weights(), true),
        (weights()[..9].to_vec(), false),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::new(move |request, _| match ranges || request.is_question() {
            true => Reply::good(request, &weights()),
            false => Reply::good(
                &Request {
                    headers: BTreeMap::new(),
                    ..request.clone()
                },
                &weights(),
            ),
        });
        let blobs = cache.path().join("models--org--tiny/blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(format!("{}.incomplete", checksum(&weights()))), &left).unwrap();
        let path = fetch(&hub(&server.address, cache.path()), "model.safetensors").unwrap();
        assert_eq!(fs::read(path).unwrap(), weights(), "{} bytes were left", left.len());
        assert_eq!(fs::read_dir(blobs).unwrap().count(), 1);
    }
}

#[test]
fn bytes_that_are_not_those_that_were_announced_are_never_kept() {
    type Change = fn(Reply) -> Reply;
    let changes: [(&str, Change); 3] = [
        ("SHA-256", |mut reply| {
            reply.body[1000] ^= 0x40;
            reply
        }),
        ("announced 200000", |mut reply| {
            reply.body.extend([0; 1000]);
            reply
        }),
        ("after", |mut reply| {
            // Half of what is asked for, and the length says so.
            reply.body.truncate(reply.body.len() / 2);
            reply
        }),
    ];
    for (words, change) in changes {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::new(move |request, _| {
            let reply = Reply::good(request, &weights());
            if request.is_question() || reply.body.len() < 2000 {
                reply
            } else {
                change(reply)
            }
        });
        let hub = hub(&server.address, cache.path());
        let result = fetch(&hub, "model.safetensors");
        if words == "after" {
            // It comes in halves.
            assert_eq!(fs::read(result.unwrap()).unwrap(), weights());
            continue;
        }
        let error = result.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        let folder = cache.path().join("models--org--tiny");
        assert_eq!(fs::read_dir(folder.join("blobs")).unwrap().count(), 0);
        assert!(!folder.join("snapshots").exists() && !folder.join("blobs").join(checksum(&weights())).exists());
        // When the server is well again, so is the file.
        let well = Server::new(|request, _| Reply::good(request, &weights()));
        let path = fetch(
            &Hub {
                endpoint: well.address,
                ..hub
            },
            "model.safetensors",
        )
        .unwrap();
        assert_eq!(fs::read(path).unwrap(), weights());
    }
}

#[test]
fn a_file_that_ends_early_every_time_is_refused() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(|request, _| {
        let reply = Reply::good(request, &weights());
        let cut = (!request.is_question()).then_some(0);
        Reply { cut, ..reply }
    });
    let error = reason(fetch(&hub(&server.address, cache.path()), "model.safetensors"));
    assert!(matches!(error, FetchError::Connection(_)), "{error}");
    assert_eq!(server.seen().len(), 4);
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for() {
    for stalls in ["question", "body"] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::new(move |request, _| {
            let reply = Reply::good(request, &weights());
            match stalls {
                "question" => {
                    std::thread::sleep(Duration::from_secs(20));
                    reply
                }
                _ if request.is_question() => reply,
                _ => Reply {
                    stall: Some((0, Duration::from_secs(20))),
                    ..reply
                },
            }
        });
        let hub = Hub {
            timeout: Duration::from_secs(1),
            ..hub(&server.address, cache.path())
        };
        let start = Instant::now();
        let error = reason(fetch(&hub, "model.safetensors"));
        assert!(matches!(error, FetchError::Stalled(_)), "{stalls}: {error}");
        assert!(start.elapsed() < Duration::from_secs(8), "{stalls}");
    }
}

#[test]
fn a_server_that_sends_a_little_each_time_and_falls_silent_is_not_waited_for() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(|request, _| {
        let reply = Reply::good(request, &weights());
        let stall = (!request.is_question()).then_some((1000, Duration::from_secs(20)));
        Reply { stall, ..reply }
    });
    let hub = Hub {
        timeout: Duration::from_millis(500),
        ..hub(&server.address, cache.path())
    };
    let start = Instant::now();
    let error = reason(fetch(&hub, "model.safetensors"));
    assert!(matches!(error, FetchError::Stalled(_)), "{error}");
    assert!(start.elapsed() < Duration::from_secs(8));
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn a_slow_server_is_continued() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(|request, _| {
        let reply = Reply::good(request, &weights());
        let stall = (reply.body.len() > 80_000).then_some((80_000, Duration::from_secs(3)));
        Reply { stall, ..reply }
    });
    let hub = Hub {
        timeout: Duration::from_secs(1),
        ..hub(&server.address, cache.path())
    };
    assert_eq!(fs::read(fetch(&hub, "model.safetensors").unwrap()).unwrap(), weights());
}

/// A hub that wants 20,000 bytes a second over a third of a second: the tests cannot wait for minutes.
fn quick(endpoint: &str, cache: &Path) -> Hub {
    Hub {
        timeout: Duration::from_millis(50),
        rate: Rate {
            bytes: 20_000,
            window: Duration::from_millis(300),
        },
        ..hub(endpoint, cache)
    }
}

#[test]
fn a_server_that_sends_a_byte_at_a_time_is_not_waited_for() {
    // On one connection, or on a new one for each few bytes.
    for cut in [None, Some(4)] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::new(move |request, _| {
            let reply = Reply::good(request, &weights());
            match request.is_question() {
                true => reply,
                false => Reply {
                    drip: Some((1, Duration::from_millis(10))),
                    cut,
                    ..reply
                },
            }
        });
        let start = Instant::now();
        let error = reason(fetch(&quick(&server.address, cache.path()), "model.safetensors"));
        assert!(matches!(error, FetchError::Slow { .. }), "{cut:?}: {error}");
        assert!(error.to_string().contains("WEGEFT_DOWNLOAD_RATE"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(8), "{cut:?}");
        // What came stays: the next try continues there.
        let asked = server.seen();
        let from = asked.iter().filter_map(|request| request.range(weights().len()));
        assert!(from.map(|(first, _)| first).max().unwrap() > 0, "{cut:?}");
        assert!(cut.is_some() || asked.len() == 4, "{}", asked.len());
        let any = Hub {
            rate: Rate {
                bytes: 0,
                ..quick("", cache.path()).rate
            },
            ..quick(&server.address, cache.path())
        };
        // Of a file that is short enough to be waited for here.
        let short = Server::new(|request, _| Reply {
            drip: Some((1, Duration::from_millis(10))),
            ..Reply::good(request, &weights()[..60])
        });
        let any = Hub {
            endpoint: short.address,
            ..any
        };
        assert_eq!(fs::read(fetch(&any, "short.json").unwrap()).unwrap(), weights()[..60]);
    }
}

#[test]
fn a_server_that_is_slow_once_is_asked_again() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(|request, number| Reply {
        drip: (number == 1).then_some((1, Duration::from_millis(10))),
        ..Reply::good(request, &weights())
    });
    let path = fetch(&quick(&server.address, cache.path()), "model.safetensors").unwrap();
    assert_eq!(fs::read(path).unwrap(), weights());
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn a_server_whose_headers_never_end_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.write_all(b"HTTP/1.1 200 .\r\nx: ");
                while stream.write_all(b"x").is_ok() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
    });
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub {
        timeout: Duration::from_millis(500),
        ..hub(&address, cache.path())
    };
    let start = Instant::now();
    let error = reason(fetch(&hub, "config.json"));
    assert!(matches!(error, FetchError::Stalled(_)), "{error}");
    assert!(start.elapsed() < Duration::from_secs(8));
}

/// Nothing that a server or a user says leaves the cache folder.
#[test]
fn no_name_leads_out_of_the_cache() {
    for (header, value) in [
        ("etag", "\"../../../../outside\""),
        ("etag", "\"/tmp/outside\""),
        ("etag", "\"..\""),
        ("etag", "\"\""),
        ("x-linked-etag", "\"a/b\""),
        ("x-repo-commit", "../../../../outside"),
        ("x-repo-commit", "/tmp/outside"),
        ("x-repo-commit", ""),
        ("x-repo-commit", ".hidden"),
    ] {
        let parent = tempfile::tempdir().unwrap();
        let cache = parent.path().join("a/b/c/cache");
        let server = Server::new(move |request, _| Reply::good(request, b"x").with(header, value));
        let error = reason(fetch(&hub(&server.address, &cache), "config.json"));
        assert!(matches!(error, FetchError::Header { .. }), "{header} {value}: {error}");
        assert_eq!(files(parent.path()), Vec::<PathBuf>::new());
    }
    let hub = hub("http://127.0.0.1:9", Path::new("/nowhere"));
    for revision in [
        "../../outside",
        "/tmp/outside",
        "a/../../b",
        "",
        "a//b",
        "a\\b",
        "c:x",
        "a/",
        "line\nbreak",
    ] {
        let error = HubModel::parse(&format!("org/tiny@{revision}"), hub.clone()).unwrap_err();
        assert!(matches!(error, HubError::Revision(_)), "{revision}: {error}");
        assert!(!error.to_string().contains('\n'));
    }
    for name in ["../tiny", "org/..", "org/tiny/more", "org", "/org/tiny", "org/.tiny"] {
        let error = HubModel::parse(name, hub.clone()).unwrap_err();
        assert!(matches!(error, HubError::NoSuchPath(_)), "{name}: {error}");
    }
    for file in ["../config.json", "/etc/passwd", "a/../../b", "c:\\x", ""] {
        let error = reason(fetch(&hub, file));
        assert!(matches!(error, FetchError::Content(_)), "{file}: {error}");
    }
}

#[test]
fn headers_that_are_missing_or_nonsense_are_named() {
    type Change = fn(Reply) -> Reply;
    let changes: [(&str, Change); 5] = [
        ("ETag header is missing", |reply| reply.without("etag")),
        ("X-Repo-Commit header is missing", |reply| {
            reply.without("x-repo-commit")
        }),
        ("Content-Range header is 'garbage'", |reply| {
            reply.with("content-range", "garbage")
        }),
        ("Content-Range header is '99999999999999999999'", |reply| {
            reply.with("content-range", "bytes 0-0/99999999999999999999")
        }),
        ("announced 7", |reply| reply.with("x-linked-size", "7")),
    ];
    for (words, change) in changes {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::new(move |request, _| change(Reply::good(request, b"{}")));
        let error = fetch(&hub(&server.address, cache.path()), "config.json")
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn several_at_once_fetch_a_file_once() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(|request, _| {
        let reply = Reply::good(request, &weights());
        let stall = (!request.is_question()).then_some((1000, Duration::from_millis(300)));
        Reply { stall, ..reply }
    });
    let hub = hub(&server.address, cache.path());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| fetch(&hub, "model.safetensors").unwrap()))
            .collect();
        for thread in threads {
            assert_eq!(fs::read(thread.join().unwrap()).unwrap(), weights());
        }
    });
    let bodies = server.seen().iter().filter(|request| !request.is_question()).count();
    assert_eq!(bodies, 1);
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let server = Server::new(|request, _| Reply::good(request, b"{}"));
    let error = fetch(&hub(&server.address, &file), "config.json")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cannot write to the cache") && error.contains("HF_HOME"),
        "{error}"
    );
}

/// A shard that the index names is as strange as any other name.
#[test]
fn an_index_leads_nowhere_else() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(|request, _| match request.file() {
        "model.safetensors" => Reply::status(404),
        "model.safetensors.index.json" => {
            Reply::good(request, br#"{"weight_map": {"a": "../../../outside.safetensors"}}"#)
        }
        _ => Reply::good(request, b"{}"),
    });
    let model = HubModel::parse("org/tiny", hub(&server.address, cache.path())).unwrap();
    let error = model.language().unwrap_err().to_string();
    assert!(error.contains("weight_map"), "{error}");
    assert!(!server.seen().iter().any(|request| request.path.contains("outside")));
}

#[test]
fn what_a_model_may_lack_is_asked_for_once() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(|request, _| match request.file() {
        "config.json" | "model.safetensors" => Reply::good(request, b"{}"),
        _ => Reply::status(404),
    });
    let hub = hub(&server.address, cache.path());
    let language = || HubModel::parse("org/tiny", hub.clone()).unwrap().language().unwrap();
    let folder = language();
    let asked = server.seen().len();
    assert_eq!(language(), folder);
    assert_eq!(server.seen().len(), asked);

    // A server that fails is no reason to go on without a tokenizer.
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(|request, _| match request.file() {
        "tokenizer.json" => Reply::status(403),
        _ => Reply::good(request, b"{}"),
    });
    let model = HubModel::parse("org/tiny", self::hub(&server.address, cache.path())).unwrap();
    assert!(model.language().unwrap_err().to_string().contains("'tokenizer.json'"));
}

/// As a process leaves it that was killed while it replaced the files of a model.
#[test]
fn a_model_whose_files_are_not_all_in_their_places_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join(".tmpAbC123");
    let start = || {
        std::fs::create_dir(&made).unwrap();
        std::fs::write(made.join("config.json"), "new").unwrap();
        let list = ".tmpAbC123\nfile model.safetensors\nlast config.json\n";
        std::fs::write(dir.path().join(".replacing"), list).unwrap();
    };
    let path = dir.path().to_str().unwrap();
    let config = dir.path().join("config.json");
    for way in [resolve as fn(&str) -> _, resolve_lm, config_file] {
        let _ = std::fs::remove_file(&config);
        start();
        way(path).unwrap();
        assert_eq!(std::fs::read_to_string(&config).unwrap(), "new");
        assert!(!made.exists());
    }
    std::fs::write(dir.path().join(".replacing"), "damaged").unwrap();
    let message = resolve(path).unwrap_err().to_string();
    assert!(message.contains("not all in their places"), "{message}");
}
