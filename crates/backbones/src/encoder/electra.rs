//! ELECTRA's discriminator (Clark et al. 2020, arXiv 2003.10555): BERT with narrower embeddings and a head of its own.

use super::bert;
use super::config::EncoderConfig;
use super::family::Family;
use super::head_config::{HeadConfig, Pool};
use crate::error::ConfigError;
use crate::lm::activation::Activation;
use crate::lm::fields::Fields;

pub(super) const FAMILY: Family = Family {
    model_types: &[("electra", "ElectraForSequenceClassification")],
    prefix: "electra",
    config,
    sizes: bert::sizes,
};

fn config(fields: &Fields) -> Result<EncoderConfig, ConfigError> {
    let head = HeadConfig::new(Pool::First, "classifier.out_proj".into())
        .with_dense(Some("classifier.dense".into()))
        .with_activation(Activation::Gelu);
    let mut config = bert::shared("electra", fields, head)?;
    config.d_model = fields.count_or("hidden_size", 256)?;
    config.mlp_dim = fields.count_or("intermediate_size", 1024)?;
    config.heads = fields.count_or("num_attention_heads", 4)?;
    config.embedding_size = Some(fields.count_or("embedding_size", 128)?);
    config.head.input_dropout = config.head.dropout;
    Ok(config)
}
