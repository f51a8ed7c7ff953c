use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use wegeft::methods::lokr::{LokrConfig, LokrInit};
use wegeft::methods::wegeft::WegeftConfig;
use wegeft::{AdapterConfig, LoraConfig, LoraInit, Sharing, Side};

use crate::net::{Net, close, configs, input, stirred, turn, wegeft};

#[test]
fn any_low_rank_adapter_is_a_lora_of_the_same_function() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    for (config, _) in configs() {
        let adapted = stirred(&config, &Net::new(&device), &device);
        let lora = adapted.to_lora().unwrap();
        let x = input(2, &device);
        close(adapted.bind().forward(x.clone()), lora.bind().forward(x), 1e-4);
    }
}

#[test]
fn wegeft_to_lora_to_wegeft_to_lora_is_exact() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    let x = input(2, &device);
    for side in [Side::Input, Side::Output] {
        for sharing in [Sharing::Kind, Sharing::Site] {
            let settings = WegeftConfig::new(2)
                .with_alpha(3.0)
                .with_side(side)
                .with_sharing(sharing);
            let adapted = stirred(&wegeft(settings.clone()), &Net::new(&device), &device);
            let lora = adapted.to_lora().unwrap();
            let (back, report) = lora.nearest_wegeft(&settings).unwrap();
            assert!(report.lost() < 1e-5, "{side:?}: {report}");
            assert_eq!(report.sites.len(), 6);
            let expected = adapted.bind().forward(x.clone());
            close(back.bind().forward(x.clone()), expected.clone(), 1e-4);
            close(back.to_lora().unwrap().bind().forward(x.clone()), expected, 1e-4);
        }
    }
}

#[test]
fn the_nearest_wegeft_to_a_free_lora_loses_what_it_says_and_less_at_a_higher_rank() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    let net = Net::new(&device);
    let config = AdapterConfig::lora(2).with_target_modules(["proj", "up"]);
    let lora = stirred(&config, &net, &device);
    let lost = |r: usize, sharing: Sharing| {
        let settings = WegeftConfig::new(r).with_sharing(sharing);
        let (near, report) = lora.nearest_wegeft(&settings).unwrap();
        let (theirs, ours) = (lora.merge().unwrap(), near.merge().unwrap());
        let first = &report.sites[0];
        assert_eq!(first.site, "blocks.0.proj");
        let off = theirs.blocks[0].proj.weight.val() - ours.blocks[0].proj.weight.val();
        let off = off.powi_scalar(2).sum().into_scalar::<f32>().sqrt();
        assert!(
            (f64::from(off) - first.lost).abs() < 1e-4,
            "{off} against {}",
            first.lost
        );
        report.lost()
    };
    let (one, two, four, eight) = (
        lost(1, Sharing::Kind),
        lost(2, Sharing::Kind),
        lost(4, Sharing::Kind),
        lost(8, Sharing::Kind),
    );
    assert!(
        one < 1.0 && two < one && four <= two && eight <= four,
        "{one} {two} {four} {eight}"
    );
    // One generator a site with a square, regular weight can make any residual of its rank.
    let square = AdapterConfig::lora(2).with_target_modules(["proj"]);
    let lora = stirred(&square, &net, &device);
    let own = WegeftConfig::new(2).with_sharing(Sharing::Site);
    let (_, report) = lora.nearest_wegeft(&own).unwrap();
    assert!(report.lost() < 1e-4, "{report}");
    // A rank above the residual's is filled with zeros.
    let (_, report) = lora
        .nearest_wegeft(&WegeftConfig::new(5).with_sharing(Sharing::Site))
        .unwrap();
    assert!(report.lost() < 1e-4, "{report}");
}

#[derive(Module, Debug)]
struct Layer {
    up: Linear,
}

/// Nothing can be generated from zeros.
#[test]
fn an_adapter_of_weights_that_are_zero_is_lost_as_a_whole() {
    let _turn = turn();
    let mut model = Layer {
        up: LinearConfig::new(8, 6).init(&Device::flex()),
    };
    model.up.weight = model.up.weight.map(|weight| weight.mul_scalar(0.0));
    let lora = LoraConfig::new(2).with_init(LoraInit::Random);
    let adapted = AdapterConfig::new(lora)
        .with_target_modules(["up"])
        .init(model)
        .unwrap();
    for side in [Side::Input, Side::Output] {
        let settings = WegeftConfig::new(2).with_side(side);
        let (wegeft, report) = adapted.nearest_wegeft(&settings).unwrap();
        let site = &report.sites[0];
        assert!(
            site.norm > 0.0 && (site.lost - site.norm).abs() <= 1e-6 * site.norm,
            "{report}"
        );
        let residual = wegeft.merge().unwrap().up.weight.val().abs().max().into_scalar::<f32>();
        assert_eq!(residual, 0.0);
    }
}

/// A fresh LoKr's factors have many equal singular values, at which QR iteration stalls.
#[test]
fn equal_singular_values_are_converted_too() {
    let _turn = turn();
    let device = Device::flex();
    let settings = WegeftConfig::new(4).with_sharing(Sharing::Site);
    for _ in 0..3 {
        let model = Layer {
            up: LinearConfig::new(64, 64).init(&device),
        };
        let lokr = LokrConfig {
            init_weights: LokrInit::Zero(false),
            ..LokrConfig::new(2)
        };
        for (config, changes) in [(LokrConfig::new(2), false), (lokr, true)] {
            let config = AdapterConfig::new(config).with_target_modules(["up"]);
            let adapted = config.init(model.clone()).unwrap();
            let (wegeft, report) = adapted.nearest_wegeft(&settings).unwrap();
            let off = adapted.merge().unwrap().up.weight.val() - wegeft.merge().unwrap().up.weight.val();
            let off = f64::from(off.powi_scalar(2).sum().into_scalar::<f32>().sqrt());
            let site = &report.sites[0];
            assert_eq!(site.norm > 0.0, changes);
            // The weight is nearly singular in some directions, where f32 is coarse.
            let near = (off - site.lost).abs() <= 0.02 * site.norm;
            assert!(near, "{off} against {}", site.lost);
            assert!(site.lost <= 1.0001 * site.norm, "{report}");
        }
    }
}
