//! The labels of a classifier and the kind of problem, as config.json has them, and the loss.

use std::collections::HashSet;

use burn::nn::loss::{CrossEntropyLossConfig, MseLoss, Reduction};
use burn::tensor::activation::log_sigmoid;
use burn::tensor::{Int, Tensor};
use serde_json::{Map, Value, json};

use crate::error::{ConfigError, LabelsError};

/// Kind of problem, transformers' `problem_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Numbers; mean squared error.
    Regression,
    /// One label per text; cross-entropy.
    SingleLabel,
    /// Any number of labels per text; binary cross-entropy.
    MultiLabel,
}

impl Problem {
    /// transformers' name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Regression => "regression",
            Self::SingleLabel => "single_label_classification",
            Self::MultiLabel => "multi_label_classification",
        }
    }

    fn parse(name: &str) -> Result<Self, ConfigError> {
        let all = [Self::Regression, Self::SingleLabel, Self::MultiLabel];
        all.into_iter().find(|problem| problem.name() == name).ok_or_else(|| {
            ConfigError::field(
                "problem_type",
                format!("is '{name}'; implemented are {}", all.map(Self::name).join(", ")),
            )
        })
    }
}

/// The right answers of a batch.
#[derive(Debug, Clone)]
pub enum Targets {
    /// Number of each text's label, `[batch]`, for [`Problem::SingleLabel`].
    Classes(Tensor<1, Int>),
    /// A number for each output, `[batch, labels]`, for the others; 0 or 1 for [`Problem::MultiLabel`].
    Values(Tensor<2>),
}

/// Labels by name, and the kind of problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    names: Vec<String>,
    problem: Problem,
}

impl Labels {
    /// `names` and a kind of problem.
    ///
    /// # Errors
    /// No name, a name that occurs twice, or a single class.
    pub fn new(names: Vec<String>, problem: Problem) -> Result<Self, LabelsError> {
        if names.is_empty() {
            return Err(LabelsError::Empty);
        }
        if problem == Problem::SingleLabel && names.len() == 1 {
            return Err(LabelsError::Single(names[0].clone()));
        }
        let mut seen = HashSet::new();
        match names.iter().find(|name| !seen.insert(name.as_str())) {
            Some(name) => Err(LabelsError::Repeated(name.clone())),
            None => Ok(Self { names, problem }),
        }
    }

    /// One number per text.
    pub fn regression() -> Self {
        Self {
            names: vec!["LABEL_0".into()],
            problem: Problem::Regression,
        }
    }

    /// Reads `id2label`, or `num_labels` where names are missing, and `problem_type`; two labels if config.json says
    /// nothing, as in transformers. One label is a regression unless config.json says otherwise.
    ///
    /// # Errors
    /// A malformed field, or numbers of labels with a gap.
    pub fn from_hf(json: &Value) -> Result<Self, ConfigError> {
        let field = |name: &str| json.get(name).filter(|value| !value.is_null());
        let count = match field("num_labels").or(field("_num_labels")) {
            None => None,
            Some(value) => match value.as_u64() {
                Some(count @ 1..=0xFFFF) => Some(count as usize),
                _ => {
                    return Err(ConfigError::field(
                        "num_labels",
                        format!("is {value}; expected a whole number from 1 to 65535"),
                    ));
                }
            },
        };
        let names = match field("id2label") {
            None => (0..count.unwrap_or(2)).map(|id| format!("LABEL_{id}")).collect(),
            Some(value) => id2label(value)?,
        };
        let problem = match field("problem_type") {
            None if names.len() == 1 => Problem::Regression,
            None => Problem::SingleLabel,
            Some(Value::String(name)) => Problem::parse(name)?,
            Some(other) => {
                return Err(ConfigError::field(
                    "problem_type",
                    format!("is {other}; expected a text"),
                ));
            }
        };
        Ok(Self::new(names, problem)?)
    }

    /// Writes `id2label`, `label2id` and `problem_type` into a config.json; `num_labels` follows from them.
    pub fn write(&self, config: &mut Map<String, Value>) {
        let by_id = self.names.iter().enumerate();
        let id2label: Map<String, Value> = by_id.clone().map(|(id, name)| (id.to_string(), json!(name))).collect();
        let label2id: Map<String, Value> = by_id.map(|(id, name)| (name.clone(), json!(id))).collect();
        config.retain(|field, _| !matches!(field.as_str(), "num_labels" | "_num_labels"));
        config.insert("id2label".into(), id2label.into());
        config.insert("label2id".into(), label2id.into());
        config.insert("problem_type".into(), self.problem.name().into());
    }

    /// Their names, by number.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Kind of problem.
    pub fn problem(&self) -> Problem {
        self.problem
    }

    /// Number of a label.
    pub fn id(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|own| own == name)
    }

    /// Mean loss of logits `[batch, labels]`, as transformers computes it: `[1]`.
    ///
    /// # Panics
    /// Targets of another kind of problem.
    pub fn loss(&self, logits: Tensor<2>, targets: Targets) -> Tensor<1> {
        match (self.problem, targets) {
            (Problem::SingleLabel, Targets::Classes(classes)) => {
                let device = logits.device();
                CrossEntropyLossConfig::new().init(&device).forward(logits, classes)
            }
            (Problem::Regression, Targets::Values(values)) => MseLoss::new().forward(logits, values, Reduction::Mean),
            (Problem::MultiLabel, Targets::Values(values)) => {
                // -y·log σ(z) - (1 - y)·log σ(-z), and log σ(z) - log σ(-z) = z.
                (log_sigmoid(logits.clone().neg()).neg() - logits * values).mean()
            }
            (problem, _) => panic!("these targets are not those of a {}", problem.name()),
        }
    }
}

fn id2label(value: &Value) -> Result<Vec<String>, ConfigError> {
    let wrong = || {
        ConfigError::field(
            "id2label",
            format!("is {value}; expected names by number from 0 on, without a gap"),
        )
    };
    // Class names may be numbers in JSON.
    let text = |name: &Value| match name {
        Value::String(name) => Ok(name.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(wrong()),
    };
    match value {
        Value::Array(names) => names.iter().map(text).collect(),
        Value::Object(names) => (0..names.len())
            .map(|id| names.get(&id.to_string()).ok_or_else(wrong).and_then(text))
            .collect(),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: Value) -> Result<(Vec<String>, Problem), ConfigError> {
        Labels::from_hf(&json).map(|labels| (labels.names, labels.problem))
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).into()).collect()
    }

    #[test]
    fn labels_of_config_files() {
        let two = names(&["LABEL_0", "LABEL_1"]);
        assert_eq!(read(json!({})), Ok((two, Problem::SingleLabel)));
        let given = json!({"id2label": {"1": "b", "0": "a", "2": "c"}, "num_labels": 3});
        assert_eq!(read(given), Ok((names(&["a", "b", "c"]), Problem::SingleLabel)));
        let numbers = json!({"id2label": {"0": 10, "1": 20}});
        assert_eq!(read(numbers), Ok((names(&["10", "20"]), Problem::SingleLabel)));
        let one = json!({"num_labels": 1});
        assert_eq!(read(one), Ok((names(&["LABEL_0"]), Problem::Regression)));
        let many = json!({"id2label": {"0": "a"}, "problem_type": "multi_label_classification"});
        assert_eq!(read(many), Ok((names(&["a"]), Problem::MultiLabel)));
        for (json, part) in [
            (json!({"id2label": {"0": "a", "2": "b"}}), "without a gap"),
            (json!({"id2label": {"0": "a", "1": "a"}}), "'a' is given twice"),
            (json!({"id2label": {"0": "a", "1": null}}), "expected names by number"),
            (json!({"num_labels": 0}), "'num_labels' is 0"),
            (json!({"num_labels": 99_999_999_999u64}), "65535"),
            (
                json!({"problem_type": "ranking"}),
                "'ranking'; implemented are regression",
            ),
            (json!({"id2label": {}}), "no labels"),
        ] {
            let message = read(json).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn losses_of_the_three_problems() {
        use burn::tensor::Device;
        let device = Device::flex();
        let logits = || Tensor::<2>::from_floats([[0.5, -1.0], [2.0, 0.0]], &device);
        let values = || Targets::Values(Tensor::from_floats([[1.0, 0.0], [0.0, 1.0]], &device));
        let loss = |problem, targets| {
            let labels = Labels::new(names(&["a", "b"]), problem).unwrap();
            labels.loss(logits(), targets).into_scalar::<f32>()
        };
        let classes = Targets::Classes(Tensor::from_ints([0, 1], &device));
        // By torch.nn.functional's cross_entropy, mse_loss and binary_cross_entropy_with_logits.
        assert!((loss(Problem::SingleLabel, classes) - 1.164_170_6).abs() < 1e-6);
        assert!((loss(Problem::Regression, values()) - 1.562_5).abs() < 1e-6);
        assert!((loss(Problem::MultiLabel, values()) - 0.901_853_6).abs() < 1e-6);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let labels = Labels::new(names(&["no", "yes"]), Problem::SingleLabel).unwrap();
        let mut config = json!({"num_labels": 7, "hidden_size": 3}).as_object().unwrap().clone();
        labels.write(&mut config);
        assert_eq!(Labels::from_hf(&Value::Object(config.clone())), Ok(labels));
        assert_eq!(config["label2id"]["yes"], json!(1));
        assert!(config.contains_key("hidden_size") && !config.contains_key("num_labels"));
    }
}
