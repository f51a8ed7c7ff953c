//! `vtab-prepare`, `fgvc` and `vtab` on a user's own folder, run as a user runs them.

use std::path::Path;
use std::process::{Command, Output};

#[allow(dead_code)]
#[path = "../../datasets/tests/datasets/writer.rs"]
mod writer;

use writer::{bytes, example, ints, png, write_dataset};

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeds(program: &str, args: &[&str]) -> String {
    let output = run(program, args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn fails(program: &str, args: &[&str], parts: &[&str]) {
    let output = run(program, args);
    let message = text(&output.stderr);
    assert!(!output.status.success(), "{args:?} succeeded");
    assert!(!message.contains("panicked"), "{message}");
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}

const PREPARE: &str = env!("CARGO_BIN_EXE_vtab-prepare");
const VTAB: &str = env!("CARGO_BIN_EXE_vtab");
const FGVC: &str = env!("CARGO_BIN_EXE_fgvc");
const ADAPTER: &str = env!("CARGO_BIN_EXE_adapter");
const PREDICT: &str = env!("CARGO_BIN_EXE_predict");

#[test]
fn a_prepared_task_is_what_vtab_reads() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("tfds"), dir.path().join("vtab"));
    let (data, out) = (data.to_str().unwrap(), out.to_str().unwrap());
    fails(PREPARE, &["--tfds", data, "--out", out], &["has no task's data"]);
    fails(
        PREPARE,
        &["--tfds", data, "--out", out, "--task", "dtd"],
        &["task dtd", "3.0.1", "TFDS"],
    );
    fails(
        PREPARE,
        &["--tfds", data, "--out", out, "--task", "dt"],
        &["'dt' is unknown", "dtd"],
    );
    write_dataset(
        &Path::new(data).join("dtd/3.0.1"),
        "dtd",
        &[("train", &[1_880]), ("validation", &[1_880]), ("test", &[1_000, 880])],
        |_, index| {
            let label = index % 47;
            example(&[
                ("image", bytes(&png(5 * label as u8))),
                ("label", ints(&[label as i64])),
            ])
        },
    );
    let made = succeeds(PREPARE, &["--tfds", data, "--out", out]);
    for part in [
        "no data of: cifar",
        "| dtd",
        "train800",
        " 200 |",
        "1880",
        "dtd/3.0.1",
        &format!("vtab --data {out}"),
    ] {
        assert!(made.contains(part), "'{part}' is not in: {made}");
    }
    assert_eq!(
        succeeds(PREPARE, &["--tfds", data, "--out", out, "--task", "dtd"])
            .matches("| dtd  |")
            .count(),
        3
    );
    let runs = dir.path().join("run");
    let run = [
        "--data",
        out,
        "--method",
        "linear",
        "--epochs",
        "1",
        "--out",
        runs.to_str().unwrap(),
    ];
    let trained = succeeds(VTAB, &run);
    assert!(trained.contains("dtd: 2880 images"), "{trained}");
}

/// Images of two classes: dark on the left, dark on the right.
fn save(path: &Path, class: usize) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let image = image::RgbImage::from_fn(60, 48, |x, _| {
        image::Rgb([if (x < 30) == (class == 0) { 20 } else { 220 }; 3])
    });
    image.save(path).unwrap();
}

#[test]
fn fgvc_trains_on_an_archive_and_predict_crops_as_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("CUB_200_2011");
    let lists = ["images.txt", "image_class_labels.txt", "train_test_split.txt"];
    let mut texts = [String::new(), String::new(), String::new()];
    for id in 0..30 {
        let class = id % 2;
        save(&folder.join(format!("images/{id}.jpg")), class);
        texts[0] += &format!("{id} {id}.jpg\n");
        texts[1] += &format!("{id} {}\n", class + 1);
        texts[2] += &format!("{id} {}\n", usize::from(id < 20));
    }
    for (list, text) in lists.iter().zip(&texts) {
        std::fs::write(folder.join(list), text).unwrap();
    }
    std::fs::write(folder.join("classes.txt"), "1 left\n2 right\n").unwrap();
    let (data, out) = (dir.path().to_str().unwrap(), dir.path().join("run"));
    let out = out.to_str().unwrap();
    fails(FGVC, &["--out", out], &["give --data"]);
    fails(
        FGVC,
        &["--data", "/nowhere", "--out", out],
        &["/nowhere", "CUB_200_2011"],
    );
    fails(
        FGVC,
        &["--data", data, "--task", "cats", "--out", out],
        &["'cats' is unknown", "nabirds"],
    );
    let args = [
        "--data",
        data,
        "--method",
        "linear,wegeft",
        "--epochs",
        "2",
        "--out",
        out,
    ];
    let told = succeeds(FGVC, &args);
    assert!(
        told.contains("[18, 2, 10] images") && told.contains("[5394, 600, 5794]"),
        "{told}"
    );
    let summary = std::fs::read_to_string(Path::new(out).join("summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(
        (&summary[1]["experiment"], &summary[1]["task"]),
        (&"fgvc".into(), &"cub".into())
    );
    assert!(summary[1]["value"].as_f64().unwrap() >= 50.0, "{summary}");
    let adapter = Path::new(out).join("cub/wegeft/adapter");
    let description = std::fs::read_to_string(adapter.join("classifier.json")).unwrap();
    assert!(description.contains("\"resize\": \"crop\""), "{description}");
    let image = folder.join("images/0.jpg");
    let args = [
        "--adapter",
        adapter.to_str().unwrap(),
        image.to_str().unwrap(),
        "--json",
    ];
    let cropped = succeeds(PREDICT, &args);
    assert_ne!(
        cropped,
        succeeds(PREDICT, &[&args[..], &["--resize", "bilinear"]].concat())
    );
    // Merged, the backbone still knows its classes and how its images are resized.
    let merged = dir.path().join("merged");
    let merged = merged.to_str().unwrap();
    succeeds(ADAPTER, &["merge", adapter.to_str().unwrap(), "--out", merged]);
    let by_merged = succeeds(PREDICT, &["--backbone", merged, image.to_str().unwrap(), "--json"]);
    let read = |line: &str| -> (serde_json::Value, f64) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        (line["label"].clone(), line["probability"].as_f64().unwrap())
    };
    let (ours, expected) = (read(&by_merged), read(&cropped));
    assert!(
        ours.0 == expected.0 && (ours.1 - expected.1).abs() < 1e-4,
        "{by_merged} {cropped}"
    );
    // The paper's preset is read, and its settings are refused where they do not fit this backbone's data.
    let preset = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/paper-fgvc.toml");
    let other = format!("{out}-other");
    let args = [
        "--config",
        preset.to_str().unwrap(),
        "--data",
        "/nowhere",
        "--out",
        &other,
    ];
    fails(FGVC, &args, &["/nowhere"]);
    std::fs::remove_file(folder.join("images/25.jpg")).unwrap();
    fails(FGVC, &["--data", data, "--out", &other], &["images/25.jpg"]);
}

#[test]
fn vtab_trains_on_a_folder_a_class() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("sides");
    for i in 0..24 {
        let class = i % 2;
        save(&data.join(["left", "right"][class]).join(format!("{i}.png")), class);
    }
    let out = dir.path().join("run");
    let (data, out) = (data.to_str().unwrap(), out.to_str().unwrap());
    let args = [
        "--data", data, "--method", "linear", "--epochs", "2", "--resize", "bicubic", "--out", out,
    ];
    let told = succeeds(VTAB, &args);
    assert!(told.contains("sides: 24 images"), "{told}");
    let config = std::fs::read_to_string(Path::new(out).join("config.toml")).unwrap();
    assert!(config.contains("resize = \"bicubic\""), "{config}");
    fails(
        VTAB,
        &["--data", data, "--resize", "area", "--out", out],
        &["'area'", "bilinear"],
    );
}
