use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, FloatDType, Tensor};
use wegeft::{AdapterConfig, AdapterError};

use crate::net::{Net, close, configs, distance, input, stirred, turn};

/// Casts every float parameter.
struct Cast(FloatDType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(self.0))
    }
}

#[test]
fn merged_is_bound_and_the_report_says_what_changed() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    for (config, _) in configs() {
        let net = Net::new(&device);
        let adapted = stirred(&config, &net, &device);
        let x = input(2, &device);
        let (merged, report) = adapted.merge_with_report().unwrap();
        close(merged.forward(x.clone()), adapted.bind().forward(x), 1e-4);
        assert_eq!(
            report.changes.len(),
            adapted.bank().groups().iter().map(|g| g.sites.len()).sum::<usize>()
        );
        assert_eq!(report.rounding(), 0.0);
        let change = report.greatest().unwrap();
        assert!(change.greatest > 0.0 && change.relative > 0.0);
        let first = &report.changes[0];
        assert_eq!(first.site, "blocks.0.proj.weight");
        let moved = (merged.blocks[0].proj.weight.val() - net.blocks[0].proj.weight.val()).abs();
        let there = moved.slice([first.at[0]..first.at[0] + 1, first.at[1]..first.at[1] + 1]);
        assert!((f64::from(there.into_scalar::<f32>()) - first.greatest).abs() < 1e-6);
    }
}

#[test]
fn unmerging_gives_the_weights_back() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    for (config, invertible) in configs() {
        let net = Net::new(&device);
        let adapted = stirred(&config, &net, &device);
        let folder = tempfile::tempdir().unwrap();
        adapted.save(folder.path()).unwrap();
        let merged = adapted.merge().unwrap();
        // What a user has who lost the backbone: the merged model and the adapter's folder.
        let over = wegeft::read_config(folder.path())
            .unwrap()
            .init(merged.clone())
            .unwrap();
        let over = over.load_weights(folder.path()).unwrap();
        match over.unmerge() {
            Ok((back, report)) => {
                assert!(invertible, "{config:?}");
                for (a, b, m) in [
                    (&back.blocks[1].proj, &net.blocks[1].proj, &merged.blocks[1].proj),
                    (&back.blocks[0].up, &net.blocks[0].up, &merged.blocks[0].up),
                ] {
                    close(a.weight.val(), b.weight.val(), 1e-5);
                    assert!(distance(m.weight.val(), b.weight.val()) > 1e-3);
                }
                assert!(report.left() < 1e-5, "{}", report.left());
            }
            Err(error) => {
                assert!(
                    !invertible && matches!(error, AdapterError::NotInvertible { .. }),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn half_precision_weights_are_merged_in_f32_and_rounded_once() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    for (dtype, step) in [(FloatDType::BF16, 1.0 / 256.0), (FloatDType::F16, 1.0 / 2048.0)] {
        for (config, _) in configs() {
            let net = Net::new(&device);
            let adapted = stirred(&config, &net, &device);
            let folder = tempfile::tempdir().unwrap();
            adapted.save(folder.path()).unwrap();
            let half = net.clone().map(&mut Cast(dtype));
            let over = config.init(half.clone()).unwrap().load_weights(folder.path()).unwrap();
            let (merged, report) = over.merge_with_report().unwrap();
            assert_eq!(DType::from(dtype), merged.blocks[0].proj.weight.val().dtype());
            // The same residual on the same rounded weights, in f32 throughout.
            let wide = half.map(&mut Cast(FloatDType::F32));
            let wide = config
                .init(wide)
                .unwrap()
                .load_weights(folder.path())
                .unwrap()
                .merge()
                .unwrap();
            let exact = wide.blocks[0].proj.weight.val();
            let greatest = exact.clone().abs().max().into_scalar::<f32>();
            let rounded = merged.blocks[0].proj.weight.val().cast(FloatDType::F32);
            // Half of the spacing of neighbours is a step of the power of two below a value.
            let off = distance(rounded, exact);
            assert!(
                off <= 1.01 * step * greatest.max(1.0),
                "{off} {greatest} {dtype:?} {config:?}"
            );
            let all = wide
                .blocks
                .iter()
                .flat_map(|block| [&block.proj, &block.up, &block.down]);
            let greatest = all
                .map(|layer| layer.weight.val().abs().max().into_scalar::<f32>())
                .fold(1.0, f32::max);
            assert!(report.rounding() > 0.0 && report.rounding() <= f64::from(1.01 * step * greatest));
        }
    }
}

#[test]
fn values_that_are_not_finite_are_refused_by_name() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    let config = AdapterConfig::lora(2).with_target_modules(["up"]);
    let mut net = Net::new(&device);
    let damaged = net.blocks[1].up.weight.val().slice_fill([0..1, 0..2], f32::NAN);
    let damaged = Tensor::from_data(damaged.into_data(), &device);
    net.blocks[1].up.weight = Param::from_tensor(damaged);
    let error = config.init(net).unwrap().merge().unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("weight 'blocks.1.up.weight' would get 2 NaN or infinite elements"),
        "{error}"
    );
}
