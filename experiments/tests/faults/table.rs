//! Every program that writes, on its smallest setting.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::needs;
use super::work::{Work, stderr};

/// What most entries have.
const USUAL: Work = Work {
    name: "",
    line: "",
    needs: |_| (),
    several: false,
    leaves_parts: true,
};

/// A vision transformer with two seeds.
pub const VISION: Work = Work {
    name: "vision",
    line: "vtab --task colours --r 2 --batch-size 6 --model {fixtures}/vit --data {here}/data \
           --method wegeft --epochs 2 --seed 1,2",
    needs: needs::colours,
    ..USUAL
};

/// A language model trained and tested on questions.
pub const LANGUAGE: Work = Work {
    name: "language",
    line: "arithmetic --sets one-step --method wegeft --train-limit 8 --test-limit 6 --batch-size 4 --epochs 2 --r 2 \
           --eval-batch-size 2 --max-new-tokens 4",
    ..USUAL
};

/// A grid in two processes, and the runs that it chooses.
pub const SWEEP: Work = Work {
    name: "sweep",
    line: "vtab --task colours --r 2 --batch-size 6 --model {fixtures}/vit --data {here}/data \
           --method wegeft,lora --epochs 2 --sweep --jobs 2 --sweep-lr 1e-2,1e-3 --sweep-weight-decay 0",
    needs: needs::colours,
    several: true,
    ..USUAL
};

/// A task folder from TFDS records.
pub const PREPARE: Work = Work {
    name: "prepare",
    line: "prepare --task dtd --any-version --tfds {here}/records",
    needs: needs::records,
    leaves_parts: false,
    ..USUAL
};

/// A merged language model.
pub const MERGE: Work = Work {
    name: "merge-language",
    line: "adapter merge {here}/language/wegeft/adapter",
    needs: trained_language,
    ..USUAL
};

/// All of them. Trainings have four steps at least: shorter ones say that something is not trained.
pub const WORKS: &[Work] = &[
    VISION,
    LANGUAGE,
    SWEEP,
    PREPARE,
    Work {
        name: "evaluation",
        line: "arithmetic --sets one-step,groups --method none --test-limit 10 --eval-batch-size 2 --max-new-tokens 8",
        ..USUAL
    },
    // Of which the best checkpoint is kept.
    Work {
        name: "finetune",
        line: "finetune --method lora --lora-r 2 --epochs 2 --batch-size 4 --eval-steps 2 --validation 0.25 --keep best \
               --train-file {here}/examples.jsonl",
        needs: needs::examples,
        ..USUAL
    },
    Work {
        name: "classify",
        line: "classify --method wegeft --r 2 --epochs 2 --batch-size 4 --train-file {here}/texts.jsonl \
               --test-file {here}/texts.jsonl",
        needs: needs::texts,
        ..USUAL
    },
    Work {
        name: "pretrain",
        line: "pretrain --steps 250 --batch-size 1 --classes 2 --d-model 32 --depth 1",
        ..USUAL
    },
    Work {
        name: "pretrain-lm",
        line: "pretrain-lm --steps 250 --batch-size 1 --length 8 --vocab-size 300 --d-model 32 --depth 1",
        ..USUAL
    },
    Work {
        name: "fgvc",
        line: "fgvc --task cub --model {fixtures}/vit --data {here}/fgvc --method wegeft --r 2 --epochs 1 --batch-size 2",
        needs: needs::birds,
        ..USUAL
    },
    // With a test set without labels, whose predictions are written in GLUE's form.
    Work {
        name: "glue",
        line: "glue --task sst2 --model {shipped}/language-model --data {here}/glue --method wegeft --r 2 --epochs 1 \
               --batch-size 2",
        needs: needs::glue,
        ..USUAL
    },
    Work {
        name: "code",
        line: "code --sets one-step --method wegeft --r 2 --train-limit 8 --epochs 1 --batch-size 2 --test-limit 2 \
               --eval-batch-size 1 --max-new-tokens 4",
        ..USUAL
    },
    Work {
        name: "instruct",
        line: "instruct --method wegeft --r 2 --train-limit 8 --epochs 1 --batch-size 2 --test-limit 2 --eval-batch-size 2 \
               --max-new-tokens 4",
        ..USUAL
    },
    // With a validation on questions, and the record in PEFT's form.
    Work {
        name: "metamath",
        line: "metamath --data {here}/metamath --protocol peft --method wegeft --r 2 --epochs 1 --batch-size 2 \
               --valid-file {here}/metamath/valid.jsonl --eval-steps 2 --eval-batch-size 2 --max-new-tokens 4",
        needs: needs::metamath,
        ..USUAL
    },
    Work {
        name: "gsm8k",
        line: "gsm8k --data {here}/gsm8k --method wegeft --r 2 --epochs 1 --batch-size 2 --eval-batch-size 2 \
               --max-new-tokens 4",
        needs: needs::gsm8k,
        ..USUAL
    },
    Work {
        name: "commonsense",
        line: "commonsense --method wegeft --r 2 --train-limit 8 --epochs 1 --batch-size 2 --test-limit 2 \
               --eval-batch-size 2 --max-new-tokens 4",
        ..USUAL
    },
    Work {
        name: "merge-vision",
        line: "adapter merge {here}/vision/colours/wegeft/seed-1/adapter",
        needs: trained_vision,
        ..USUAL
    },
    MERGE,
    Work {
        name: "export-lora",
        line: "adapter export-lora {here}/vision/colours/wegeft/seed-1/adapter",
        needs: trained_vision,
        ..USUAL
    },
    Work {
        name: "convert",
        line: "adapter convert {here}/vision/colours/wegeft/seed-1/adapter --r 2",
        needs: trained_vision,
        ..USUAL
    },
    Work {
        name: "report",
        line: "report {here}/vision {here}/language",
        needs: |folder| {
            trained_vision(folder);
            trained_language(folder);
        },
        ..USUAL
    },
    Work {
        name: "visualize",
        line: "visualize {here}/data/colours/images/1.png --adapter {here}/vision/colours/wegeft/seed-1/adapter",
        needs: trained_vision,
        ..USUAL
    },
    Work {
        name: "predict",
        line: "predict {here}/data/colours/images --adapter {here}/vision/colours/wegeft/seed-1/adapter",
        needs: trained_vision,
        ..USUAL
    },
    Work {
        name: "logits",
        line: "generate --prompt hi --prompt ho --logits {out}",
        ..USUAL
    },
    Work {
        name: "man",
        line: "man {out}",
        ..USUAL
    },
];

/// The run of [`VISION`], in the folder `vision`.
fn trained_vision(folder: &Path) {
    trained(&VISION, folder, "vision");
}

/// The run of [`LANGUAGE`], in the folder `language`.
fn trained_language(folder: &Path) {
    trained(&LANGUAGE, folder, "language");
}

fn trained(work: &Work, folder: &Path, name: &str) {
    let out = folder.join(name);
    if !out.exists() {
        let done = work.done(folder, &out);
        assert!(done.status.success(), "{}", stderr(&done));
    }
}

/// Those of these names.
pub fn named<const N: usize>(names: [&str; N]) -> [Work; N] {
    names.map(|name| {
        let found = WORKS.iter().find(|work| work.name == name);
        *found.unwrap_or_else(|| panic!("the table has no '{name}'"))
    })
}

/// Does `act` for the works that FAULTS_WORK names, such as `vision,merge-language`, or for all; those that fail are named at
/// the end.
pub fn each(works: &[Work], act: impl Fn(&Work)) {
    let named = std::env::var("FAULTS_WORK").ok();
    let named: Option<Vec<&str>> = named.as_ref().map(|named| named.split(',').collect());
    for name in named.iter().flatten() {
        let known = WORKS.iter().any(|work| work.name == *name);
        assert!(known, "FAULTS_WORK names '{name}', which is none of the table's");
    }
    let wanted = |work: &&Work| named.as_ref().is_none_or(|named| named.contains(&work.name));
    let mut failed = Vec::new();
    for work in works.iter().filter(wanted) {
        if catch_unwind(AssertUnwindSafe(|| act(work))).is_err() {
            failed.push(work.name);
        }
    }
    assert!(failed.is_empty(), "{failed:?} failed, as said above");
}
