//! Models by name: `org/name` is fetched from the Hugging Face Hub into the cache that its Python tools use.
//!
//! Environment: `HF_ENDPOINT` (another server), `HF_HOME` (cache), `HF_TOKEN` (gated models),
//! `HF_HUB_OFFLINE=1` (cache only).

use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

use crate::lm::shards::{INDEX, SINGLE, shard_names};

/// Why a model could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Neither a path that exists nor a name of the form `org/name`.
    #[error("model '{0}' is no folder, no .safetensors file and no name of the form org/name; check the path")]
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

/// What a vision model's folder has, and what it may have.
const VISION: (&[&str], &[&str]) = (&["config.json", "model.safetensors"], &["preprocessor_config.json"]);
/// What a language model's folder has beside its weights, and what it may have.
const LANGUAGE: (&[&str], &[&str]) = (
    &["config.json"],
    &[
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "chat_template.jinja",
    ],
);

/// The local path of a backbone: `backbone` itself if it exists, otherwise the cached folder of the model of that
/// name, fetched if need be with a progress bar. `name@revision` chooses a revision.
///
/// # Errors
/// A path that does not exist, a model or file that the server does not give.
pub fn resolve(backbone: &str) -> Result<PathBuf, HubError> {
    if Path::new(backbone).exists() {
        return Ok(PathBuf::from(backbone));
    }
    let model = HubModel::parse(backbone)?;
    for file in VISION.0 {
        model.file(file)?;
    }
    model.optional(VISION.1);
    model.folder()
}

/// As [`resolve`], for a language model: its weights in one file or in shards, its tokenizer and chat template.
///
/// # Errors
/// A path that does not exist, a model or file that the server does not give, an index that is malformed.
pub fn resolve_lm(model: &str) -> Result<PathBuf, HubError> {
    if Path::new(model).exists() {
        return Ok(PathBuf::from(model));
    }
    let model = HubModel::parse(model)?;
    for file in LANGUAGE.0 {
        model.file(file)?;
    }
    // A model in shards has no single file and the other way round: which of the two, only asking tells.
    if let Err(single) = model.file(SINGLE) {
        let index = model.file(INDEX).map_err(|_| single)?;
        let names = shard_names(&index).map_err(|error| HubError::Fetch {
            name: model.name.clone(),
            file: INDEX.to_string(),
            message: error.to_string(),
        })?;
        for name in names {
            model.file(&name)?;
        }
    }
    model.optional(LANGUAGE.1);
    model.folder()
}

/// The config.json of a backbone of any kind, to tell which: in the folder or beside the file `backbone`, or fetched
/// for the model of that name.
///
/// # Errors
/// A path that does not exist, a model that the server does not give.
pub fn config_file(backbone: &str) -> Result<PathBuf, HubError> {
    let path = Path::new(backbone);
    if path.is_file() {
        return Ok(path.with_file_name("config.json"));
    }
    match path.exists() {
        true => Ok(path.join("config.json")),
        false => HubModel::parse(backbone)?.file("config.json"),
    }
}

/// A model on the hub.
struct HubModel {
    name: String,
    repo: Repo,
    offline: bool,
}

impl HubModel {
    fn parse(text: &str) -> Result<Self, HubError> {
        let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
        let parts: Vec<&str> = name.split('/').collect();
        let plain = |part: &&str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        if parts.len() != 2 || !parts.iter().all(plain) {
            return Err(HubError::NoSuchPath(text.to_string()));
        }
        Ok(Self {
            name: name.to_string(),
            repo: Repo::with_revision(name.to_string(), RepoType::Model, revision.to_string()),
            offline: std::env::var("HF_HUB_OFFLINE").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false")),
        })
    }

    fn cached(&self, file: &str) -> Option<PathBuf> {
        Cache::from_env().repo(self.repo.clone()).get(file)
    }

    /// The file's path in the cache, fetched if need be.
    fn file(&self, file: &str) -> Result<PathBuf, HubError> {
        match self.cached(file) {
            Some(path) => Ok(path),
            None if self.offline => Err(HubError::Offline {
                name: self.name.clone(),
                file: file.to_string(),
            }),
            None => api()
                .and_then(|api| api.repo(self.repo.clone()).get(file))
                .map_err(|error| HubError::Fetch {
                    name: self.name.clone(),
                    file: file.to_string(),
                    message: error.to_string(),
                }),
        }
    }

    /// Files whose absence is normal; who needs one says so when it is read.
    fn optional(&self, files: &[&str]) {
        for file in files {
            let _ = self.file(file);
        }
    }

    fn folder(&self) -> Result<PathBuf, HubError> {
        let config = self.file("config.json")?;
        let folder = config.parent().map(Path::to_path_buf);
        folder.ok_or_else(|| HubError::NoSuchPath(self.name.clone()))
    }
}

fn api() -> Result<Api, ApiError> {
    let mut builder = ApiBuilder::from_env().with_progress(true).with_retries(3);
    if let Ok(token) = std::env::var("HF_TOKEN") {
        builder = builder.with_token(Some(token));
    }
    builder.build()
}
