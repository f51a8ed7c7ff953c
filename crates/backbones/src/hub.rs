//! Models by name: `org/name` is fetched from the Hugging Face Hub into the cache that its Python tools use.
//!
//! Environment: `HF_ENDPOINT` (another server), `HF_HOME` or `HF_HUB_CACHE` (cache), `HF_TOKEN` or the `token` file in
//! `HF_HOME` (gated models), `HF_HUB_OFFLINE=1` (cache only), `HF_HUB_DOWNLOAD_TIMEOUT` (seconds to wait for a
//! server that sends nothing, 10 by default), `WEGEFT_DOWNLOAD_RATE` (bytes per second, averaged over a minute, below
//! which a download is given up; 1000 by default, 0 for no limit).
//!
//! The token is sent to that server only, never to hosts it redirects to. Downloads are checked against the announced size
//! and the checksum that the ETag is: SHA-256 of large files, git's SHA-1 of others; interrupted downloads are resumed; a
//! file gets its final name only when it is complete. Several processes may fetch the same model at once.

mod cache;
mod client;
mod download;
mod error;
mod pace;
#[cfg(test)]
mod tests;

use std::cell::{OnceCell, RefCell};
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::lm::chat_template::FURTHER;
use crate::lm::shards::{INDEX, SINGLE, TORCH, TORCH_INDEX, shard_names};
use cache::{ModelCache, is_inside};
use client::Client;
pub use error::{FetchError, HubError};
use pace::Rate;

/// How long to wait for a server that sends nothing.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a vision model's folder has beside its weights, and what it may have.
const VISION: (&[&str], &[&str]) = (&["config.json"], &["preprocessor_config.json", "processor_config.json"]);
/// What a language model's folder has beside its weights, and what it may have.
const LANGUAGE: (&[&str], &[&str]) = (
    &["config.json"],
    &[
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "generation_config.json",
        "chat_template.jinja",
        "chat_template.json",
    ],
);

/// The local path of a backbone: `backbone` itself if it exists, otherwise the cached folder of the model of that
/// name, fetched if need be with a progress bar. `name@revision` chooses a revision.
///
/// # Errors
/// A path that does not exist, a model or file that the server does not provide, or a download that fails.
pub fn resolve(backbone: &str) -> Result<PathBuf, HubError> {
    if Path::new(backbone).exists() {
        return whole(backbone);
    }
    HubModel::parse(backbone, Hub::from_env())?.all(VISION)
}

/// As [`resolve`], for a language model: its weights in one file or in shards, its tokenizer and chat template.
///
/// # Errors
/// A path that does not exist, a model or file that the server does not provide, or a malformed index.
pub fn resolve_lm(model: &str) -> Result<PathBuf, HubError> {
    if Path::new(model).exists() {
        return whole(model);
    }
    HubModel::parse(model, Hub::from_env())?.language()
}

/// The model at `path`, all its files in their places: a process that was writing it may have been killed when it had moved
/// only some of them.
fn whole(path: &str) -> Result<PathBuf, HubError> {
    let path = PathBuf::from(path);
    let folder = match path.is_dir() {
        true => path.as_path(),
        false => path.parent().unwrap_or(Path::new("")),
    };
    files::finish(folder).map_err(|reason| HubError::Unfinished {
        folder: folder.to_path_buf(),
        reason,
    })?;
    Ok(path)
}

/// The config.json of a backbone of any kind, to tell which: in the folder or beside the file `backbone`, or fetched
/// for the model of that name.
///
/// # Errors
/// A path that does not exist, or a model that the server does not provide.
pub fn config_file(backbone: &str) -> Result<PathBuf, HubError> {
    let path = Path::new(backbone);
    if path.is_file() {
        return Ok(whole(backbone)?.with_file_name("config.json"));
    }
    match path.exists() {
        true => Ok(whole(backbone)?.join("config.json")),
        false => HubModel::parse(backbone, Hub::from_env())?.file("config.json"),
    }
}

/// The server and the cache.
#[derive(Debug, Clone)]
struct Hub {
    endpoint: String,
    cache: PathBuf,
    token: Option<String>,
    timeout: Duration,
    rate: Rate,
    offline: bool,
}

impl Hub {
    fn from_env() -> Self {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.trim().is_empty());
        let home = set("HF_HOME").map(PathBuf::from).unwrap_or_else(|| {
            let cache = set("XDG_CACHE_HOME").map(PathBuf::from);
            let cache = cache.or_else(|| Some(env::home_dir()?.join(".cache")));
            cache.unwrap_or_default().join("huggingface")
        });
        // A token that is not text is refused by name when it is to be sent.
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
        let of_variable = env::var_os("HF_TOKEN").map(|token| text(token.as_encoded_bytes()));
        let token = of_variable
            .filter(|token| !token.is_empty())
            .or_else(|| Some(text(&std::fs::read(home.join("token")).ok()?)));
        let seconds = set("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|value| value.trim().parse::<u64>().ok());
        let rate = set("WEGEFT_DOWNLOAD_RATE").and_then(|value| value.trim().parse().ok());
        let offline = set("HF_HUB_OFFLINE").unwrap_or_default().to_lowercase();
        Self {
            endpoint: set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_string()),
            cache: set("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
            token: token.filter(|token| !token.is_empty()),
            timeout: seconds
                .filter(|seconds| *seconds > 0)
                .map_or(TIMEOUT, Duration::from_secs),
            rate: Rate {
                bytes: rate.unwrap_or(Rate::USUAL.bytes),
                ..Rate::USUAL
            },
            offline: !matches!(offline.as_str(), "" | "0" | "false" | "no" | "off"),
        }
    }
}

/// A model on the hub.
#[derive(Debug)]
struct HubModel {
    name: String,
    revision: String,
    hub: Hub,
    cache: ModelCache,
    client: OnceCell<Client>,
    /// The commit that the files are of, once one is known: all come from the same.
    commit: RefCell<Option<String>>,
}

impl HubModel {
    fn parse(text: &str, hub: Hub) -> Result<Self, HubError> {
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
        if !is_inside(revision) || revision.chars().any(char::is_control) {
            return Err(HubError::Revision(revision.escape_debug().to_string()));
        }
        let cache = ModelCache::new(&hub.cache, name);
        Ok(Self {
            name: name.to_string(),
            revision: revision.to_string(),
            commit: RefCell::new(cache.commit(revision)),
            client: OnceCell::new(),
            cache,
            hub,
        })
    }

    /// The file's path in the cache, fetched if need be.
    fn file(&self, file: &str) -> Result<PathBuf, HubError> {
        let known = self.commit.borrow().clone();
        if !is_inside(file) {
            return Err(self.failed(
                file,
                FetchError::Content("its name is not a path within the model".to_string()),
            ));
        }
        if let Some(path) = known.as_ref().and_then(|commit| self.cache.file(commit, file)) {
            return Ok(path);
        }
        if self.hub.offline {
            return Err(HubError::Offline {
                name: self.name.clone(),
                file: file.to_string(),
            });
        }
        let client = self.client();
        let address = |revision: &str| client.url(&self.name, revision, file);
        let fetched = download::fetch(client, &self.cache, address, (&self.revision, file), known.as_deref());
        let (path, commit) = fetched.map_err(|reason| self.failed(file, reason))?;
        self.commit.replace(Some(commit));
        Ok(path)
    }

    /// Files whose absence is normal; whatever needs one reports it when it reads it.
    fn optional(&self, files: &[&str]) -> Result<(), HubError> {
        // All that is needed lay in the cache: a file that was not asked for when it was filled is not worth a failure.
        let cached = self.client.get().is_none();
        for file in files {
            let commit = self.commit.borrow().clone().unwrap_or_default();
            if self.cache.has_no(&commit, file) {
                continue;
            }
            match self.file(file) {
                Err(HubError::Fetch {
                    reason: FetchError::Connection(_) | FetchError::Stalled(_) | FetchError::Token { .. },
                    ..
                }) if cached => {}
                Err(error) if !is_absence(&error) => return Err(error),
                Err(HubError::Fetch { .. }) => self.cache.note_absence(&commit, file),
                _ => {}
            }
        }
        Ok(())
    }

    fn language(&self) -> Result<PathBuf, HubError> {
        let folder = self.all(LANGUAGE)?;
        self.templates(&folder)?;
        Ok(folder)
    }

    /// The chat templates beside the first one, which have names of their own: the server is asked which there are.
    fn templates(&self, folder: &Path) -> Result<(), HubError> {
        let commit = self.commit.borrow().clone().unwrap_or_default();
        if self.hub.offline || self.cache.has_no(&commit, FURTHER) || folder.join(FURTHER).is_dir() {
            return Ok(());
        }
        match download::patiently(|| self.client().list(&self.name, &commit, FURTHER)) {
            Ok(files) => files
                .iter()
                .filter(|file| file.ends_with(".jinja"))
                .try_for_each(|file| self.file(file).map(drop)),
            Err(FetchError::NotFound) => {
                self.cache.note_absence(&commit, FURTHER);
                Ok(())
            }
            Err(reason) => Err(self.failed(FURTHER, reason)),
        }
    }

    fn client(&self) -> &Client {
        let new = || {
            Client::new(
                &self.hub.endpoint,
                self.hub.token.clone(),
                self.hub.timeout,
                self.hub.rate,
            )
        };
        self.client.get_or_init(new)
    }

    /// The folder with the weights, the files that it must have and those that it may have.
    fn all(&self, (needed, optional): (&[&str], &[&str])) -> Result<PathBuf, HubError> {
        for file in needed {
            self.file(file)?;
        }
        self.weights()?;
        self.optional(optional)?;
        self.folder()
    }

    /// The weights: safetensors, or else PyTorch's own. A model in shards has no single file and the other way round:
    /// which of the two, only asking tells.
    fn weights(&self) -> Result<(), HubError> {
        let mut first = None;
        for (single, index) in [(SINGLE, INDEX), (TORCH, TORCH_INDEX)] {
            match self.file(single) {
                Ok(_) => return Ok(()),
                Err(error) if is_absence(&error) => first = first.or(Some(error)),
                Err(error) => return Err(error),
            }
            match self.file(index) {
                Ok(path) => {
                    let names = shard_names(&path);
                    let names = names.map_err(|error| self.failed(index, FetchError::Content(error.to_string())))?;
                    return names.iter().try_for_each(|name| self.file(name).map(drop));
                }
                Err(error) if is_absence(&error) => {}
                Err(error) => return Err(error),
            }
        }
        first.map_or(Ok(()), Err)
    }

    fn folder(&self) -> Result<PathBuf, HubError> {
        let config = self.file("config.json")?;
        let folder = config.parent().map(Path::to_path_buf);
        folder.ok_or_else(|| HubError::NoSuchPath(self.name.clone()))
    }

    fn failed(&self, file: &str, reason: FetchError) -> HubError {
        HubError::Fetch {
            name: self.name.clone(),
            file: file.escape_debug().to_string(),
            reason,
        }
    }
}

/// True if the model has no such file, or the cache has not and may not ask.
fn is_absence(error: &HubError) -> bool {
    matches!(
        error,
        HubError::Offline { .. }
            | HubError::Fetch {
                reason: FetchError::NotFound,
                ..
            }
    )
}
