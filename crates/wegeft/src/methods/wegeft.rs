//! WeGeFT (Weight-Generative Fine-Tuning, ICML 2025, arXiv 2312.00700).
//!
//! Input side: `W' = W (I + s·phi·psi)`; output side: `W' = (I + s·phi·psi) W`, for `W` of shape d_out × d_in.
//! In Burn's row layout (`y = x W + b`, `W` of `[d_in, d_out]`) these are
//!
//! - input form `y = (x + s·(x psiᵀ) phiᵀ) W + b`: the frozen weight is used once, as it is, and no term of the
//!   adapter grows with d_in·d_out. The default;
//! - residual form `y = x W + s·(x psiᵀ) (phiᵀ W) + b`, the reference's: used if W·phi itself is changed, by dropout
//!   on W or by a generator's blocks;
//! - output form `y = z + s·(z psiᵀ) phiᵀ + b` with `z = x W`. The bias is not edited, so that the residual is one
//!   of the weight alone, merges, and exports as LoRA (`B = phi`, `A = psi W`). (The reference's activation form
//!   edits the bias and its weight form does not.)

use std::any::Any;
use std::sync::Arc;

use burn::tensor::{Int, Tensor};
use kernels::InputEdit;
use serde_json::{Map, Value};

use super::fork;
use super::generator_net::Generator;
pub use super::wegeft_settings::{Side, WegeftConfig, ZeroFactor};
use crate::checkpoint::{Names, Tensors};
use crate::edit::Edit;
use crate::error::AdapterError;
use crate::factors::{Factors, Init, Spec};
use crate::group::{Group, Sharing};
use crate::linalg;
use crate::low_rank::LowRank;
use crate::method::{self, Method};
use crate::site::{Site, SiteKind};
use crate::targets::Targets;
use crate::tensor::{affine, cast, dequantized, dropped, dropped_inputs, for_products, product, with_rest};

impl Method for WegeftConfig {
    fn name(&self) -> &'static str {
        "WEGEFT"
    }

    fn settings(&self) -> Map<String, Value> {
        method::settings(self)
    }

    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        self.check()?;
        let mut groups = Group::shared(sites, &self.sharing, self.shared_size_name(), |site| {
            self.shared_size(site)
        })?;
        let scale = |r: usize, alpha: f64| alpha / r as f64;
        match self.sharing {
            Sharing::Tied(_) => self.patterns.resolve_sites(&mut groups, self.r, self.alpha, scale)?,
            _ => self.patterns.resolve(&mut groups, self.r, self.alpha, scale)?,
        }
        for group in &groups {
            group.check_rank(|site| self.shared_size(site))?;
            group.check_equal(self.shared_size_name(), |site| self.shared_size(site))?;
            if self.generator.is_tied_to_d_out() {
                group.check_equal("d_out", |site| site.d_out)?;
            }
        }
        Ok(groups)
    }

    /// phi `[d, r]`, psi `[r, d]`, and the blocks between them; d is d_in on the input side, d_out on the output side. The
    /// random one of the two is U(±1/√d) (Kaiming-uniform with a = √5), as in the reference.
    fn specs(&self, group: &Group) -> Vec<Spec> {
        let (d, r) = (self.shared_size(group.site()), group.rank);
        let random = Init::Uniform(1.0 / (d as f64).sqrt());
        let (phi, psi) = match self.zero_factor {
            ZeroFactor::Psi => (random, Init::Zeros),
            ZeroFactor::Phi => (Init::Zeros, random),
        };
        let mut specs = vec![
            Spec::new("phi", "wegeft_phi.weight", [d, r])
                .with_init(phi)
                .transposed(),
            Spec::new("psi", "wegeft_psi.weight", [r, d]).with_init(psi),
        ];
        specs.extend(self.generator.specs(r, group.site().d_out));
        specs
    }

    fn bind(&self, group: &Group, factors: &Factors) -> Arc<dyn Edit> {
        Arc::new(BoundWegeft {
            generator_id: factors.param::<2>("phi").id.val(),
            phi: factors.matrix("phi"),
            psi: factors.matrix("psi"),
            generator: self.generator.bind(factors),
            scale: group.scale,
            output_side: self.side == Side::Output,
            weight_dropout: self.weight_dropout,
            // On the input side psi would read activations, of which an embedding has none.
            dropout: match group.site().kind {
                SiteKind::Embedding if self.side == Side::Input => 0.0,
                _ => self.dropout,
            },
        })
    }

    fn has_lora_form(&self) -> bool {
        true
    }

    fn on_disk(&self, fields: Map<String, Value>, targets: &Targets, groups: &[Group]) -> Map<String, Value> {
        fork::on_disk(self, fields, targets, groups)
    }

    fn respell(&self, names: &Names, tensors: &mut Tensors) {
        fork::respell(names, tensors);
    }
}

/// The edit of a bound site.
#[derive(Debug, Clone)]
struct BoundWegeft {
    /// Which generator this is, the same at every site of its group.
    generator_id: u64,
    phi: Tensor<2>,
    psi: Tensor<2>,
    generator: Generator,
    scale: f64,
    output_side: bool,
    weight_dropout: f64,
    dropout: f64,
}

impl BoundWegeft {
    /// `z + s·(z psiᵀ) phiᵀ`, `[n, d]`: WeGeFT as an edit of a representation, the layer's input or its output.
    fn edit(&self, z: Tensor<2>) -> Tensor<2> {
        let read = dropped(for_products(z.clone()), self.dropout);
        let factors = LowRank {
            a: self.psi.clone(),
            b: self.phi.clone(),
            scale: self.scale,
        };
        z.clone() + cast(factors.forward(read), z.dtype())
    }

    /// True if the adapter is an edit of the layer's input alone.
    fn edits_input(&self) -> bool {
        !self.output_side && self.weight_dropout == 0.0 && self.generator.is_identity()
    }

    /// `weight` as the generator reads it: in training, with dropout on its elements.
    fn read(&self, weight: Tensor<2>) -> Tensor<2> {
        match self.weight_dropout > 0.0 {
            true => dropped(dequantized(weight), self.weight_dropout),
            false => weight,
        }
    }

    /// `block(W phi)`, `[d_out, r]`, for `weight` of `[d_in, d_out]`.
    fn generated(&self, weight: Tensor<2>) -> Tensor<2> {
        // phiᵀ W first: the weight is read in storage order, and only the [r, d_out] result is transposed.
        let c = self.phi.clone().transpose().matmul(cast(weight, self.phi.dtype()));
        self.generator.forward(c.transpose())
    }

    fn residual_form(&self, weight: Tensor<2>) -> LowRank {
        if self.output_side {
            return LowRank {
                // psi W in PyTorch's orientation of W; here W psiᵀ, transposed, so that W is read in storage order.
                a: cast(weight, self.psi.dtype())
                    .matmul(self.psi.clone().transpose())
                    .transpose(),
                b: self.phi.clone(),
                scale: self.scale,
            };
        }
        LowRank {
            a: self.psi.clone(),
            b: self.generated(weight),
            scale: self.scale,
        }
    }
}

impl Edit for BoundWegeft {
    fn update(&self, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
        if self.output_side {
            let z = product(x, weight);
            return self.edit(z.clone()) - z;
        }
        let residual = LowRank {
            a: self.psi.clone(),
            b: self.generated(self.read(weight)),
            scale: self.scale,
        };
        residual.forward(dropped(x, self.dropout))
    }

    fn affine(
        &self,
        x: Tensor<2>,
        weight: Tensor<2>,
        bias: Option<Tensor<1>>,
        residual: Option<Tensor<2>>,
    ) -> Tensor<2> {
        if self.output_side {
            return with_rest(self.edit(product(x, weight)), bias, residual);
        }
        if !self.edits_input() {
            let update = self.update(x.clone(), weight.clone());
            return affine(x, weight, bias, Some(with_rest(update, None, residual)));
        }
        if self.dropout > 0.0 || x.dtype() != self.psi.dtype() {
            return affine(self.edit(x), weight, bias, residual);
        }
        let edit = InputEdit {
            phi: self.phi.clone(),
            psi: self.psi.clone(),
            scale: self.scale,
        };
        kernels::input_form(x, edit, weight, bias, residual)
    }

    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        let dtype = weight.dtype();
        cast(self.residual_form(weight).dense(), dtype)
    }

    fn residual_in_training(&self, weight: Tensor<2>) -> Tensor<2> {
        let dtype = weight.dtype();
        let psi = dropped_inputs(self.psi.clone(), self.dropout);
        let dropping = Self { psi, ..self.clone() };
        cast(dropping.residual_form(self.read(weight)).dense(), dtype)
    }

    fn low_rank(&self, weight: Tensor<2>) -> Option<LowRank> {
        Some(self.residual_form(weight))
    }

    // The output side edits the rows that are looked up, and reads no others.
    fn rows(&self, ids: Tensor<1, Int>, weight: Tensor<2>) -> Tensor<2> {
        let frozen = weight.clone().select(0, ids.clone());
        if self.output_side {
            return self.edit(frozen);
        }
        let change = self.residual_form(self.read(weight)).rows(ids);
        let dtype = frozen.dtype();
        frozen + cast(change, dtype)
    }

    // The same generator and scale, and no dropout, whose mask differs from layer to layer.
    fn shares_input_edit(&self, other: &dyn Edit) -> bool {
        let other: &dyn Any = other;
        let same = |other: &Self| self.generator_id == other.generator_id && self.scale == other.scale;
        self.edits_input() && self.dropout == 0.0 && other.downcast_ref().is_some_and(same)
    }

    fn edit_input(&self, x: Tensor<2>) -> Tensor<2> {
        self.edit(x)
    }

    // Woodbury: (I + s·psiᵀ phiᵀ)⁻¹ = I - s·psiᵀ (I + s·phiᵀ psiᵀ)⁻¹ phiᵀ, with an inverse of r × r only.
    fn unmerged(&self, merged: Tensor<2>) -> Option<Tensor<2>> {
        if !self.generator.is_identity() {
            return None;
        }
        let dtype = merged.dtype();
        let (phi_t, psi_t) = (self.phi.clone().transpose(), self.psi.clone().transpose());
        let wide = cast(merged.clone(), phi_t.dtype());
        let [r, _] = phi_t.dims();
        let small = Tensor::eye(r, &phi_t.device()) + phi_t.clone().matmul(psi_t.clone()).mul_scalar(self.scale);
        let inverse = linalg::inverse(small)?.mul_scalar(self.scale);
        let edit = match self.output_side {
            true => wide.matmul(psi_t).matmul(inverse).matmul(phi_t),
            false => psi_t.matmul(inverse).matmul(phi_t.matmul(wide)),
        };
        Some(merged - cast(edit, dtype))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::AdapterConfig;
    use crate::methods::laws::{Case, Net, stir};

    fn config(sharing: Sharing, zero: ZeroFactor) -> AdapterConfig {
        let config = WegeftConfig::new(2).with_alpha(3.0).with_sharing(sharing);
        AdapterConfig::new(config.with_zero_factor(zero)).with_target_modules(["proj", "up", "down"])
    }

    #[test]
    fn keeps_the_laws() {
        let all = config(Sharing::All, ZeroFactor::Phi).with_target_modules(["proj", "up"]);
        for config in [
            config(Sharing::Kind, ZeroFactor::Psi),
            config(Sharing::Site, ZeroFactor::Phi),
            all.with_modules_to_save(["head"]),
        ] {
            Case::new(config).check();
        }
    }

    #[test]
    fn shared_factors_are_updated_once() {
        let device = Device::flex().autodiff();
        for (sharing, zero) in [(Sharing::Kind, ZeroFactor::Psi), (Sharing::Site, ZeroFactor::Phi)] {
            let adapted = config(sharing, zero).init(Net::new(8, 3, &device)).unwrap();
            let after = stir(adapted, 8, 1, &device);
            // AdamW's first step is lr·sign(gradient): a second update of a shared factor would double it.
            let name = if zero == ZeroFactor::Psi { "psi" } else { "phi" };
            let factor = after.bank().factors[0].matrix(name);
            let greatest = factor.abs().max().into_scalar::<f32>();
            assert!((0.01..0.0501).contains(&greatest), "{greatest}");
        }
    }
}
