//! LoKr (low-rank Kronecker product; LyCORIS, Yeh et al. 2024, arXiv 2309.14859): `W' = W + s·W₁ ⊗ W₂`, s = alpha / r.
//! d_out and d_in are each split into two factors, as close to their square roots as possible (or with `decompose_factor`);
//! W₁ and W₂, if large enough, are products of rank r. W₁ starts at 0.
//!
//! In activation space x is a matrix `[m, n]` per token and y is `W₁ x W₂ᵀ`: nothing of size d_in·d_out is formed. The
//! low-rank factors of a Kronecker product are the Kronecker products of its sides' factors, so it can be exported as LoRA.

use std::sync::Arc;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check::check_alpha;
use super::lycoris::{self, Dropout};
use crate::edit::Edit;
use crate::error::AdapterError;
use crate::factors::{Factors, Init, Spec};
use crate::group::Group;
use crate::low_rank::LowRank;
use crate::method::{self, Method};
use crate::patterns::Patterns;
use crate::site::{Site, SiteKind};
use crate::tensor::{cast, for_products};

/// Initialization of the factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LokrInit {
    /// W₂ (or its second factor) starts at 0, as in LyCORIS.
    Lycoris,
    /// W₁ (or its first factor) starts at 0.
    #[serde(untagged)]
    Zero(ZeroInit),
}

/// True: W₁ starts at 0; false: no factor does.
pub type ZeroInit = bool;

/// Settings of LoKr; names as in PEFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LokrConfig {
    /// Rank of the matrices that are decomposed.
    #[serde(default = "lycoris::usual_rank")]
    pub r: usize,
    /// Numerator of the scale s.
    #[serde(default = "lycoris::usual_alpha")]
    pub alpha: f64,
    /// Probability that the residual of an output is dropped, in training.
    #[serde(default)]
    pub rank_dropout: f64,
    /// Whether the residuals of the other outputs are scaled up, to keep their sum.
    #[serde(default)]
    pub rank_dropout_scale: bool,
    /// Probability that the residual of a whole module is dropped, in training.
    #[serde(default)]
    pub module_dropout: f64,
    /// Whether W₁ is decomposed as well, if it is large enough.
    #[serde(default)]
    pub decompose_both: bool,
    /// Size of W₁, as close as d_in and d_out allow; -1 for their square roots.
    #[serde(default = "square_root")]
    pub decompose_factor: i64,
    /// Initialization of the factors.
    #[serde(default = "zero")]
    pub init_weights: LokrInit,
    /// Ranks and alphas that differ for some modules.
    #[serde(flatten)]
    pub patterns: Patterns,
}

fn square_root() -> i64 {
    -1
}

fn zero() -> LokrInit {
    LokrInit::Zero(true)
}

impl LokrConfig {
    /// Rank `r`, scale 1.
    pub fn new(r: usize) -> Self {
        Self {
            r,
            alpha: r as f64,
            rank_dropout: 0.0,
            rank_dropout_scale: false,
            module_dropout: 0.0,
            decompose_both: false,
            decompose_factor: square_root(),
            init_weights: zero(),
            patterns: Patterns::default(),
        }
    }

    /// Sets alpha.
    pub fn with_alpha(mut self, alpha: f64) -> Self {
        self.alpha = alpha;
        self
    }

    /// Sets whether W₁ is decomposed as well.
    pub fn with_decompose_both(mut self, decompose_both: bool) -> Self {
        self.decompose_both = decompose_both;
        self
    }

    /// Sets the size of W₁.
    pub fn with_decompose_factor(mut self, decompose_factor: i64) -> Self {
        self.decompose_factor = decompose_factor;
        self
    }

    fn dropout(&self) -> Dropout {
        Dropout {
            rank: self.rank_dropout,
            module: self.module_dropout,
            rescaled: self.rank_dropout_scale,
        }
    }

    /// Shapes of W₁ and W₂ at a site, `[rows, columns]`.
    fn shapes(&self, site: &Site) -> [[usize; 2]; 2] {
        let (l, k) = split(site.d_out, self.decompose_factor);
        let (m, n) = split(site.d_in, self.decompose_factor);
        [[l, m], [k, n]]
    }
}

/// `size` as a product of two numbers, the smaller one first: `factor` and its cofactor if it divides `size`; otherwise the
/// two closest to each other of which the first is at most `factor` (unless that is -1). As in LyCORIS.
fn split(size: usize, factor: i64) -> (usize, usize) {
    let given = usize::try_from(factor).ok().filter(|factor| *factor > 0);
    if let Some(factor) = given.filter(|factor| size.is_multiple_of(*factor)) {
        return (factor, size / factor);
    }
    let most = given.unwrap_or(size);
    let below = (1..=most.min(size)).take_while(|m| m * m <= size);
    let m = below.filter(|m| size.is_multiple_of(*m)).max().unwrap_or(1);
    (m, size / m)
}

impl Method for LokrConfig {
    fn name(&self) -> &'static str {
        "LOKR"
    }

    fn settings(&self) -> Map<String, Value> {
        method::settings(self)
    }

    fn takes(&self, kind: SiteKind) -> bool {
        kind == SiteKind::Matrix
    }

    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        check_alpha("alpha", self.alpha)?;
        self.dropout().check()?;
        if self.decompose_factor < -1 || self.decompose_factor == 0 {
            let message = format!(
                "{} is not a valid factor; set it to 1 or more, or -1",
                self.decompose_factor
            );
            return Err(AdapterError::bad_field("decompose_factor", message));
        }
        let mut groups = Group::each(sites);
        self.patterns
            .resolve(&mut groups, self.r, self.alpha, |r, alpha| alpha / r as f64)?;
        for group in &groups {
            // If r exceeds the size of both sides, nothing is decomposed and r only sets the scale.
            group.check_rank(|site| site.d_in.max(site.d_out))?;
        }
        Ok(groups)
    }

    fn specs(&self, group: &Group) -> Vec<Spec> {
        let (r, [first, second]) = (group.rank, self.shapes(group.site()));
        let is_small = |[rows, columns]: [usize; 2]| 2 * r < rows.max(columns);
        let side = |name: &str, [rows, columns]: [usize; 2], decomposed: bool| {
            let part =
                |part: &str, shape| lycoris::random(&format!("{name}{part}"), &format!("lokr_{name}{part}"), shape);
            match decomposed {
                true => vec![part("_a", [rows, r]), part("_b", [r, columns])],
                false => vec![part("", [rows, columns])],
            }
        };
        let mut first = side("w1", first, self.decompose_both && is_small(first));
        let mut second = side("w2", second, is_small(second));
        match self.init_weights {
            LokrInit::Zero(true) => first[0].init = Init::Zeros,
            LokrInit::Zero(false) => {}
            LokrInit::Lycoris => second.last_mut().expect("a side has a factor").init = Init::Zeros,
        }
        first.into_iter().chain(second).collect()
    }

    fn bind(&self, group: &Group, factors: &Factors) -> Arc<dyn Edit> {
        let side = |name: &str| match factors.contains(name) {
            true => Part::Whole(factors.matrix(name)),
            false => Part::Product(
                factors.matrix(&format!("{name}_a")),
                factors.matrix(&format!("{name}_b")),
            ),
        };
        Arc::new(BoundLokr {
            first: side("w1"),
            second: side("w2"),
            scale: group.scale,
            dropout: self.dropout(),
        })
    }

    fn has_lora_form(&self) -> bool {
        true
    }
}

/// One side of the Kronecker product.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // two for each bound site, and not moved about
enum Part {
    Whole(Tensor<2>),
    /// `[rows, r]` and `[r, columns]`
    Product(Tensor<2>, Tensor<2>),
}

impl Part {
    fn whole(&self) -> Tensor<2> {
        match self {
            Self::Whole(matrix) => matrix.clone(),
            Self::Product(a, b) => a.clone().matmul(b.clone()),
        }
    }

    /// Two factors of the lowest rank that is possible without a decomposition.
    fn factors(&self) -> (Tensor<2>, Tensor<2>) {
        match self {
            Self::Product(a, b) if a.dims()[1] < a.dims()[0].min(b.dims()[1]) => (a.clone(), b.clone()),
            _ => {
                let matrix = self.whole();
                let [rows, columns] = matrix.dims();
                let identity = Tensor::<2>::eye(rows.min(columns), &matrix.device()).cast(matrix.dtype());
                match rows <= columns {
                    true => (identity, matrix),
                    false => (matrix, identity),
                }
            }
        }
    }
}

/// `[l, m]` and `[k, n]` to `[l·k, m·n]`.
fn kronecker(left: Tensor<2>, right: Tensor<2>) -> Tensor<2> {
    let ([l, m], [k, n]) = (left.dims(), right.dims());
    (left.reshape([l, 1, m, 1]) * right.reshape([1, k, 1, n])).reshape([l * k, m * n])
}

/// The edit of a bound site.
#[derive(Debug)]
struct BoundLokr {
    first: Part,
    second: Part,
    scale: f64,
    dropout: Dropout,
}

impl BoundLokr {
    /// `[d_in, d_out]`
    fn dense(&self) -> Tensor<2> {
        kronecker(self.first.whole().mul_scalar(self.scale), self.second.whole()).transpose()
    }

    /// What the residual adds to the output: `x` of `[n, d_in]` to `[n, d_out]`.
    fn products(&self, x: Tensor<2>) -> Tensor<2> {
        let x = for_products(x);
        let in_products = x.dtype();
        let first = cast(self.first.whole().mul_scalar(self.scale), in_products);
        let ([tokens, d_in], [l, m]) = (x.dims(), first.dims());
        let transposed = |matrix: &Tensor<2>| cast(matrix.clone(), in_products).transpose();
        // x W₂ᵀ for all m rows of all tokens at once, then W₁ over those rows.
        let rows = x.reshape([tokens * m, d_in / m]);
        let rows = match &self.second {
            Part::Whole(matrix) => rows.matmul(transposed(matrix)),
            Part::Product(a, b) => rows.matmul(transposed(b)).matmul(transposed(a)),
        };
        let [_, k] = rows.dims();
        let update = first.unsqueeze::<3>().matmul(rows.reshape([tokens, m, k]));
        update.reshape([tokens, l * k])
    }
}

impl Edit for BoundLokr {
    fn update(&self, x: Tensor<2>, _weight: Tensor<2>) -> Tensor<2> {
        let dtype = x.dtype();
        cast(self.dropout.apply(self.products(x)), dtype)
    }

    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        cast(self.dense(), weight.dtype())
    }

    fn residual_in_training(&self, weight: Tensor<2>) -> Tensor<2> {
        cast(self.dropout.apply(self.dense()), weight.dtype())
    }

    fn low_rank(&self, _weight: Tensor<2>) -> Option<LowRank> {
        let ((b1, a1), (b2, a2)) = (self.first.factors(), self.second.factors());
        Some(LowRank {
            a: kronecker(a1, a2),
            b: kronecker(b1, b2),
            scale: self.scale,
        })
    }

    fn unmerged(&self, merged: Tensor<2>) -> Option<Tensor<2>> {
        Some(merged.clone() - self.residual(merged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AdapterConfig;
    use crate::methods::laws::Case;

    #[test]
    fn keeps_the_laws() {
        for config in [
            LokrConfig::new(1).with_alpha(2.0),
            LokrConfig::new(1).with_decompose_both(true),
            LokrConfig::new(4).with_decompose_factor(2),
        ] {
            Case::new(AdapterConfig::new(config).with_target_modules(["up", "down"])).check();
        }
    }

    #[test]
    fn sizes_are_split_as_in_lycoris() {
        // (size, factor) and what LyCORIS's own function gives.
        for (size, factor, parts) in [
            (256, -1, (16, 16)),
            (128, -1, (8, 16)),
            (127, -1, (1, 127)),
            (128, 4, (4, 32)),
            (24, 5, (4, 6)),
            (72, 16, (8, 9)),
            (96, 7, (6, 16)),
        ] {
            assert_eq!(split(size, factor), parts, "{size}, {factor}");
        }
    }
}
