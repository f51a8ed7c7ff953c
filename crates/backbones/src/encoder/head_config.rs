//! The shape of a head that classifies texts.

use burn::config::Config;
use serde::{Deserialize, Serialize};

use crate::lm::activation::Activation;

/// How the tokens of a text become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// The first token.
    First,
    /// The last token that does not have the id of padding.
    Last,
    /// The mean of the tokens that are not padding.
    Mean,
}

/// Shape of a head. Its layers are given by full module paths, since each family names them differently and some lie
/// inside the encoder (`bert.pooler.dense`).
#[derive(Config, Debug, PartialEq)]
pub struct HeadConfig {
    /// Pooling.
    pub pool: Pool,
    /// Path of the output layer.
    pub out: String,
    /// The output layer has a bias.
    #[config(default = true)]
    pub out_bias: bool,
    /// Path of the hidden layer, if there is one.
    pub dense: Option<String>,
    /// The hidden layer has a bias.
    #[config(default = true)]
    pub dense_bias: bool,
    /// Activation of the hidden layer.
    #[config(default = "Activation::Tanh")]
    pub activation: Activation,
    /// Path of a norm after the activation, if there is one.
    pub norm: Option<String>,
    /// The norm has a bias.
    #[config(default = true)]
    pub norm_bias: bool,
    /// Epsilon of the norm.
    #[config(default = 1e-5)]
    pub norm_eps: f64,
    /// In training, dropout probability before the hidden layer.
    #[config(default = 0.0)]
    pub input_dropout: f64,
    /// In training, dropout probability before the output layer.
    #[config(default = 0.0)]
    pub dropout: f64,
}
