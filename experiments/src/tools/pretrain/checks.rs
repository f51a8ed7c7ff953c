//! Checks of the pretraining programs before they start, for problems that would otherwise show only after the
//! training, or as a panic.

use std::path::Path;

use crate::run::files::create_folder;
use crate::run::place::refuse_another;

/// The most steps of a training.
pub const MOST_STEPS: usize = 10_000_000;
/// The most examples of a step.
pub const MOST_OF_A_STEP: usize = 65_536;
/// The most examples of a training, whose numbers are held in memory.
const MOST: usize = 100_000_000;

/// The number of examples of a training.
///
/// # Errors
/// Too many of them.
pub fn examples(steps: usize, batch_size: usize) -> Result<usize, String> {
    let count = steps.checked_mul(batch_size).filter(|count| *count <= MOST);
    count.ok_or_else(|| {
        format!("--steps {steps} with --batch-size {batch_size} are more than {MOST} examples; lower one of them")
    })
}

/// Refuses a learning rate that is not a positive number.
///
/// # Errors
/// A learning rate that is not positive.
pub fn check_learning_rate(lr: f64) -> Result<(), String> {
    match lr.is_finite() && lr > 0.0 {
        true => Ok(()),
        false => Err(format!("--learning-rate {lr} is not above 0")),
    }
}

/// By which the models of both programs are known.
pub const MAKER: &str = "wegeft pretrain";

/// Makes the folder `out` for files of these names and tries to write into it.
///
/// # Errors
/// A folder that cannot be made or written into, that belongs to a run, or that holds a model, or one of these files, that
/// was not pretrained there.
pub fn check_out(out: &Path, names: &[&str]) -> Result<(), String> {
    let training = out.join("training");
    let mut own = ["flags.json", "trained.json", "metrics.jsonl"].into_iter();
    refuse_another(out, own.any(|file| training.join(file).is_file()))?;
    create_folder(out).map_err(|e| format!("{e}; choose another --out"))?;
    let failed = |e: std::io::Error| format!("cannot write into {}: {e}; choose another --out", out.display());
    // Dropped at once: it only tests whether files can be written here.
    tempfile::tempfile_in(out).map_err(failed)?;
    if training.join("trained.json").is_file() {
        // Of a program that left no marks.
        files::adopt(out, MAKER, names.iter().copied()).map_err(failed)?;
    }
    files::refuse_others(out, MAKER, names.iter().copied())
        .map_err(|e| format!("cannot write into {}: {e}", out.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_pretrained_with_is_named() {
        assert_eq!(examples(300, 128), Ok(38_400));
        for steps in [MOST_STEPS, usize::MAX] {
            let message = examples(steps, 128).unwrap_err();
            assert!(
                message.contains("--steps") && message.contains("--batch-size 128"),
                "{message}"
            );
        }
        for lr in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(check_learning_rate(lr).unwrap_err().contains("--learning-rate"));
        }
        let dir = tempfile::tempdir().unwrap();
        let new = dir.path().join("new");
        let check_out = |out: &Path| check_out(out, &["config.json", "tokenizer.json"]);
        check_out(&new).unwrap();
        std::fs::write(new.join("adapter_config.json"), "{}").unwrap();
        let message = check_out(&new).unwrap_err();
        assert!(
            message.contains("holds adapter_config.json of another model"),
            "{message}"
        );
        // A model that was pretrained there is replaced.
        std::fs::create_dir(new.join("training")).unwrap();
        std::fs::write(new.join("training/metrics.jsonl"), "").unwrap();
        check_out(&new).unwrap();
        // A tokenizer that was not is another's, unless the whole model is of before there were marks.
        std::fs::write(new.join("tokenizer.json"), "").unwrap();
        let message = check_out(&new).unwrap_err();
        assert!(
            message.contains("tokenizer.json there is not of an earlier"),
            "{message}"
        );
        std::fs::write(new.join("training/trained.json"), "{}").unwrap();
        check_out(&new).unwrap();
        std::fs::remove_file(new.join("training/trained.json")).unwrap();
        check_out(&new).unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(check_out(&file).unwrap_err().contains("choose another --out"));
    }
}
