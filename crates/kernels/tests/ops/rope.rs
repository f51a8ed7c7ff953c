use burn::tensor::{DType, Device, Tensor};
use kernels::rope;
use proptest::prelude::*;

use super::{distance, leaf, normal, seed};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn agrees(
        batch in 1usize..4,
        heads in 1usize..4,
        tokens in 1usize..20,
        half in 1usize..20,
        rest in 0usize..5,
        by_token: bool,
        own_angles: bool,
    ) {
        let device = Device::flex();
        seed((batch * 1000 + tokens) as u64);
        let width = 2 * half + rest;
        let [second, third] = if by_token { [tokens, heads] } else { [heads, tokens] };
        let data = normal([batch, second, third, width], 1.0, &device);
        let angles = normal([if own_angles { batch } else { 1 }, 1, tokens, half], 3.0, &device);
        let weights = normal([batch, heads, tokens, width], 1.0, &device);
        let run = |dtype: DType| -> [Tensor<4>; 2] {
            let x = leaf(&data, dtype, true);
            let view = if by_token { x.clone().swap_dims(1, 2) } else { x.clone() };
            let angles = leaf(&angles, dtype, false);
            let out = rope(view, angles.clone().cos(), angles.sin());
            let grads = (out.clone() * leaf(&weights, dtype, false)).sum().backward();
            [out.inner(), x.grad(&grads).unwrap()]
        };
        for (ours, theirs) in run(DType::F32).into_iter().zip(run(DType::F64)) {
            let worst = distance(ours, theirs);
            prop_assert!(worst < 1e-6, "{worst:e}");
        }
    }
}
