//! The frozen part of a backbone before all trained parameters. Its output for an image never changes, so it is
//! computed once per image instead of once per epoch.

use backbones::Vit;
use wegeft::Adapted;

use crate::train::recompute::trained_paths;

/// The extent of that part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prefix {
    /// Through this many blocks.
    Blocks(usize),
    /// Through the pooling, if only the head is trained.
    Whole,
}

/// Maximum memory for the tokens of a task's training images, bytes; if they need more, they are recomputed each time.
pub const MOST_BYTES: usize = 1 << 30;

/// The frozen prefix of `adapted`; `None` if something is trained before the second block, or at an unknown place.
/// Drop-path and augmentation make a prefix random; the caller must rule them out.
pub fn prefix(adapted: &Adapted<Vit>) -> Option<Prefix> {
    start_of_training(adapted).filter(|reach| *reach != Prefix::Blocks(0))
}

/// The position of the first trained parameter of `adapted`: after this many blocks, or after the pooling. `None` if it
/// may be before the first block, or at an unknown place.
pub fn start_of_training(adapted: &Adapted<Vit>) -> Option<Prefix> {
    let depth = adapted.backbone().blocks.len();
    let mut reach = Prefix::Whole;
    for path in trained_paths(adapted) {
        let mut parts = path.split('.');
        let here = match parts.next() {
            Some("head" | "head_dist") => Prefix::Whole,
            Some("norm" | "fc_norm") => Prefix::Blocks(depth),
            Some("blocks") => Prefix::Blocks(parts.next()?.parse().ok()?),
            _ => return None,
        };
        reach = reach.min(here);
    }
    Some(reach)
}

#[cfg(test)]
mod tests {
    use backbones::VitConfig;
    use burn::tensor::Device;
    use wegeft::AdapterConfig;

    use super::*;

    #[test]
    fn it_ends_where_training_starts() {
        let of = |config: AdapterConfig| {
            let model = VitConfig::new(16, 8, 12, 4, 3)
                .with_num_classes(2)
                .init(&Device::flex());
            let adapted = config.with_modules_to_save(["head"]).init(model).unwrap();
            (start_of_training(&adapted), prefix(&adapted))
        };
        let blocks = |count: usize| Some(Prefix::Blocks(count));
        let whole = Some(Prefix::Whole);
        let lora = || AdapterConfig::lora(2).with_target_modules(["attn.proj"]);
        assert_eq!(of(AdapterConfig::linear_probing()), (whole, whole));
        assert_eq!(of(AdapterConfig::full()), (None, None));
        assert_eq!(of(lora()), (blocks(0), None));
        assert_eq!(of(lora().with_layers_to_transform([2, 3])), (blocks(2), blocks(2)));
    }
}
