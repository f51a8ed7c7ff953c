//! See [`crate::input_form()`].

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Shape, Tensor};

use super::gemm::{Cores, Mat, append_product, product};
use super::linear::{Linear, bias_or_empty, block_rows, cores, matrix, nonnegative_strides};
use super::memory::par_fill_many;
use super::{column_sums, rows, tensor, values};
use crate::InputEdit;
use crate::flex::simd::simd;

/// With at most this many rows the edited input is materialized: the product is bound by reading the weight, which
/// [`Linear`] does best.
const SKINNY_ROWS: usize = 8;

/// Approximate number of rows that one task sums over.
const SUM_ROWS: usize = 400;

/// Rows per task where tasks sum over rows. It depends on `n` alone, so results do not depend on the number of threads; an
/// even number of tasks keeps two cores busy to the end.
fn rows_per_sum(n: usize) -> usize {
    if n < SUM_ROWS / 2 {
        return n.max(1);
    }
    n.div_ceil(2 * n.div_ceil(2 * SUM_ROWS))
}

/// See [`crate::input_form()`].
pub fn input_form(
    x: Tensor<2>,
    edit: InputEdit,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<2>>,
) -> Tensor<2> {
    let bias = bias_or_empty(bias, &weight.device()).into_dispatch();
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    let (phi, psi, scale) = (edit.phi.into_dispatch(), edit.psi.into_dispatch(), edit.scale as f32);
    Tensor::from_dispatch(match residual {
        Some(residual) => {
            <Dispatch as InputForm>::input_form_add(x, phi, psi, weight, bias, residual.into_dispatch(), scale)
        }
        None => <Dispatch as InputForm>::input_form(x, phi, psi, weight, bias, scale),
    })
}

/// WeGeFT's input form. `x`: `[n, d_in]`, `phi`: `[d_in, r]`, `psi`: `[r, d_in]`, `weight`: `[d_in, d_out]`, `bias`:
/// `[d_out]` or empty, `residual`: `[n, d_out]`.
#[backend_extension(Flex, Autodiff)]
pub trait InputForm: Backend {
    /// `(x + scale·(x psiᵀ) phiᵀ) W + b`
    fn input_form(
        x: FloatTensor<Self>,
        phi: FloatTensor<Self>,
        psi: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self>;
    /// `residual + (x + scale·(x psiᵀ) phiᵀ) W + b`
    fn input_form_add(
        x: FloatTensor<Self>,
        phi: FloatTensor<Self>,
        psi: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self>;
}

impl InputForm for Flex {
    fn input_form(
        x: FlexTensor,
        phi: FlexTensor,
        psi: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        scale: f32,
    ) -> FlexTensor {
        let pair = Pair { phi, psi, scale };
        if rows(&x)[0] <= SKINNY_ROWS {
            return Flex::linear(pair.edited(x), weight, bias);
        }
        forward(x, &pair, weight, bias, None).0
    }

    fn input_form_add(
        x: FlexTensor,
        phi: FlexTensor,
        psi: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        residual: FlexTensor,
        scale: f32,
    ) -> FlexTensor {
        let pair = Pair { phi, psi, scale };
        if rows(&x)[0] <= SKINNY_ROWS {
            return Flex::linear_add(pair.edited(x), weight, bias, residual);
        }
        forward(x, &pair, weight, bias, Some(residual)).0
    }
}

/// The edit `x + scale·(x psiᵀ) phiᵀ`.
#[derive(Debug, Clone)]
struct Pair {
    phi: FlexTensor,
    psi: FlexTensor,
    scale: f32,
}

impl Pair {
    fn edited(&self, x: FlexTensor) -> FlexTensor {
        let code = Flex::float_matmul(x.clone(), Flex::float_transpose(self.psi.clone()));
        let code = Flex::float_mul_scalar(code, self.scale.into());
        Flex::float_add(x, Flex::float_matmul(code, Flex::float_transpose(self.phi.clone())))
    }

    /// The same factors in a layout that [`matrix`] accepts.
    fn nonnegative_strides(self) -> Self {
        Self {
            phi: nonnegative_strides(self.phi),
            psi: nonnegative_strides(self.psi),
            scale: self.scale,
        }
    }
}

/// The output and the code `scale·x psiᵀ`, `[n, r]`.
fn forward(
    x: FlexTensor,
    pair: &Pair,
    weight: FlexTensor,
    bias: FlexTensor,
    residual: Option<FlexTensor>,
) -> (FlexTensor, FlexTensor) {
    let (x, bias, residual) = (
        x.to_contiguous(),
        bias.to_contiguous(),
        residual.map(|r| r.to_contiguous()),
    );
    let (pair, weight) = (pair.clone().nonnegative_strides(), nonnegative_strides(weight));
    let (phi, psi, weight) = (matrix(&pair.phi), matrix(&pair.psi), matrix(&weight));
    let (input, bias, residual) = (values(&x), values(&bias), residual.as_ref().map(values));
    let [n, d_in] = rows(&x);
    let (d_out, r) = (weight.size()[1], psi.size()[0]);
    let block = block_rows(n);
    let [out, code] = par_fill_many([n * d_out, n * r], [block * d_out, block * r], |index, [out, code]| {
        let (first, count) = (index * block, out.capacity() / d_out);
        let mut edited = input[first * d_in..][..count * d_in].to_vec();
        append_product(code, Mat::rows(&edited, [count, d_in]), psi.t(), Cores::One);
        code.written().iter_mut().for_each(|code| *code *= pair.scale);
        let small = Mat::rows(code.written(), [count, r]);
        product(&mut edited, d_in, small, phi.t(), 1.0, true, Cores::One);
        let edited = Mat::rows(&edited, [count, d_in]);
        let cores = cores(n, block, weight.size());
        if residual.is_none() && bias.is_empty() {
            return append_product(out, edited, weight, cores);
        }
        simd!({
            for row in first..first + count {
                match residual {
                    Some(residual) => out.sum(&residual[row * d_out..][..d_out], bias),
                    None => out.copy(bias),
                }
            }
        });
        product(out.written(), d_out, edited, weight, 1.0, true, cores);
    });
    let shape = |width: usize| Shape::from([n, width]);
    (tensor(out, shape(d_out)), tensor(code, shape(r)))
}

/// Saved for backward.
#[derive(Debug, Clone)]
struct Saved {
    x: FlexTensor,
    pair: Pair,
    weight: FlexTensor,
    /// `scale·x psiᵀ`, `[n, r]`
    code: FlexTensor,
}

/// The gradients of x, phi and psi.
///
/// With E the edited input, `dE = G Wᵀ` and `dcode = scale·dE phi`: `dphi = dEᵀ code`, `dpsi = dcodeᵀ x`,
/// `dx = dE + dcode psi`. Each task computes the contribution of its rows to dphi and dpsi; the contributions are added in
/// order.
fn with_input_grad(saved: &Saved, grad: &FlexTensor) -> [FlexTensor; 3] {
    let (weight, phi, psi) = (
        matrix(&saved.weight).t(),
        matrix(&saved.pair.phi),
        matrix(&saved.pair.psi),
    );
    let (grad, input, code) = (values(grad), values(&saved.x), values(&saved.code));
    let [n, d_in] = rows(&saved.x);
    let (d_out, r) = (weight.size()[0], psi.size()[0]);
    let block = rows_per_sum(n);
    let (small, tasks) = (r * d_in, n.div_ceil(block));
    let lens = [n * d_in, tasks * small, tasks * small];
    let [dx, dphi, dpsi] = par_fill_many(lens, [block * d_in, small, small], |index, [dx, dphi, dpsi]| {
        let (first, count) = (index * block, dx.capacity() / d_in);
        append_product(
            dx,
            part(grad, first, [count, d_out]),
            weight,
            cores(n, block, weight.size()),
        );
        let mut dcode = vec![0.0; count * r];
        let de = Mat::rows(dx.written(), [count, d_in]);
        product(&mut dcode, r, de, phi, saved.pair.scale, false, Cores::One);
        append_product(dphi, de.t(), part(code, first, [count, r]), Cores::One);
        let dcode = Mat::rows(&dcode, [count, r]);
        append_product(dpsi, dcode.t(), part(input, first, [count, d_in]), Cores::One);
        product(dx.written(), d_in, dcode, psi, 1.0, true, Cores::One);
    });
    [
        tensor(dx, Shape::from([n, d_in])),
        tensor(sum_parts(dphi, small), Shape::from([d_in, r])),
        tensor(sum_parts(dpsi, small), Shape::from([r, d_in])),
    ]
}

/// The gradients of phi and psi if x requires none, without `G Wᵀ`: `dphi = W (codeᵀ G)ᵀ`, `dcode = G (scale·Wᵀ phi)`.
fn without_input_grad(saved: &Saved, grad: &FlexTensor) -> [FlexTensor; 2] {
    let (weight, phi) = (matrix(&saved.weight), matrix(&saved.pair.phi));
    let (grad, input, code) = (values(grad), values(&saved.x), values(&saved.code));
    let [n, d_in] = rows(&saved.x);
    let ([_, d_out], r) = (weight.size(), phi.size()[1]);
    let block = rows_per_sum(n);
    let tasks = n.div_ceil(block);
    let mut projected = vec![0.0; d_out * r];
    product(&mut projected, r, weight.t(), phi, saved.pair.scale, false, Cores::All);
    let projected = Mat::rows(&projected, [d_out, r]);
    let lens = [tasks * r * d_out, tasks * r * d_in];
    let [code_grad, dpsi] = par_fill_many(lens, [r * d_out, r * d_in], |index, [code_grad, dpsi]| {
        let first = index * block;
        let count = block.min(n - first);
        append_product(
            code_grad,
            part(code, first, [count, r]).t(),
            part(grad, first, [count, d_out]),
            Cores::One,
        );
        let mut dcode = vec![0.0; count * r];
        product(
            &mut dcode,
            r,
            part(grad, first, [count, d_out]),
            projected,
            1.0,
            false,
            Cores::One,
        );
        append_product(
            dpsi,
            Mat::rows(&dcode, [count, r]).t(),
            part(input, first, [count, d_in]),
            Cores::One,
        );
    });
    let code_grad = sum_parts(code_grad, r * d_out);
    let mut dphi = vec![0.0; d_in * r];
    product(
        &mut dphi,
        r,
        weight,
        Mat::rows(&code_grad, [r, d_out]).t(),
        1.0,
        false,
        Cores::All,
    );
    [
        tensor(dphi, Shape::from([d_in, r])),
        tensor(sum_parts(dpsi, r * d_in), Shape::from([r, d_in])),
    ]
}

/// The `size` block of a row-major matrix that starts at row `first`.
fn part(values: &[f32], first: usize, size: [usize; 2]) -> Mat<'_> {
    let [count, width] = size;
    Mat::rows(&values[first * width..][..count * width], size)
}

/// The sum of consecutive parts of `size` elements, in order.
fn sum_parts(mut parts: Vec<f32>, size: usize) -> Vec<f32> {
    let (sum, rest) = parts.split_at_mut(size);
    for part in rest.chunks_exact(size) {
        sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    }
    parts.truncate(size);
    parts.shrink_to_fit();
    parts
}

#[derive(Debug)]
struct InputFormStep;

/// Parents: x, phi, psi, weight, bias and, of [`InputForm::input_form_add`], residual.
impl<const N: usize> Backward<Flex, N> for InputFormStep {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node).to_contiguous();
        let parent = |index: usize| ops.parents.get(index)?.as_ref().map(|node| node.id);
        let saved = ops.state;
        let [dphi, dpsi] = match parent(0) {
            Some(id) => {
                let [dx, dphi, dpsi] = with_input_grad(&saved, &grad);
                grads.register::<Flex>(id, dx);
                [dphi, dpsi]
            }
            None => without_input_grad(&saved, &grad),
        };
        for (index, value) in [(1, dphi), (2, dpsi)] {
            if let Some(id) = parent(index) {
                grads.register::<Flex>(id, value);
            }
        }
        if let Some(id) = parent(3) {
            let edited = saved.pair.edited(saved.x);
            grads.register::<Flex>(id, Flex::float_matmul(Flex::float_transpose(edited), grad.clone()));
        }
        if let Some(id) = parent(4) {
            grads.register::<Flex>(id, column_sums(grad.clone()));
        }
        if let Some(id) = parent(5) {
            grads.register::<Flex>(id, grad);
        }
    }
}

impl<C: CheckpointStrategy> InputForm for Autodiff<Flex, C> {
    fn input_form(
        x: FloatTensor<Self>,
        phi: FloatTensor<Self>,
        psi: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), phi.node(), psi.node(), weight.node(), bias.node()];
        let [x, phi, psi, weight, bias] = [x, phi, psi, weight, bias].map(|tensor| tensor.into_primitive());
        match InputFormStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (saved, out) = tracked(x, Pair { phi, psi, scale }, weight, bias, None);
                prep.finish(saved, out)
            }
            OpsKind::UnTracked(prep) => prep.finish(Flex::input_form(x, phi, psi, weight, bias, scale)),
        }
    }

    fn input_form_add(
        x: FloatTensor<Self>,
        phi: FloatTensor<Self>,
        psi: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        let nodes = [
            x.node(),
            phi.node(),
            psi.node(),
            weight.node(),
            bias.node(),
            residual.node(),
        ];
        let [x, phi, psi, weight, bias, residual] =
            [x, phi, psi, weight, bias, residual].map(|tensor| tensor.into_primitive());
        match InputFormStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (saved, out) = tracked(x, Pair { phi, psi, scale }, weight, bias, Some(residual));
                prep.finish(saved, out)
            }
            OpsKind::UnTracked(prep) => prep.finish(Flex::input_form_add(x, phi, psi, weight, bias, residual, scale)),
        }
    }
}

/// What is saved for backward, and the output.
fn tracked(
    x: FlexTensor,
    pair: Pair,
    weight: FlexTensor,
    bias: FlexTensor,
    residual: Option<FlexTensor>,
) -> (Saved, FlexTensor) {
    let (x, pair, weight) = (
        x.to_contiguous(),
        pair.nonnegative_strides(),
        nonnegative_strides(weight),
    );
    let (out, code) = forward(x.clone(), &pair, weight.clone(), bias, residual);
    (Saved { x, pair, weight, code }, out)
}
