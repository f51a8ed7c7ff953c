//! Models by name: `org/name` is fetched from the Hugging Face Hub into the cache that its Python tools use.
//!
//! Environment: `HF_ENDPOINT` (another server), `HF_HOME` (cache), `HF_TOKEN` (gated models),
//! `HF_HUB_OFFLINE=1` (cache only).

use std::path::{Path, PathBuf};

use hf_hub::api::sync::{ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

/// Why a model could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Neither a path that exists nor a name of the form `org/name`.
    #[error("backbone '{0}' is no folder, no .safetensors file and no name of the form org/name; check the path")]
    NoSuchPath(String),
    /// A name that cannot be fetched because the network is switched off.
    #[error("'{file}' of {name} is not in the cache and HF_HUB_OFFLINE is set; fetch it once without that setting")]
    Offline {
        /// Model.
        name: String,
        /// File.
        file: String,
    },
    /// The server, the network or the cache folder failed.
    #[error("cannot fetch '{file}' of {name}: {message}; for a gated model set HF_TOKEN")]
    Fetch {
        /// Model.
        name: String,
        /// File.
        file: String,
        /// What went wrong.
        message: String,
    },
}

/// Files that every model folder has, and one that it may have.
const REQUIRED: [&str; 2] = ["config.json", "model.safetensors"];
const OPTIONAL: &str = "preprocessor_config.json";

/// The local path of a backbone: `backbone` itself if it exists, otherwise the cached folder of the model of that
/// name, fetched if need be with a progress bar. `name@revision` chooses a revision.
///
/// # Errors
/// A path that does not exist, a model or file that the server does not give.
pub fn resolve(backbone: &str) -> Result<PathBuf, HubError> {
    if Path::new(backbone).exists() {
        return Ok(PathBuf::from(backbone));
    }
    let (name, revision) = backbone.split_once('@').unwrap_or((backbone, "main"));
    let parts: Vec<&str> = name.split('/').collect();
    let plain = |part: &&str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    if parts.len() != 2 || !parts.iter().all(plain) {
        return Err(HubError::NoSuchPath(backbone.to_string()));
    }
    let repo = Repo::with_revision(name.to_string(), RepoType::Model, revision.to_string());
    let cached = |file: &str| Cache::from_env().repo(repo.clone()).get(file);
    let offline = std::env::var("HF_HUB_OFFLINE").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"));
    let failed = |file: &str, error: ApiError| HubError::Fetch {
        name: name.to_string(),
        file: file.to_string(),
        message: error.to_string(),
    };
    let mut folder = None;
    for file in REQUIRED {
        let path = match cached(file) {
            Some(path) => path,
            None if offline => {
                return Err(HubError::Offline {
                    name: name.to_string(),
                    file: file.to_string(),
                });
            }
            None => api()
                .and_then(|api| api.repo(repo.clone()).get(file))
                .map_err(|e| failed(file, e))?,
        };
        folder = path.parent().map(Path::to_path_buf);
    }
    // Its absence is normal: the model's own default normalisation is used then.
    if !offline && cached(OPTIONAL).is_none() {
        let _ = api().and_then(|api| api.repo(repo.clone()).get(OPTIONAL));
    }
    folder.ok_or_else(|| HubError::NoSuchPath(backbone.to_string()))
}

fn api() -> Result<hf_hub::api::sync::Api, ApiError> {
    let mut builder = ApiBuilder::from_env().with_progress(true).with_retries(3);
    if let Ok(token) = std::env::var("HF_TOKEN") {
        builder = builder.with_token(Some(token));
    }
    builder.build()
}
