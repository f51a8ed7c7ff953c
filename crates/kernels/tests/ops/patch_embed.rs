use burn::tensor::{DType, Device, Tensor, TensorData};
use kernels::patch_embed;
use proptest::prelude::*;

use super::{distance, leaf, normal, seed};

/// Tokens and the gradients of images, weight and bias, where required.
fn run(
    pixels: &Tensor<4>,
    weight: &Tensor<4>,
    bias: Option<&Tensor<1>>,
    required: [bool; 2],
    dtype: DType,
) -> Vec<Tensor<1>> {
    let pixels = leaf(pixels, dtype, required[0]);
    let weight = leaf(weight, dtype, required[1]);
    let bias = bias.map(|bias| leaf(bias, dtype, required[1]));
    let out = patch_embed(pixels.clone(), weight.clone(), bias.clone());
    let mut results = vec![out.clone().inner().flatten(0, 2)];
    if required.contains(&true) {
        // The same for both dtypes: cosines of the rounded outputs would hide how exact the sums are.
        let count = out.dims().iter().product::<usize>();
        let weights = (0..count).map(|index| (index as f32).cos()).collect::<Vec<_>>();
        let weights = Tensor::<3>::from_data(TensorData::new(weights, out.dims()), (&out.device(), dtype));
        let grads = (out * weights).sum().backward();
        results.extend(required[0].then(|| pixels.grad(&grads).unwrap().flatten(0, 3)));
        results.extend(required[1].then(|| weight.grad(&grads).unwrap().flatten(0, 3)));
        results.extend(bias.filter(|_| required[1]).map(|bias| bias.grad(&grads).unwrap()));
    }
    results
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn agrees(
        batch in 1usize..4,
        channels in 1usize..4,
        patch in 1usize..9,
        rows in 1usize..6,
        columns in prop_oneof![1usize..6, Just(230usize)],
        d in 1usize..40,
        biased: bool,
        of_pixels: bool,
        of_weight: bool,
        transposed: bool,
    ) {
        let device = Device::flex();
        seed((batch * 7919 + rows * 104_729 + d) as u64);
        let pixels = match transposed {
            true => normal([batch, channels, columns * patch, rows * patch], 1.0, &device).swap_dims(2, 3),
            false => normal([batch, channels, rows * patch, columns * patch], 1.0, &device),
        };
        let weight = normal([d, channels, patch, patch], 1.0, &device);
        let bias = biased.then(|| normal([d], 1.0, &device));
        let both = [DType::F32, DType::F64]
            .map(|dtype| run(&pixels, &weight, bias.as_ref(), [of_pixels, of_weight], dtype));
        let [ours, theirs] = both;
        prop_assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.into_iter().zip(theirs) {
            let worst = distance(ours, theirs);
            prop_assert!(worst < 3e-5, "{worst:e}");
        }
    }
}
