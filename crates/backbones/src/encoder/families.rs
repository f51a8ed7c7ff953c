//! The list of families.

use burn::module::Module;
use burn::tensor::Device;

use super::bert::{self, Bert};
use super::config::EncoderConfig;
use super::deberta::{self, Deberta};
use super::distilbert::{self, DistilBert};
use super::family::Family;
use super::modernbert::{self, ModernBert};
use super::{electra, roberta};

/// The modules of the families.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // one per model and not moved about; Burn's derive takes no box
pub(crate) enum Body {
    Bert(Bert),
    DistilBert(DistilBert),
    Deberta(Deberta),
    ModernBert(ModernBert),
}

/// A randomly initialized encoder of the family.
type Build = fn(&EncoderConfig, &Device) -> Body;

/// The only list of families.
const FAMILIES: [(&Family, Build); 6] = [
    (&bert::FAMILY, |config, device| Body::Bert(bert::build(config, device))),
    (&roberta::FAMILY, |config, device| {
        Body::Bert(bert::build(config, device))
    }),
    (&distilbert::FAMILY, |config, device| {
        Body::DistilBert(distilbert::build(config, device))
    }),
    (&electra::FAMILY, |config, device| {
        Body::Bert(bert::build(config, device))
    }),
    (&deberta::FAMILY, |config, device| {
        Body::Deberta(deberta::build(config, device))
    }),
    (&modernbert::FAMILY, |config, device| {
        Body::ModernBert(modernbert::build(config, device))
    }),
];

fn entry(model_type: &str) -> Option<(&'static Family, Build)> {
    let named = |(family, _): &(&Family, Build)| family.model_types.iter().any(|(name, _)| *name == model_type);
    FAMILIES.into_iter().find(named)
}

/// The family of a `model_type`.
pub(crate) fn family(model_type: &str) -> Option<&'static Family> {
    entry(model_type).map(|(family, _)| family)
}

/// The modules that a config describes, randomly initialized.
pub(super) fn build(config: &EncoderConfig, device: &Device) -> Body {
    let (_, build) = entry(&config.model_type).expect("a config names a family that is implemented");
    build(config, device)
}

/// Every `model_type`, for messages.
pub(crate) fn model_types() -> impl Iterator<Item = &'static str> {
    FAMILIES
        .into_iter()
        .flat_map(|(family, _)| family.model_types)
        .map(|(name, _)| *name)
}
