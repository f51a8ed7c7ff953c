//! DeBERTa's relative positions: which row of the embedding of distances a pair of tokens reads.

use burn::config::Config;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::lm::activation::Activation;

/// How DeBERTa encodes distances between tokens.
#[derive(Config, Debug, PartialEq)]
pub struct RelativeConfig {
    /// Distances that the embedding has rows for, to each side.
    pub span: usize,
    /// Distance from which on all distances are treated as equal.
    pub max_distance: usize,
    /// Distances beyond half the span share rows, by their logarithm (v2 and v3).
    pub buckets: bool,
    /// Content-to-position scores: queries of content times keys of relative positions.
    pub c2p: bool,
    /// Position-to-content scores: queries of relative positions times keys of content.
    pub p2c: bool,
    /// Positions are projected by the weights of the content.
    pub share_att_key: bool,
    /// The embedding is normalised.
    pub normed: bool,
    /// Kernel size, groups and activation of the convolution beside the first layer (v2), if there is one.
    pub conv: Option<ConvConfig>,
    /// Whether attention uses distances. Where they are not, as in transformers, scores are still scaled for
    /// [`RelativeConfig::scale_factor`] kinds of them, and the files have the norm and the convolution.
    #[config(default = true)]
    pub attends: bool,
}

/// DeBERTa-v2's convolution over the embeddings.
#[derive(Config, Debug, PartialEq)]
pub struct ConvConfig {
    /// Tokens that it spans, odd.
    pub kernel_size: usize,
    /// Groups of channels.
    pub groups: usize,
    /// Activation.
    pub activation: Activation,
}

impl RelativeConfig {
    /// Number of kinds of scores that are summed; each increases the variance of the sum.
    pub fn scale_factor(&self) -> usize {
        1 + usize::from(self.c2p) + usize::from(self.p2c)
    }

    /// The row, counted from the middle of the embedding, of a key `distance` tokens before the query.
    pub(super) fn bucket(&self, distance: i64) -> i64 {
        let mid = (self.span / 2) as i64;
        if !self.buckets || distance.abs() <= mid {
            return distance;
        }
        // In f32 like the models' authors: in f64 a distance on the edge of a bucket could fall into the next one.
        let far = ((self.max_distance as f64 - 1.0) / mid as f64) as f32;
        let log = (distance.abs() as f32 / mid as f32).ln() / far.ln() * (mid - 1) as f32;
        (log.ceil() as i64 + mid) * distance.signum()
    }
}

/// The rows that the tokens of one batch read.
#[derive(Debug)]
pub(super) struct Relative {
    /// The part of the (normalised) embedding that is read, `[rows, d_model]`.
    pub embedding: Tensor<2>,
    /// For query i and key j the row of their distance, `[1, 1, tokens, tokens]`.
    pub rows: Tensor<4, Int>,
    /// For key j and query i the row of the same distance, from the key's side, `[1, 1, tokens, tokens]`.
    pub rows_of_keys: Tensor<4, Int>,
}

impl Relative {
    /// Of `embedding`, `[2·span, d_model]`, what texts of `tokens` tokens read.
    pub(super) fn new(config: &RelativeConfig, embedding: Tensor<2>, tokens: usize, device: &Device) -> Self {
        let span = config.span as i64;
        let last = 2 * span - 1;
        let reach = tokens as i64 - 1;
        let row = |distance: i64| (config.bucket(distance) + span).clamp(0, last);
        // Rows grow with the distance: those of the two longest distances enclose all others.
        let (first, end) = (row(-reach), row(reach) + 1);
        let table: Vec<i64> = (-reach..=reach).map(|distance| row(distance) - first).collect();
        let pairs = |sign: i64| {
            let places = 0..tokens as i64;
            let all = places.clone().flat_map(|i| places.clone().map(move |j| sign * (i - j)));
            let rows: Vec<i64> = all.map(|distance| table[(distance + reach) as usize]).collect();
            Tensor::<4, Int>::from_data(TensorData::new(rows, [1, 1, tokens, tokens]), device)
        };
        Self {
            embedding: embedding.narrow(0, first as usize, (end - first) as usize),
            rows: pairs(1),
            // Of key a and query b, with the distance seen from the query: b - a.
            rows_of_keys: pairs(-1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_distances_have_rows_of_their_own_and_far_ones_share_them() {
        let config = RelativeConfig::new(8, 64, true, true, true, true, true);
        let rows: Vec<i64> = (0..=12).map(|distance| config.bucket(distance)).collect();
        assert_eq!(rows, [0, 1, 2, 3, 4, 5, 5, 5, 5, 5, 5, 6, 6]);
        assert_eq!((config.bucket(63), config.bucket(-63), config.bucket(-12)), (7, -7, -6));
        let plain = RelativeConfig {
            buckets: false,
            ..config
        };
        assert_eq!(plain.bucket(-50), -50);
    }
}
