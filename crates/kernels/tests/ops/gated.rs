use burn::tensor::{DType, Device};
use kernels::{Gate, gated};
use proptest::prelude::*;

use super::{distance, leaf, normal, seed};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn agrees(rows in 1usize..40, columns in 1usize..700, spread in 0.1f64..30.0, silu: bool, transposed: bool) {
        let device = Device::flex();
        seed((rows * 1000 + columns) as u64);
        let parts = [spread, 1.0, 1.0].map(|spread| normal([rows, columns], spread, &device));
        let act = if silu { Gate::Silu } else { Gate::GeluTanh };
        let run = |dtype: DType| {
            let [gate, up, weights] = parts.clone().map(|part| leaf(&part, dtype, true));
            let view = |x: burn::tensor::Tensor<2>| if transposed { x.transpose() } else { x };
            let out = gated(view(gate.clone()), view(up.clone()), act);
            let grads = (out.clone() * view(weights)).sum().backward();
            [out.inner(), gate.grad(&grads).unwrap(), up.grad(&grads).unwrap()]
        };
        for (ours, theirs) in run(DType::F32).into_iter().zip(run(DType::F64)) {
            let worst = distance(ours, theirs);
            prop_assert!(worst < 3e-6, "{worst:e}");
        }
    }
}
