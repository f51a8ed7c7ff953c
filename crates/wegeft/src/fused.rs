//! Fused weights: the column blocks that are adapted, each a site of its own.

use crate::error::AdapterError;
use crate::site::{BlockOf, ParamInfo, Site, SiteKind, name_matches};
use crate::targets::{Fused, Targets};

impl Targets {
    /// Refuses an entry of `fused` that names none of the `chosen` weights or one that has no blocks, and a weight that two
    /// entries name.
    pub(crate) fn check_fused<'a>(
        &self,
        chosen: impl Iterator<Item = (&'a ParamInfo, SiteKind)> + Clone,
    ) -> Result<(), AdapterError> {
        let bad = |name: &str, message: String| Err(AdapterError::bad_field("fused", format!("'{name}' {message}")));
        for (index, fused) in self.fused.iter().enumerate() {
            let mut named = chosen
                .clone()
                .filter(|(param, _)| name_matches(param.name(), &fused.module));
            if named.clone().next().is_none() {
                return bad(
                    &fused.module,
                    "is not among the target_modules; add it there".to_string(),
                );
            }
            if fused.adapt.is_empty() {
                return bad(
                    &fused.module,
                    "adapts no block; name some of its blocks in adapt".to_string(),
                );
            }
            let unfit =
                |(param, kind): &(&ParamInfo, SiteKind)| *kind != SiteKind::Matrix || !param.path.ends_with(".weight");
            if let Some((param, kind)) = named.clone().find(unfit) {
                let what = match kind {
                    SiteKind::Matrix => "a parameter outside a linear layer".to_string(),
                    kind => kind.to_string(),
                };
                return bad(
                    &param.path,
                    format!("is {what}, but only weights of linear layers have blocks"),
                );
            }
            let other = |(param, _): &(&ParamInfo, SiteKind)| {
                let mut others = self.fused[..index].iter();
                others.any(|other| name_matches(param.name(), &other.module))
            };
            if let Some((param, _)) = named.find(other) {
                return bad(param.name(), "is named by two entries; keep one".to_string());
            }
        }
        Ok(())
    }
}

/// The adapted blocks of a fused weight, each a site.
pub(crate) fn blocks(whole: &Site, fused: &Fused) -> Result<Vec<Site>, AdapterError> {
    let bad = |message: String| Err(AdapterError::bad_field("fused", format!("'{}': {message}", whole.path)));
    let count = fused.blocks.len();
    let widths = match fused.widths.is_empty() {
        true if count == 0 || !whole.d_out.is_multiple_of(count) => {
            return bad(format!(
                "its {} columns cannot be split into {count} equal blocks; set widths",
                whole.d_out
            ));
        }
        true => vec![whole.d_out / count; count],
        false => fused.widths.clone(),
    };
    if let Some(name) = twice(&fused.blocks) {
        return bad(format!(
            "two of its blocks are called '{name}'; give each a name of its own"
        ));
    }
    if let Some(name) = twice(&fused.adapt) {
        return bad(format!("adapt names its block '{name}' twice; name it once"));
    }
    let sum = widths.iter().try_fold(0usize, |sum, width| sum.checked_add(*width));
    if widths.len() != count || sum != Some(whole.d_out) {
        return bad(format!(
            "widths {widths:?} must be {count} numbers that add up to its {} columns",
            whole.d_out
        ));
    }
    if let Some(unknown) = fused.adapt.iter().find(|name| !fused.blocks.contains(name)) {
        return bad(format!(
            "it has no block '{unknown}'; choose from {}",
            fused.blocks.join(", ")
        ));
    }
    let mut named = fused.blocks.iter().zip(&widths);
    if let Some((empty, _)) = named.find(|(name, width)| **width == 0 && fused.adapt.contains(name)) {
        return bad(format!(
            "its block '{empty}' has no columns; give it a width, or do not adapt it"
        ));
    }
    let mut start = 0;
    let mut sites = Vec::new();
    for (name, width) in fused.blocks.iter().zip(widths) {
        if fused.adapt.contains(name) {
            sites.push(Site {
                d_out: width,
                block: Some(BlockOf {
                    name: name.clone(),
                    start,
                    whole: whole.d_out,
                }),
                ..whole.clone()
            });
        }
        start += width;
    }
    Ok(sites)
}

/// The first name that a list has twice.
fn twice(names: &[String]) -> Option<&String> {
    let mut places = names.iter().enumerate();
    let (_, name) = places.find(|(index, name)| names[..*index].contains(name))?;
    Some(name)
}
