//! An adapter on its backbone.

use std::path::{Path, PathBuf};

use backbones::{Pretrained, Vit, load_vit, resolve};
use burn::tensor::Device;
use wegeft::Adapted;

use super::On;
use crate::description::Description;
use crate::load::load_adapted;
use crate::vtab::shipped_backbone;

/// An adapter folder, loaded onto its backbone.
pub struct Opened {
    /// The adapted model.
    pub adapted: Adapted<Vit>,
    /// What the backbone's files say.
    pub pretrained: Pretrained,
    /// What the folder says beside the adapter; none for an adapter made elsewhere.
    pub description: Option<Description>,
}

/// Loads the adapter and its backbone.
pub fn open(on: &On, device: &Device) -> Result<Opened, String> {
    let description = Description::read(&on.adapter)?;
    let own = description.as_ref().and_then(|d| d.backbone.as_ref());
    let path = backbone(on.backbone.as_ref().or(own))?;
    let size = description.as_ref().map(|d| d.image_size);
    let pretrained = load_vit(&path, size, 0.0, device).map_err(|e| e.to_string())?;
    Ok(Opened {
        adapted: load_adapted(pretrained.model.clone(), &on.adapter, device)?,
        pretrained,
        description,
    })
}

fn backbone(name: Option<&String>) -> Result<PathBuf, String> {
    match name {
        Some(name) => resolve(name).map_err(|e| e.to_string()),
        None => Ok(shipped_backbone()),
    }
}

impl Opened {
    /// Writes what the folder says beside the adapter into another one.
    pub fn describe(&self, folder: &Path) -> Result<(), String> {
        match &self.description {
            Some(description) => description.write(folder),
            None => Ok(()),
        }
    }
}
