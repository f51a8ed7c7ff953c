//! `instruct`: verified instructions, the benchmarks' own files, and a judge on this machine that misbehaves.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::program::{fails, run, succeeds, text};

/// What the server does with a request.
#[derive(Clone, Copy)]
enum Act {
    /// Answers with this text.
    Say(&'static str),
    /// Answers with this status.
    Status(u16),
    /// Sends a part of an answer and closes.
    CutOff,
    /// Answers with this body.
    Body(&'static str),
    /// Answers after the client has given up.
    Slow,
}

/// A judge on the loopback interface: acts as its script says, then as `then` does.
struct Server {
    url: String,
    asked: Arc<AtomicUsize>,
    questions: Arc<Mutex<Vec<String>>>,
}

fn serve(script: &'static [Act], then: fn(&str) -> Act) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let (asked, questions) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (count, heard) = (asked.clone(), questions.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (count, heard) = (count.clone(), heard.clone());
            // A slow answer keeps no other waiting.
            std::thread::spawn(move || {
                let question = request(&mut stream);
                let act = script.get(count.fetch_add(1, Ordering::SeqCst)).copied();
                let act = act.unwrap_or_else(|| then(&question));
                heard.lock().unwrap().push(question);
                // The client may be gone.
                let _ = answer(&mut stream, act);
            });
        }
    });
    Server { url, asked, questions }
}

/// The question of a request.
fn request(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                assert!(head.starts_with("POST /v1/chat/completions "), "{head}");
                let body: Value = serde_json::from_str(body).unwrap();
                assert_eq!((&body["model"], &body["temperature"]), (&"m".into(), &0.into()));
                return body["messages"][1]["content"].as_str().unwrap().to_string();
            }
        }
        match stream.read(&mut buffer).unwrap() {
            0 => panic!("the request ends too early: {text}"),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

fn answer(stream: &mut TcpStream, act: Act) -> std::io::Result<()> {
    let said = |text: &str| {
        json!({"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": 10, "completion_tokens": 5}})
            .to_string()
    };
    let (status, body) = match act {
        Act::Say(text) => (200, said(text)),
        Act::Status(status) => (status, "{}".into()),
        Act::Body(body) => (200, body.into()),
        Act::CutOff => {
            return write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{{\"choices\": [");
        }
        Act::Slow => {
            std::thread::sleep(Duration::from_millis(1500));
            (200, said("[[9]]"))
        }
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nRetry-After: 0\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// A folder with small files of the three benchmarks.
fn data() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
    let questions = [(81, "writing"), (111, "math")].map(|(id, category)| {
        json!({"question_id": id, "category": category, "turns": ["Say cat.", "Say it twice."]}).to_string() + "\n"
    });
    write("mt_bench_question.jsonl", questions.concat());
    write(
        "mt_bench_reference_gpt-4.jsonl",
        json!({"question_id": 111, "choices": [{"turns": ["REFERENCE 1", "REFERENCE 2"]}]}).to_string(),
    );
    let compared = ["Say dog.", "Say fox.", "Say owl."]
        .map(|instruction| json!({"instruction": instruction, "output": "BASELINE", "generator": "b", "dataset": "d"}));
    write("alpaca_eval.json", json!(compared).to_string());
    let verified = [
        (json!(["punctuation:no_comma"]), json!([{}])),
        (
            json!(["startend:quotation", "length_constraints:number_words"]),
            json!([{}, {"relation": "less than", "num_words": 500}]),
        ),
    ];
    let verified = verified.map(|(ids, kwargs)| {
        json!({"key": 1, "prompt": "Say hen.", "instruction_id_list": ids, "kwargs": kwargs}).to_string() + "\n"
    });
    write("ifeval_input_data.jsonl", verified.concat());
    dir
}

struct Case {
    data: tempfile::TempDir,
    out: PathBuf,
}

impl Case {
    fn new() -> Self {
        let data = data();
        let out = data.path().join("run");
        Self { data, out }
    }

    fn args<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let own = [
            "--data",
            self.data.path().to_str().unwrap(),
            "--out",
            self.out.to_str().unwrap(),
            "--method",
            "none",
            "--max-new-tokens",
            "4",
        ];
        let judge = [
            "--judge-wait",
            "0.01",
            "--judge-timeout",
            "0.5",
            "--judge-parallel",
            "1",
            "--judge-model",
            "m",
        ];
        // Without an address, these are named as having no effect.
        let judge = if more.contains(&"--judge-url") { &judge[..] } else { &[] };
        [&own[..], judge, more].concat()
    }

    fn summary(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.out.join("summary.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn value(&self, task: &str) -> Option<f64> {
        let summary = self.summary();
        let outcome = summary.iter().find(|outcome| outcome["task"] == task);
        outcome.unwrap_or_else(|| panic!("no {task} in {summary:?}"))["value"].as_f64()
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        lines(&self.out.join("none").join(name))
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_judge_that_misbehaves_is_asked_again() {
    static SCRIPT: [Act; 8] = [
        Act::Status(429),
        Act::Status(500),
        Act::CutOff,
        Act::Body("<html>"),
        Act::Body("{\"choices\": []}"),
        Act::Slow,
        Act::Say("I cannot grade this."),
        Act::Say("Grade: [[8]]"),
    ];
    let server = serve(&SCRIPT, |_| Act::Say("Grade: [[6]]"));
    let case = Case::new();
    let args = [
        "--task",
        "MT-Bench",
        "--judge-url",
        &server.url,
        "--judge-retries",
        "7",
        "--judge-price",
        "10,30",
    ];
    let printed = succeeds("instruct", &case.args(&args));
    assert!(
        printed.contains("m judged 4 answers: 50 tokens read, 25 written so far, 0.00 dollars"),
        "{printed}"
    );
    assert_eq!(server.asked.load(Ordering::SeqCst), 11);
    assert_eq!(case.value("MT-Bench"), Some(6.5));
    assert_eq!(
        (case.value("MT-Bench turn 1"), case.value("MT-Bench turn 2")),
        (Some(7.0), Some(6.0))
    );
    // Right answers are for the categories that have them.
    let questions = server.questions.lock().unwrap();
    let with_reference = questions
        .iter()
        .filter(|question| question.contains("REFERENCE 1"))
        .count();
    assert_eq!(with_reference, 2);
    let answers = case.lines("MT-Bench.answers.jsonl");
    assert_eq!(
        (&answers[0]["question_id"], &answers[0]["model_id"]),
        (&81.into(), &"none".into())
    );
    assert_eq!(answers[0]["choices"][0]["turns"].as_array().unwrap().len(), 2);
    let judgements = case.lines("MT-Bench.judgements.jsonl");
    assert_eq!(
        (judgements.len(), &judgements[0]["key"], &judgements[0]["score"]),
        (4, &"81/1".into(), &8.0.into())
    );
}

#[test]
fn judgements_are_kept_where_the_judge_fails_and_gone_on_with() {
    static SCRIPT: [Act; 3] = [Act::Say("[[B]]"), Act::Status(503), Act::Status(503)];
    let server = serve(&SCRIPT, |question| {
        match question.find("BASELINE") < question.find("[Answer of assistant B]") {
            true => Act::Say("[[B]]"),
            false => Act::Say("[[C]]"),
        }
    });
    let case = Case::new();
    let args = [
        "--task",
        "AlpacaEval",
        "--judge-url",
        &server.url,
        "--judge-retries",
        "1",
    ];
    let failed = run("instruct", &case.args(&args));
    assert!(!failed.status.success());
    // The last line says why it ended; those before, that it asked again.
    let told = text(&failed.stderr);
    let last = told.lines().last().unwrap();
    for part in ["failed (status 503)", "2 times", "are kept"] {
        assert!(last.contains(part), "'{part}' is not in: {told}");
    }
    assert_eq!(case.lines("AlpacaEval.judgements.jsonl").len(), 1);
    succeeds("instruct", &case.args(&args));
    // One answer and two failures before, five answers now.
    assert_eq!(server.asked.load(Ordering::SeqCst), 8);
    // In the first order the model wins, in the second it is a tie: three quarters.
    assert_eq!(case.value("AlpacaEval"), Some(75.0));
    assert!(case.value("AlpacaEval length-controlled").is_some());
    let outputs: Value =
        serde_json::from_str(&std::fs::read_to_string(case.out.join("none/AlpacaEval.model_outputs.json")).unwrap())
            .unwrap();
    assert_eq!(outputs.as_array().unwrap().len(), 3);
    assert_eq!(
        (&outputs[1]["instruction"], &outputs[1]["generator"]),
        (&"Say fox.".into(), &"none".into())
    );
}

#[test]
fn answers_are_written_down_first_and_judged_later_from_a_file() {
    let case = Case::new();
    let printed = succeeds("instruct", &case.args(&[]));
    assert!(printed.contains("written down"), "{printed}");
    assert_eq!((case.value("AlpacaEval"), case.value("MT-Bench")), (None, None));
    let [prompts, instructions] = ["IFEval", "IFEval instructions"].map(|task| case.value(task).unwrap());
    assert!(
        [0.0, 50.0, 100.0].contains(&prompts) && instructions > 0.0,
        "{prompts} {instructions}"
    );
    assert!(case.value("IFEval loose").unwrap() >= prompts);
    let first = &case.lines("IFEval.jsonl")[1];
    assert_eq!(first["details"]["strict"].as_array().unwrap().len(), 2);
    assert_eq!(case.lines("IFEval.responses.jsonl")[0]["prompt"], "Say hen.");
    let file = case.data.path().join("judged.jsonl");
    let grade = |id: u32, turn: u32, score: f64| {
        json!({"question_id": id, "model": "none", "turn": turn, "score": score}).to_string() + "\n"
    };
    let annotation = json!({"instruction": "Say dog.", "preference": 2.0, "generator_2": "none"}).to_string();
    std::fs::write(&file, grade(81, 1, 5.0) + &grade(81, 2, -1.0) + &annotation).unwrap();
    std::fs::remove_file(case.out.join("summary.json")).unwrap();
    succeeds("instruct", &case.args(&["--judge-file", file.to_str().unwrap()]));
    assert_eq!(
        (case.value("AlpacaEval"), case.value("MT-Bench")),
        (Some(100.0), Some(5.0))
    );
}

#[test]
fn the_generated_instructions_are_trained_on_and_verified() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run").display().to_string();
    let quick = [
        "--task",
        "count,order",
        "--train-limit",
        "8",
        "--test-limit",
        "4",
        "--epochs",
        "1",
    ];
    let args = [&quick[..], &["--method", "none,wegeft", "--out", &out]].concat();
    let printed = succeeds("instruct", &args);
    assert!(
        printed.contains("count") && printed.contains("instructions followed"),
        "{printed}"
    );
    let answers = lines(&Path::new(&out).join("wegeft/order.jsonl"));
    assert_eq!(
        (answers.len(), answers[0]["details"]["kept"].as_array().unwrap().len()),
        (4, 1)
    );
    for (flag, value) in [
        ("--recipe", "lora-ga"),
        ("--judge-url", "http://127.0.0.1:9/v1"),
        ("--field", "output=a"),
    ] {
        fails("instruct", &[flag, value], &[flag, "needs --data"]);
    }
    fails("instruct", &["--template", "chat"], &["chat template", "--template"]);
}

#[test]
fn what_cannot_be_judged_or_trained_on_is_said_first() {
    let case = Case::new();
    let refused = |args: &[&str], parts: &[&str]| fails("instruct", &case.args(args), parts);
    refused(&["--method", "wegeft"], &["no training file"]);
    refused(&["--judge-url", "judge"], &["--judge-url judge", "https://"]);
    refused(&["--judge-price", "3"], &["'judge_price'"]);
    refused(&["--template", "chat"], &["chat template", "--template"]);
    let missing = case.data.path().join("none.jsonl").display().to_string();
    refused(&["--judge-file", &missing], &["none.jsonl"]);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_instruct"))
        .args(case.args(&["--judge-url", "https://judge.invalid/v1"]))
        .env_remove("JUDGE_API_KEY")
        .env_remove("OPENAI_API_KEY")
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && message.contains("needs a key; set JUDGE_API_KEY"),
        "{message}"
    );
    let server = serve(&[], |_| Act::Status(401));
    refused(
        &["--task", "MT-Bench", "--judge-url", &server.url],
        &["refused the key (status 401)"],
    );
    assert_eq!(server.asked.load(Ordering::SeqCst), 1);
    std::fs::write(
        case.data.path().join("ifeval_input_data.jsonl"),
        "{\"prompt\": \"p\", \"instruction_id_list\": [\"a:b\"], \"kwargs\": [{}]}\n",
    )
    .unwrap();
    refused(
        &["--task", "IFEval"],
        &["ifeval_input_data.jsonl:1", "'a:b'", "no kind of IFEval's"],
    );
}
