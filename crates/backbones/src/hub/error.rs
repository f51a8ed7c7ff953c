//! Why a model could not be fetched, each reason in its own words.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a model could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Neither a path that exists nor a name of the form `org/name`.
    #[error("model '{0}' is neither a folder, a .safetensors file nor a name of the form org/name; check the path")]
    NoSuchPath(String),
    /// A local model whose files were being replaced when their writer was stopped.
    #[error(
        "{}: new files of the model are not all in their places yet, and cannot be put there: {reason}; run the command again \
         that wrote them",
        folder.display()
    )]
    Unfinished {
        /// Where they are.
        folder: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// A revision that is not a branch, tag or commit.
    #[error("revision '{0}' is not the name of a branch, tag or commit; give one after the @, such as org/name@main")]
    Revision(String),
    /// A name that cannot be fetched because the network is switched off.
    #[error("'{file}' of {name} is not in the cache and HF_HUB_OFFLINE is set; fetch it once without that setting")]
    Offline {
        /// Model.
        name: String,
        /// File.
        file: String,
    },
    /// The server did not give the file, or what it gave was not right.
    #[error("cannot fetch '{file}' of {name}: {reason}")]
    Fetch {
        /// Model.
        name: String,
        /// File.
        file: String,
        /// What went wrong.
        reason: FetchError,
    },
}

/// What went wrong with one file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// A token that cannot be sent.
    #[error(
        "the token in HF_TOKEN, or in the file 'token' of HF_HOME, has {found:?} as character {place}, which no token has; set \
         HF_TOKEN to the token alone"
    )]
    Token {
        /// The character.
        found: char,
        /// Where, from 1.
        place: usize,
    },
    /// 401.
    #[error(
        "the server asks for authentication (401): the model does not exist, is private or is gated; check the name, or set \
         HF_TOKEN to a token that may read it"
    )]
    Unauthorized,
    /// 403.
    #[error(
        "access is denied (403): accept the model's terms on its page, or set HF_TOKEN to a token that may read it"
    )]
    Forbidden,
    /// 404.
    #[error("the server has no such model, revision or file (404); check the name")]
    NotFound,
    /// 429.
    #[error("the server has had too many requests (429); try again {}", when(.0))]
    TooManyRequests(Option<Duration>),
    /// 5xx.
    #[error("the server failed ({0}); try again later")]
    Server(u16),
    /// Another status.
    #[error("the server answered with status {0}")]
    Status(u16),
    /// No connection, or it broke.
    #[error("{0}; check the network and HF_ENDPOINT")]
    Connection(String),
    /// Nothing came for that long.
    #[error("the server sent nothing for {} s; try again, or raise HF_HUB_DOWNLOAD_TIMEOUT", .0.as_secs_f64())]
    Stalled(Duration),
    /// Slower than the lowest accepted rate.
    #[error(
        "the server sent {bytes} bytes in {:.1} s, expected at least {least} a second; try again later, or set \
         WEGEFT_DOWNLOAD_RATE to a lower rate (0: any)", .time.as_secs_f64()
    )]
    Slow {
        /// Bytes that came.
        bytes: u64,
        /// The time that was waited for them.
        time: Duration,
        /// Bytes that should have come in each second.
        least: u64,
    },
    /// A redirect that is not followed.
    #[error("the server redirects {0}")]
    Redirect(String),
    /// A header that is missing or that no well-meaning server sends.
    #[error("the server's {header} header is {found}; expected {expected}")]
    Header {
        /// Name of the header.
        header: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// More or fewer bytes than the server announced.
    #[error("{found} bytes came; the server announced {expected}")]
    Size {
        /// Bytes that came.
        found: u64,
        /// Bytes that should have come.
        expected: u64,
    },
    /// Other bytes than those that were announced.
    #[error("its {kind} is {found}; the server announced {expected}")]
    Checksum {
        /// What kind of checksum it is.
        kind: &'static str,
        /// Of what came.
        found: String,
        /// Of what should have come.
        expected: String,
    },
    /// The branch moved between two requests.
    #[error("the model changed from commit {from} to {to} while it was fetched; run again")]
    Changed {
        /// Commit of the files before.
        from: String,
        /// Commit of this one.
        to: String,
    },
    /// The cache folder cannot be written.
    #[error("cannot write to the cache {path}: {message}; make room there, or set HF_HOME to another folder")]
    Cache {
        /// File or folder.
        path: String,
        /// What went wrong.
        message: String,
    },
    /// The file came, but cannot be used.
    #[error("{0}")]
    Content(String),
}

fn when(after: &Option<Duration>) -> String {
    match after {
        Some(after) => format!("in {} s", after.as_secs()),
        None => "later".to_string(),
    }
}
