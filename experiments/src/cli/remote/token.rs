//! The secret that a worker and those who may use it share. It is read from a file or from the environment, never from the
//! command line, which every user of a machine can see, and it is never printed or saved.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::cli::output::note;

/// The environment variable that may hold it.
const VARIABLE: &str = "WEGEFT_TOKEN";

/// Whoever guesses it runs programs on the worker's device, so short ones are refused.
const SHORTEST: usize = 16;
const LONGEST: usize = 4096;

static FILE: OnceLock<PathBuf> = OnceLock::new();

/// A token. It has no `Debug`, so that no message can show it.
pub struct Token(String);

impl Token {
    /// Itself.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// Names the file of the token of this process, once, at its start.
pub fn set_file(path: &Path) {
    // Those that a process of --jobs starts later get the same one.
    let _ = FILE.set(path.to_path_buf());
}

/// The file of the token, if --token-file named one.
pub fn file() -> Option<&'static Path> {
    FILE.get().map(PathBuf::as_path)
}

/// Where the token comes from, for messages.
pub fn source() -> String {
    match file() {
        Some(path) => format!("--token-file {}", path.display()),
        None => VARIABLE.into(),
    }
}

/// The token in `file` or else in the environment.
///
/// # Errors
/// None, a file that cannot be read, a token too short to be a secret.
pub fn read(file: Option<&Path>) -> Result<Token, String> {
    match file {
        Some(path) => {
            let place = format!("--token-file {}", path.display());
            let mut text = String::new();
            let opened = File::open(path).and_then(|file| {
                warn_of_readers(&file, path);
                file.take(LONGEST as u64 + 1).read_to_string(&mut text)
            });
            opened.map_err(|e| format!("{place}: {e}"))?;
            checked(&place, &text)
        }
        None => match std::env::var(VARIABLE) {
            Ok(text) => checked(VARIABLE, &text),
            Err(std::env::VarError::NotPresent) => Err(format!(
                "a worker needs a token; give --token-file FILE, or set {VARIABLE}"
            )),
            Err(std::env::VarError::NotUnicode(_)) => Err(format!("{VARIABLE}: it is not text")),
        },
    }
}

fn checked(place: &str, text: &str) -> Result<Token, String> {
    let token = text.trim();
    let make = "make one with: head -c 24 /dev/urandom | base64";
    match token.len() {
        0 => Err(format!("{place}: it is empty; {make}")),
        length if length > LONGEST => Err(format!("{place}: a token has {LONGEST} characters at most")),
        _ if token.contains(char::is_control) => Err(format!("{place}: a token is one line of text; {make}")),
        length if length < SHORTEST => Err(format!("{place}: a token has {SHORTEST} characters or more; {make}")),
        _ => Ok(Token(token.to_string())),
    }
}

/// Says once that other users of this machine can read the file.
fn warn_of_readers(file: &File, path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        static ONCE: std::sync::Once = std::sync::Once::new();
        let open = file
            .metadata()
            .is_ok_and(|data| data.is_file() && data.mode() & 0o077 != 0);
        if open {
            ONCE.call_once(|| {
                note(format_args!(
                    "--token-file {0}: other users of this machine may read it; run: chmod 600 {0}",
                    path.display()
                ));
            });
        }
    }
    #[cfg(not(unix))]
    let _ = (file, path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_long_enough_line_and_no_message_shows_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let token = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(Some(&path)).map(|token| token.text().to_string())
        };
        assert_eq!(token("sixteen letters!\n"), Ok("sixteen letters!".into()));
        for (text, part) in [
            ("\n", "it is empty"),
            ("too short", "16 characters or more"),
            ("one line\nand another one", "one line"),
            (&"x".repeat(5000), "at most"),
        ] {
            let message = token(text).unwrap_err();
            assert!(message.contains(part) && message.contains("--token-file"), "{message}");
            assert!(text.trim().is_empty() || !message.contains(text.trim()), "{message}");
        }
        std::fs::write(&path, [0xff; 20]).unwrap();
        assert!(read(Some(&path)).is_err() && read(Some(dir.path())).is_err());
    }
}
