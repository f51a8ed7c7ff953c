//! Adapters of text classifiers: their modules, and files in PEFT's format.

use std::path::Path;

use backbones::classify::{Labels, PretrainedClassifier, Problem, SequenceClassifier};
use backbones::drawn_start;
use serde_json::json;
use wegeft::storage::read_weights;
use wegeft::{Adapted, AdapterConfig, read_config, site};

use crate::cli::output::note;
use crate::language::adapted::check_task_type;
use crate::language::model::BASE_MODEL;
use crate::methods::{self, Adapter, OwnSettings, Wing};
use crate::text::model::{is_numbered, own_labels};
use crate::train::precision::trained_in_f32;

/// PEFT's task type of sequence classification.
pub const SEQ_CLS: &str = "SEQ_CLS";

/// Projections of queries and values, by the model's `model_type`.
fn queries_and_values(model_type: &str) -> &'static [&'static str] {
    match model_type {
        "bert" | "roberta" | "xlm-roberta" | "electra" => &["query", "value"],
        "distilbert" => &["q_lin", "v_lin"],
        "deberta-v2" => &["query_proj", "value_proj"],
        "modernbert" => &["attn.Wqkv"],
        "gpt2" => &["c_attn"],
        "phi3" => &["qkv_proj"],
        _ => &["q_proj", "v_proj"],
    }
}

/// The new adapter of a method for `pretrained`, loaded from `model`.
///
/// # Errors
/// An unknown method.
pub fn config(
    all: &Adapter,
    own: &OwnSettings,
    method: &str,
    pretrained: &PretrainedClassifier,
    model: Option<&str>,
) -> Result<AdapterConfig, String> {
    let kind = pretrained.config["model_type"].as_str().unwrap_or_default();
    let mut all = all.clone();
    if all.target_modules.is_empty() {
        all.target_modules = queries_and_values(kind).iter().map(|name| (*name).into()).collect();
    }
    let mut config = methods::adapter(&all, own, method, Wing::Text, kind)?;
    // PEFT and `adapter` look for this field in adapter_config.json.
    config.extra.insert(BASE_MODEL.into(), json!(model));
    config.extra.insert("task_type".into(), json!(SEQ_CLS));
    Ok(config.with_modules_to_save(trained_in_full(pretrained)))
}

/// Modules that every method trains in full: the head, by PEFT's name, and those parts of it that the model's files
/// lack. (PEFT trains only `classifier` and `score` and leaves a randomly initialized pooler untrained.)
fn trained_in_full(pretrained: &PretrainedClassifier) -> Vec<String> {
    let out = &pretrained.model.head().config().out;
    let head = out.split('.').next().unwrap_or(out).to_string();
    let mut modules = vec![head];
    for name in &pretrained.fresh {
        let module = name.rsplit_once('.').map_or(name.as_str(), |(module, _)| module);
        if !site::is_saved(name, &modules) {
            modules.push(module.to_string());
        }
    }
    modules
}

/// `model` with a new adapter of `config`.
///
/// # Errors
/// An adapter that does not fit.
pub fn init(config: &AdapterConfig, model: SequenceClassifier) -> Result<Adapted<SequenceClassifier>, String> {
    config.init(model).map(trained_in_f32).map_err(|e| e.to_string())
}

/// `model` with the adapter in `folder`, written by this program or by PEFT.
///
/// # Errors
/// An adapter of another kind of task, files that are missing or do not fit the model.
pub fn open(model: SequenceClassifier, folder: &Path) -> Result<Adapted<SequenceClassifier>, String> {
    check_task_type(folder, SEQ_CLS)?;
    let config = read_config(folder).map_err(|e| e.to_string())?;
    let adapted = config.load(model, folder).map_err(|e| e.to_string())?;
    let fields = serde_json::to_value(&config).map_err(|e| e.to_string())?;
    let drawn = fields.as_object().and_then(drawn_start::warning);
    let adapted = drawn.into_iter().fold(adapted, Adapted::with_warning);
    for warning in adapted.warnings() {
        note(format_args!("{}: {warning}", folder.display()));
    }
    Ok(trained_in_f32(adapted))
}

/// Labels of an adapter whose folder has none, as PEFT writes it: those of the model in `base` if they have names and are as
/// many as the outputs of the adapter's head, or else numbers.
///
/// # Errors
/// A file that cannot be read, an adapter without a head, a head with a single output.
pub fn labels(folder: &Path, base: Option<&Path>) -> Result<Labels, String> {
    let numbers = numbered(folder)?;
    let own = base.map(own_labels).transpose()?;
    let named = own.filter(|own| !is_numbered(own) && own.names().len() == numbers.len());
    let names = named.map_or(numbers, |own| own.names().to_vec());
    Ok(Labels::new(names, Problem::SingleLabel)?)
}

/// The numbers of an adapter's classes.
fn numbered(folder: &Path) -> Result<Vec<String>, String> {
    const HEADS: [&str; 3] = ["classifier.weight", "score.weight", "out_proj.weight"];
    let (tensors, path) = read_weights(folder).map_err(|e| e.to_string())?;
    let head = tensors
        .iter()
        .find(|(name, _)| HEADS.iter().any(|head| name.ends_with(&format!(".{head}"))));
    match head {
        Some((_, stored)) => Ok((0..stored.shape[0]).map(|class| class.to_string()).collect()),
        None => Err(format!(
            "{} has no head ({}); it is not the adapter of a text classifier",
            path.display(),
            HEADS.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use backbones::classify::{ClassifierOptions, load_classifier};
    use backbones::lm::{Layout, Side};
    use burn::module::Module;
    use burn::tensor::{Device, Int, Tensor, TensorData};
    use serde_json::Value;
    use wegeft::storage::{Stored, WEIGHTS_FILE, read_tensors};

    use super::*;
    use crate::cli::settings::defaults;

    const FAMILIES: [&str; 4] = ["bert", "roberta", "distilbert", "llama"];

    fn of_peft(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/seq_cls")
            .join(name)
    }

    fn base_folder(name: &str) -> PathBuf {
        let fixtures = "../crates/backbones/tests/fixtures/encoder";
        Path::new(env!("CARGO_MANIFEST_DIR")).join(fixtures).join(name)
    }

    fn base(name: &str) -> PretrainedClassifier {
        let options = ClassifierOptions::default();
        load_classifier(&base_folder(name).to_string_lossy(), &options, &Device::flex()).unwrap()
    }

    /// Logits of the three texts of the fixture.
    fn logits(model: &SequenceClassifier, name: &str) -> Vec<f32> {
        let stored = read_tensors(&base_folder(name).join("expected.safetensors")).unwrap();
        let ids: Vec<i64> = stored["ids"].values.iter().map(|id| *id as i64).collect();
        let ids = TensorData::new(ids, stored["ids"].shape.clone());
        let ids = Tensor::<2, Int>::from_data(ids, &Device::flex());
        let layout = Layout::padded(&[12, 7, 1], 12, Side::Right);
        model.forward(ids, &layout, None).into_data().iter::<f32>().collect()
    }

    fn furthest(ours: &[f32], theirs: &Stored) -> f32 {
        assert_eq!(ours.len(), theirs.values.len());
        let pairs = ours.iter().zip(&theirs.values);
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn adapters_of_peft_give_peft_s_logits_and_are_written_as_peft_wrote_them() {
        for name in FAMILIES {
            let folder = of_peft(name);
            let theirs = read_tensors(&folder.join("expected.safetensors")).unwrap();
            let adapted = open(base(name).model, &folder).unwrap();
            let off = furthest(&logits(&adapted.bind(), name), &theirs["logits"]);
            assert!(off < 1e-5, "{name}: {off}");
            let dir = tempfile::tempdir().unwrap();
            adapted.save(dir.path()).unwrap();
            let tensors = |folder: &Path| read_tensors(&folder.join(WEIGHTS_FILE)).unwrap();
            assert_eq!(tensors(dir.path()), tensors(&folder), "{name}");
            let again = open(base(name).model, dir.path()).unwrap();
            assert_eq!(again.config().extra["task_type"], SEQ_CLS);
        }
    }

    #[test]
    fn an_adapter_without_class_names_has_those_of_its_base() {
        let dir = tempfile::tempdir().unwrap();
        let names = |config: Value| {
            std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
            let found = labels(&of_peft("bert"), Some(dir.path())).unwrap();
            found.names().to_vec()
        };
        assert_eq!(names(json!({"id2label": ["cat", "dog", "cow"]})), ["cat", "dog", "cow"]);
        for without in [json!({"num_labels": 3}), json!({"id2label": ["cat", "dog"]})] {
            assert_eq!(names(without), ["0", "1", "2"]);
        }
        let found = labels(&of_peft("bert"), None).unwrap();
        assert_eq!(found.names(), ["0", "1", "2"]);
    }

    #[test]
    fn a_new_adapter_has_the_tensors_and_fields_of_peft_s() {
        let fields = |folder: &Path| -> Value {
            serde_json::from_str(&std::fs::read_to_string(folder.join("adapter_config.json")).unwrap()).unwrap()
        };
        for name in FAMILIES {
            let all = Adapter {
                lora_r: 2,
                target_modules: Vec::new(),
                ..defaults()
            };
            let pretrained = base(name);
            let config = config(&all, &OwnSettings::new(), "lora", &pretrained, Some(name)).unwrap();
            let adapted = init(&config, pretrained.model.clone()).unwrap();
            let dir = tempfile::tempdir().unwrap();
            adapted.valid().save(dir.path()).unwrap();
            let shapes = |folder: &Path| -> Vec<(String, Vec<usize>)> {
                let tensors = read_tensors(&folder.join(WEIGHTS_FILE)).unwrap();
                let named = tensors.into_iter().map(|(name, stored)| (name, stored.shape));
                // PEFT also matches 'pre_classifier' with 'classifier', but it is not newly initialized here.
                named.filter(|(name, _)| !name.contains("pre_classifier")).collect()
            };
            assert_eq!(shapes(dir.path()), shapes(&of_peft(name)), "{name}");
            let (ours, theirs) = (fields(dir.path()), fields(&of_peft(name)));
            for field in ["peft_type", "task_type", "r", "base_model_name_or_path"] {
                assert_eq!(ours[field], theirs[field], "{name}: {field}");
            }
            let saved = ours["modules_to_save"].as_array().unwrap();
            assert!(
                saved
                    .iter()
                    .all(|name| theirs["modules_to_save"].as_array().unwrap().contains(name))
            );
        }
    }

    #[test]
    fn what_of_the_head_starts_at_random_is_trained_by_every_method() {
        let dir = tempfile::tempdir().unwrap();
        let bare = dir.path();
        std::fs::copy(base_folder("bert").join("config.json"), bare.join("config.json")).unwrap();
        let mut tensors = read_tensors(&base_folder("bert").join("model.safetensors")).unwrap();
        tensors.retain(|name, _| !name.contains("pooler") && !name.contains("classifier"));
        wegeft::storage::write_tensors(&bare.join("model.safetensors"), &tensors).unwrap();
        let device = Device::flex();
        let pretrained = load_classifier(&bare.to_string_lossy(), &ClassifierOptions::default(), &device).unwrap();
        assert_eq!(trained_in_full(&pretrained), ["classifier", "bert.pooler.dense"]);
    }

    #[test]
    fn adapters_of_other_tasks_are_refused_by_name() {
        for kind in ["TOKEN_CLS", "FEATURE_EXTRACTION", "QUESTION_ANS", "CAUSAL_LM"] {
            let dir = tempfile::tempdir().unwrap();
            for file in ["adapter_config.json", WEIGHTS_FILE] {
                std::fs::copy(of_peft("bert").join(file), dir.path().join(file)).unwrap();
            }
            let path = dir.path().join("adapter_config.json");
            let text = std::fs::read_to_string(&path).unwrap().replace(SEQ_CLS, kind);
            std::fs::write(&path, text).unwrap();
            let message = open(base("bert").model, dir.path()).unwrap_err();
            assert!(
                message.contains(kind) && message.contains("adapter_config.json"),
                "{message}"
            );
        }
    }

    #[test]
    fn every_family_has_its_places() {
        for name in [
            "bert",
            "roberta",
            "xlm_roberta",
            "distilbert",
            "electra",
            "deberta_v3",
            "modernbert",
            "llama",
            "gpt2",
        ] {
            for method in ["lora", "wegeft", "ia3", "linear"] {
                let all = Adapter {
                    r: 4,
                    lora_r: 4,
                    target_modules: Vec::new(),
                    ..defaults()
                };
                let pretrained = base(name);
                let config = config(&all, &OwnSettings::new(), method, &pretrained, None).unwrap();
                let adapted =
                    init(&config, pretrained.model.clone()).unwrap_or_else(|e| panic!("{name}, {method}: {e}"));
                let counts = adapted.summary();
                assert!(
                    counts.saved_params > 0 && (counts.adapter_params > 0 || method == "linear"),
                    "{name}, {method}"
                );
            }
        }
    }
}
