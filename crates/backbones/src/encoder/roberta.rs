//! RoBERTa (Liu et al. 2019, arXiv 1907.11692) and XLM-RoBERTa (Conneau et al. 2019, arXiv 1911.02116): BERT whose
//! positions start after the padding token's, with a head of its own.

use super::bert;
use super::config::EncoderConfig;
use super::family::Family;
use super::head_config::{HeadConfig, Pool};
use crate::error::ConfigError;
use crate::lm::fields::Fields;

pub(super) const FAMILY: Family = Family {
    model_types: &[
        ("roberta", "RobertaForSequenceClassification"),
        ("xlm-roberta", "XLMRobertaForSequenceClassification"),
        ("camembert", "CamembertForSequenceClassification"),
    ],
    prefix: "roberta",
    config,
    sizes: bert::sizes,
};

fn config(fields: &Fields) -> Result<EncoderConfig, ConfigError> {
    let head = HeadConfig::new(Pool::First, "classifier.out_proj".into()).with_dense(Some("classifier.dense".into()));
    let kind = fields.text_or("model_type", "roberta")?;
    let mut config = bert::shared(kind, fields, head)?;
    let default_vocabulary = if kind == "roberta" { 50265 } else { 30522 };
    config.vocab_size = fields.count_or("vocab_size", default_vocabulary)?;
    config.position_offset = fields.count_or("pad_token_id", 1)?.saturating_add(1);
    config.head.input_dropout = config.head.dropout;
    Ok(config)
}
