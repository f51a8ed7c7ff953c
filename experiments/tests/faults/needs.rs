//! What the programs need: small data in every form that they read.

use std::path::Path;

use serde_json::{Value, json};

/// A task of two colours.
pub fn colours(folder: &Path) {
    let data = folder.join("data");
    if !data.exists() {
        two_colours(&data);
    }
}

/// A task of two colours in `data`: 12 images to train on, 4 to validate on, 8 to test on.
pub fn two_colours(data: &Path) {
    let task = data.join("colours");
    std::fs::create_dir_all(task.join("images")).unwrap();
    for index in 0..24 {
        image(index, &task.join(format!("images/{index}.png")));
    }
    for (list, range) in [("train800", 0..12), ("val200", 12..16), ("test", 16..24)] {
        let line = |index: i32| format!("images/{index}.png {}\n", index % 2);
        let lines: String = range.map(line).collect();
        std::fs::write(task.join(format!("{list}.txt")), lines).unwrap();
    }
}

fn image(index: u8, path: &Path) {
    let image = image::RgbImage::from_pixel(8, 8, image::Rgb([40 + 160 * (index % 2), index, 50]));
    image.save(path).unwrap();
}

/// CUB's unpacked archive with two classes.
pub fn birds(folder: &Path) {
    let task = folder.join("fgvc/CUB_200_2011");
    if task.exists() {
        return;
    }
    std::fs::create_dir_all(task.join("images")).unwrap();
    let mut lists = [String::new(), String::new(), String::new()];
    for index in 0..12 {
        image(index, &task.join(format!("images/{index}.png")));
        lists[0] += &format!("{index} {index}.png\n");
        lists[1] += &format!("{index} {}\n", index % 2 + 1);
        lists[2] += &format!("{index} {}\n", u8::from(index < 8));
    }
    let names = ["images.txt", "image_class_labels.txt", "train_test_split.txt"];
    for (name, list) in names.iter().zip(&lists) {
        std::fs::write(task.join(name), list).unwrap();
    }
    std::fs::write(task.join("classes.txt"), "1 left\n2 right\n").unwrap();
}

/// DTD's records, few of them and small.
pub fn records(folder: &Path) {
    let data = folder.join("records");
    if data.exists() {
        return;
    }
    crate::writer::write_dataset(
        &data.join("dtd/3.0.1"),
        "dtd",
        &[("train", &[820]), ("validation", &[210]), ("test", &[40])],
        |_, index| {
            let label = index % 47;
            crate::writer::example(&[
                ("image", crate::writer::bytes(&crate::writer::png(5 * label as u8))),
                ("label", crate::writer::ints(&[label as i64])),
            ])
        },
    );
}

/// Sums to train on.
pub fn examples(folder: &Path) {
    let sum = |i: usize| json!({"prompt": format!("Add {i} and 1."), "completion": (i + 1).to_string()});
    lines(&folder.join("examples.jsonl"), 24, sum);
}

/// Texts with labels.
pub fn texts(folder: &Path) {
    let text = |i: usize| json!({"text": format!("{} {i}", ["bad", "good"][i % 2]), "label": i % 2});
    lines(&folder.join("texts.jsonl"), 24, text);
}

/// SST-2 as GLUE has it, the test set without labels.
pub fn glue(folder: &Path) {
    let task = folder.join("glue/SST-2");
    if task.exists() {
        return;
    }
    std::fs::create_dir_all(&task).unwrap();
    let text = |index: usize| format!("the film was {} {index}", ["bad", "good"][index % 2]);
    let labelled: String = (0..12)
        .map(|index| format!("{}\t{}\n", text(index), index % 2))
        .collect();
    for part in ["train", "dev"] {
        std::fs::write(task.join(format!("{part}.tsv")), format!("sentence\tlabel\n{labelled}")).unwrap();
    }
    let unlabelled: String = (0..4).map(|index| format!("{index}\t{}\n", text(index))).collect();
    std::fs::write(task.join("test.tsv"), format!("index\tsentence\n{unlabelled}")).unwrap();
}

/// MetaMathQA to train on, and GSM8K's questions.
pub fn metamath(folder: &Path) {
    let data = folder.join("metamath");
    if data.exists() {
        return;
    }
    std::fs::create_dir(&data).unwrap();
    let row = |n: usize| {
        let response = format!("{n} + 1 = {0}\n#### {0}\nThe answer is: {0}", n + 1);
        json!({"query": format!("What is {n} + 1?"), "response": response, "type": "GSM_AnsAug"})
    };
    let rows: Vec<Value> = (0..8).map(row).collect();
    std::fs::write(data.join("MetaMathQA-395K.json"), json!(rows).to_string()).unwrap();
    for name in ["test.jsonl", "valid.jsonl"] {
        lines(&data.join(name), 3, question);
    }
}

/// GSM8K.
pub fn gsm8k(folder: &Path) {
    let data = folder.join("gsm8k");
    std::fs::create_dir_all(&data).unwrap();
    lines(&data.join("train.jsonl"), 8, question);
    lines(&data.join("test.jsonl"), 3, question);
}

fn question(n: usize) -> Value {
    json!({"question": format!("What is {n} + 2?"), "answer": format!("so\n#### {}", n + 2)})
}

/// A file of so many lines, unless it is there.
fn lines(path: &Path, count: usize, line: impl Fn(usize) -> Value) {
    if !path.exists() {
        let text: String = (0..count).map(|index| format!("{}\n", line(index))).collect();
        std::fs::write(path, text).unwrap();
    }
}
