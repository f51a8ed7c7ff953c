//! The nearest WeGeFT adapter to one with low-rank residuals, such as LoRA.
//!
//! Input side: one `X = s·phi·psi` of rank r serves all weights of a group, so it minimizes `Σᵢ ‖Wᵢ X - Dᵢ‖²`, with
//! `Wᵢ` the weights (d_out × d_in) and `Dᵢ = sᵢ Bᵢ Aᵢ` the residuals. With `G = Σ Wᵢᵀ Wᵢ = V Λ Vᵀ` and `C = Σ Wᵢᵀ Dᵢ`
//! that is `‖Λ^½ Vᵀ X - Λ^-½ Vᵀ C‖²` and a constant, and the best X of rank r is `V Λ^-½` times the best
//! approximation of `Λ^-½ Vᵀ C` of that rank, which its SVD gives (reduced-rank regression). The output side is the
//! same problem transposed.

use std::collections::BTreeMap;
use std::fmt;

use burn::module::{Module, ModuleDisplay};
use burn::tensor::{DType, FloatDType, Tensor};

use crate::adapted::Adapted;
use crate::checkpoint::{PREFIX, fill, to_stored};
use crate::config::AdapterConfig;
use crate::error::AdapterError;
use crate::group::Group;
use crate::linalg::{finite_svd, product_svd};
use crate::low_rank::LowRank;
use crate::methods::tokens::layer_of_rows;
use crate::methods::wegeft::{Side, WegeftConfig};
use crate::site::Site;
use crate::weights::Weights;

/// What a conversion lost at one site.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteLoss {
    /// Name of the group.
    pub group: String,
    /// The site's module.
    pub site: String,
    /// Frobenius norm of the residual before the conversion.
    pub norm: f64,
    /// Frobenius norm of the difference after it.
    pub lost: f64,
}

/// What a conversion lost, site by site.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConversionReport {
    /// In the order of the groups.
    pub sites: Vec<SiteLoss>,
}

impl ConversionReport {
    /// Norm of all differences relative to the norm of all residuals: 0 if the conversion is exact, 1 if nothing of the
    /// adapter is left.
    pub fn lost(&self) -> f64 {
        relative(self.sites.iter())
    }

    /// [`ConversionReport::lost`] of each group.
    pub fn groups(&self) -> Vec<(&str, f64)> {
        let mut names: Vec<&str> = self.sites.iter().map(|site| site.group.as_str()).collect();
        names.dedup();
        let of = |name: &str| relative(self.sites.iter().filter(|site| site.group == name));
        names.iter().map(|name| (*name, of(name))).collect()
    }
}

fn relative<'a>(sites: impl Iterator<Item = &'a SiteLoss>) -> f64 {
    let (norm, lost) = sites.fold((0.0, 0.0), |(norm, lost), site| {
        (norm + site.norm.powi(2), lost + site.lost.powi(2))
    });
    if norm == 0.0 { 0.0 } else { (lost / norm).sqrt() }
}

impl fmt::Display for ConversionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (group, lost) in self.groups() {
            writeln!(f, "{group}: {:.3} % of the residual lost", 100.0 * lost)?;
        }
        write!(f, "in all: {:.3} % lost", 100.0 * self.lost())
    }
}

impl<M: Module + ModuleDisplay> Adapted<M> {
    /// The WeGeFT adapter with settings `config` that is nearest to this one by least squares over all weights of each
    /// group, and what the conversion loses. Targets, `modules_to_save` and the rows of `trainable_token_indices` are
    /// kept. Exact if this adapter came from WeGeFT with the same settings. Takes one eigendecomposition of a `[d, d]`
    /// matrix per group, on the CPU.
    ///
    /// # Errors
    /// A method that cannot be written as LoRA, settings with a non-linear generator, or elements that are not finite.
    pub fn nearest_wegeft(&self, config: &WegeftConfig) -> Result<(Self, ConversionReport), AdapterError> {
        if !config.generator.is_identity() {
            let message = "there is no closed form with a non-linear generator; set block = identity";
            return Err(AdapterError::bad_field("generator", message));
        }
        let plain = self.valid();
        let residuals = plain.low_rank()?;
        let settings = AdapterConfig {
            targets: self.config().targets.clone(),
            extra: self.config().extra.clone(),
            ..AdapterConfig::new(config.clone())
        };
        // Of the rest, this adapter's file may have fields that a fresh one must not have.
        settings.method.check_fresh()?;
        let adapted = settings.adapt(self.backbone().clone())?;
        settings.refuse_unmatched(&adapted)?;
        let weights = weights(plain.backbone(), adapted.bank().groups());
        let mut report = ConversionReport::default();
        let mut tensors = self.token_rows();
        let tables: Vec<String> = tensors
            .keys()
            .filter_map(|key| layer_of_rows(key))
            .map(String::from)
            .collect();
        for group in adapted.bank().groups() {
            if tables.contains(&format!("{PREFIX}{}", group.site().stored_as())) {
                continue;
            }
            let terms = group.sites.iter().map(|site| term(site, &weights, &residuals));
            let terms = terms
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| not_finite(&group.name))?;
            if !group.scales.is_empty() {
                let message =
                    "gives sites of one group different scales, for which there is no closed form; leave it unset";
                return Err(AdapterError::bad_field("alpha_pattern", message));
            }
            let (owner, scale) = (group.module(), group.scale);
            let (phi, psi) = solve(&terms, group.rank, scale, config.side).ok_or_else(|| not_finite(&group.name))?;
            for (site, term) in group.sites.iter().zip(&terms) {
                let before = term.residual.clone().dense();
                let after = match config.side {
                    Side::Input => psi
                        .clone()
                        .transpose()
                        .matmul(phi.clone().transpose().matmul(term.weight.clone())),
                    Side::Output => term
                        .weight
                        .clone()
                        .matmul(psi.clone().transpose())
                        .matmul(phi.clone().transpose()),
                };
                report.sites.push(SiteLoss {
                    group: group.name.clone(),
                    site: site.module(),
                    norm: norm(before.clone()),
                    lost: norm(after.mul_scalar(scale) - before),
                });
            }
            for (name, factor) in [("phi", phi.transpose()), ("psi", psi)] {
                tensors.insert(
                    format!("{PREFIX}{owner}.wegeft_{name}.weight"),
                    to_stored(factor, false),
                );
            }
        }
        let mut names = adapted.names();
        names.retain(|path, _| path.starts_with("bank."));
        Ok((fill(adapted, &names, &tensors), report))
    }
}

fn not_finite(group: &str) -> AdapterError {
    AdapterError::bad_field(
        "peft_type",
        format!("group '{group}' has weights or residuals with NaN or infinite elements"),
    )
}

fn norm(tensor: Tensor<2>) -> f64 {
    tensor.powi_scalar(2).sum().into_scalar::<f64>().sqrt()
}

/// One site of a group: its weight in Burn's layout, `[d_in, d_out]`, and the residual to approximate.
struct Term {
    weight: Tensor<2>,
    residual: LowRank,
}

fn term(site: &Site, weights: &BTreeMap<String, Tensor<2>>, residuals: &BTreeMap<String, LowRank>) -> Option<Term> {
    let weight = weights.get(&site.path)?.clone();
    let module = site.path.strip_suffix(".weight").unwrap_or(&site.path);
    let LowRank { a, b, scale } = residuals.get(module)?.clone();
    let (weight, b) = match &site.block {
        Some(block) => (
            weight.narrow(1, block.start, site.d_out),
            b.narrow(0, block.start, site.d_out),
        ),
        None => (weight, b),
    };
    let dtype = weight.dtype();
    Some(Term {
        weight,
        residual: LowRank {
            a: a.cast(dtype),
            b: b.cast(dtype),
            scale,
        },
    })
}

/// phi `[d, r]` and psi `[r, d]` such that `scale·phi·psi` is the best solution of rank `r`.
fn solve(terms: &[Term], r: usize, scale: f64, side: Side) -> Option<(Tensor<2>, Tensor<2>)> {
    // On the input side Wᵢ is d_out × d_in and Burn's weight its transpose; on the output side the problem is the
    // transposed one, with Burn's weight as it is and B and A in each other's place.
    let mut gram: Option<Tensor<2>> = None;
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for Term { weight, residual } in terms {
        let (w_t, b, a) = match side {
            Side::Input => (weight.clone(), residual.b.clone(), residual.a.clone()),
            Side::Output => (
                weight.clone().transpose(),
                residual.a.clone().transpose(),
                residual.b.clone().transpose(),
            ),
        };
        let own = w_t.clone().matmul(w_t.clone().transpose());
        gram = Some(gram.map_or(own.clone(), |gram| gram + own));
        left.push(w_t.matmul(b).mul_scalar(residual.scale));
        right.push(a);
    }
    let (v, lambda, _) = finite_svd(gram?)?;
    let [d, _] = v.dims();
    // Directions in which all weights are zero are dropped: nothing added there has an effect.
    let values: Vec<f64> = lambda.clone().into_data().iter::<f64>().collect();
    let least = values.first().copied().unwrap_or_default()
        * match lambda.dtype() {
            DType::F64 => 1e-12,
            _ => f64::from(f32::EPSILON),
        };
    let kept = values.iter().take_while(|value| **value > least).count();
    let (phi, psi) = match kept {
        0 => {
            let at = (&v.device(), v.dtype());
            (Tensor::zeros([d, 0], at), Tensor::zeros([0, d], at))
        }
        _ => {
            let root = lambda.narrow(0, 0, kept).sqrt().recip().unsqueeze_dim::<2>(0);
            let whitened = v.narrow(1, 0, kept) * root;
            let left = whitened.clone().transpose().matmul(Tensor::cat(left, 1));
            let (u, s, vt) = product_svd(left, Tensor::cat(right, 0), r)?;
            let share = s.div_scalar(scale.abs()).sqrt();
            (
                whitened
                    .matmul(u * share.clone().unsqueeze_dim::<2>(0))
                    .mul_scalar(scale.signum()),
                vt * share.unsqueeze_dim::<2>(1),
            )
        }
    };
    let (phi, psi) = padded(phi, psi, d, r);
    Some(match side {
        Side::Input => (phi, psi),
        Side::Output => (psi.transpose(), phi.transpose()),
    })
}

/// phi and psi padded with zeros to rank `r`, if the residuals have a lower rank.
fn padded(phi: Tensor<2>, psi: Tensor<2>, d: usize, r: usize) -> (Tensor<2>, Tensor<2>) {
    let [rank, _] = psi.dims();
    let (device, dtype) = (phi.device(), phi.dtype());
    let (mut all_phi, mut all_psi) = (
        Tensor::zeros([d, r], (&device, dtype)),
        Tensor::zeros([r, d], (&device, dtype)),
    );
    if rank > 0 {
        all_phi = all_phi.slice_assign([0..d, 0..rank], phi);
        all_psi = all_psi.slice_assign([0..rank, 0..d], psi);
    }
    (all_phi, all_psi)
}

/// The weights of all sites by path, in f64 where the device has it.
fn weights<M: Module>(model: &M, groups: &[Group]) -> BTreeMap<String, Tensor<2>> {
    let sites: Vec<Site> = groups.iter().flat_map(|group| group.sites.clone()).collect();
    let weights = Weights::of(model, &sites);
    let exact = |site: Site| {
        let weight = weights.whole(&site);
        let dtype = match weight.device().supports_dtype(FloatDType::F64) {
            true => FloatDType::F64,
            false => FloatDType::F32,
        };
        (site.path, weight.cast(dtype))
    };
    sites.into_iter().map(exact).collect()
}
