//! One file into the cache: what is there of it is continued, what came is compared with what was announced, and only
//! then it gets its name.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use files::File;
use indicatif::{ProgressBar, ProgressStyle};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::cache::{ModelCache, failed, is_commit, is_name};
use super::client::{Answer, Client};
use super::error::FetchError;
use super::pace::{Pace, Window};

/// Tries of one request in a row that bring nothing, or too little.
const TRIES: u32 = 3;
/// Wait before the second try; twice as long before the third.
const WAIT: Duration = Duration::from_millis(500);
/// The longest Retry-After that is waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Bytes read at once.
const PIECE: usize = 1 << 16;

/// What the hub says about a file.
#[derive(Debug, Clone)]
pub(super) struct Announced {
    pub commit: String,
    etag: String,
    size: u64,
}

impl Announced {
    /// Of the first byte's answer.
    fn read(answer: &Answer) -> Result<Self, FetchError> {
        let (commit, etag) = identity(answer)?;
        Ok(Self {
            commit,
            etag,
            size: size(answer)?,
        })
    }

    /// Refuses the answer of another commit, or of other content.
    fn compare(&self, answer: &Answer) -> Result<(), FetchError> {
        let (commit, etag) = identity(answer)?;
        if commit != self.commit {
            return Err(FetchError::Changed {
                from: self.commit.clone(),
                to: commit,
            });
        }
        match etag == self.etag {
            true => Ok(()),
            false => Err(FetchError::Header {
                header: "ETag",
                found: format!("'{etag}'"),
                expected: "that of the first answer, as the file has changed meanwhile; run again",
            }),
        }
    }

    /// What the ETag is a checksum by: SHA-256 of large files, SHA-1 of those that git itself keeps.
    fn checksum(&self) -> Option<Sum> {
        if !self.etag.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        match self.etag.len() {
            64 => Some(Sum::Sha256),
            40 => Some(Sum::Sha1),
            _ => None,
        }
    }
}

/// A kind of checksum.
enum Sum {
    Sha256,
    Sha1,
}

/// The commit and the ETag that the hub says.
fn identity(answer: &Answer) -> Result<(String, String), FetchError> {
    let commit = name("X-Repo-Commit", answer.said("x-repo-commit"))?;
    // Of a large file the answer is a redirect with an ETag of its own; the file's is the linked one.
    let etag = answer.said("x-linked-etag").or(answer.said("etag"));
    let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
    Ok((commit, name("ETag", etag)?))
}

/// A header that becomes part of a path.
fn name(header: &'static str, value: Option<&str>) -> Result<String, FetchError> {
    match value {
        Some(value) if is_name(value) => Ok(value.to_string()),
        other => Err(FetchError::Header {
            header,
            found: other.map_or("missing".to_string(), |value| format!("'{}'", value.escape_debug())),
            expected: "a plain name",
        }),
    }
}

/// Bytes of the whole file.
fn size(answer: &Answer) -> Result<u64, FetchError> {
    let (header, value) = match answer.response.status().as_u16() {
        206 => {
            let range = answer.header("content-range");
            let total = range.map(|range| range.rsplit_once('/').map_or(range, |(_, total)| total));
            ("Content-Range", total)
        }
        _ => ("Content-Length", answer.header("content-length")),
    };
    let linked = answer.said("x-linked-size");
    let number = |value: Option<&str>| value.and_then(|value| value.trim().parse::<u64>().ok());
    let found = number(value).ok_or_else(|| FetchError::Header {
        header,
        found: value.map_or("missing".to_string(), |value| format!("'{}'", value.escape_debug())),
        expected: "the size of the file",
    })?;
    match number(linked) {
        Some(expected) if expected != found => Err(FetchError::Size { found, expected }),
        _ => Ok(found),
    }
}

/// `file` of the model at `revision` in the cache. `address`: where it is at a revision or commit. `expected`: the commit
/// of the files before.
pub(super) fn fetch(
    client: &Client,
    cache: &ModelCache,
    address: impl Fn(&str) -> String,
    (revision, file): (&str, &str),
    expected: Option<&str>,
) -> Result<(PathBuf, String), FetchError> {
    // The branch may move between two requests; a commit does not.
    let url = address(expected.filter(|commit| is_commit(commit)).unwrap_or(revision));
    let announced = patiently(|| Announced::read(&client.get(&url, 0, Some(0))?))?;
    if let Some(expected) = expected.filter(|expected| *expected != announced.commit) {
        return Err(FetchError::Changed {
            from: expected.to_string(),
            to: announced.commit,
        });
    }
    let blob = cache.blob(&announced.etag);
    let _lock = cache.lock(&announced.etag)?;
    // Another process may have fetched it meanwhile, or another commit has the same file.
    if !blob.is_file() {
        let url = match is_commit(&announced.commit) {
            true => address(&announced.commit),
            false => url,
        };
        download(client, &url, &announced, &blob, file)?;
    }
    let path = cache.publish(revision, &announced.commit, file, &announced.etag)?;
    Ok((path, announced.commit))
}

/// `try_once` until it works, fails for good, or has failed [`TRIES`] times.
pub(super) fn patiently<R>(mut try_once: impl FnMut() -> Result<R, FetchError>) -> Result<R, FetchError> {
    let mut tried = 1;
    loop {
        let error = match try_once() {
            Ok(result) => return Ok(result),
            Err(error) => error,
        };
        let wait = pause(&error, tried).filter(|_| tried < TRIES);
        let Some(wait) = wait else {
            return Err(error);
        };
        sleep(wait);
        tried += 1;
    }
}

/// How long to wait before another try, if that may help. A server that says nothing was waited for already.
fn pause(error: &FetchError, tried: u32) -> Option<Duration> {
    let usual = WAIT * (1 << (tried - 1).min(4));
    match error {
        FetchError::Connection(_) | FetchError::Server(_) | FetchError::Slow { .. } => Some(usual),
        FetchError::TooManyRequests(after) => Some(after.unwrap_or(usual)).filter(|wait| *wait <= LONGEST_WAIT),
        _ => None,
    }
}

/// The bytes into `blob`, by way of a file beside it that outlives a broken connection and a killed process.
fn download(client: &Client, url: &str, announced: &Announced, blob: &Path, file: &str) -> Result<(), FetchError> {
    let partial = blob.with_file_name(format!("{}.incomplete", announced.etag));
    let cached = |error: &io::Error| failed(&partial, error);
    let open = || -> io::Result<File> {
        files::create_folder(partial.parent().unwrap_or(&partial))?;
        File::update(&partial)
    };
    let mut out = open().map_err(|error| cached(&error))?;
    let bar = bar(announced.size, file);
    let mut tried = 1;
    let mut incoming = Incoming {
        pace: client.pace(),
        slow: 0,
        silent: false,
    };
    loop {
        let have = length(&mut out).map_err(|error| cached(&error))?;
        let complete = complete(client, url, announced, &mut out, have, &mut incoming, &bar);
        let Err(error) = complete.map_err(|error| cached(&error))? else {
            break;
        };
        // Another connection may be quicker.
        if let FetchError::Slow { .. } = error {
            match pause(&error, incoming.slow).filter(|_| incoming.slow < TRIES) {
                Some(wait) => sleep(wait),
                None => return Err(error),
            }
            continue;
        }
        // A server that sends a little and falls silent is given one more try.
        if let FetchError::Stalled(_) = error {
            let now = length(&mut out).map_err(|error| cached(&error))?;
            let little = now > have && now - have < client.least();
            if little && std::mem::replace(&mut incoming.silent, true) {
                return Err(error);
            }
            incoming.silent &= little;
        }
        // What is wrong is thrown away, whether it lay here or came.
        let wrong = matches!(error, FetchError::Size { .. } | FetchError::Checksum { .. });
        if wrong {
            out.set_len(0).map_err(|error| cached(&error))?;
        }
        let forward = !wrong && length(&mut out).map_err(|error| cached(&error))? > have;
        let wait = match forward || wrong {
            true => Some(Duration::ZERO),
            false => pause(&error, tried),
        };
        tried = if forward { 1 } else { tried + 1 };
        match wait {
            Some(wait) if tried <= TRIES => sleep(wait),
            _ if wrong => {
                // Nothing of it is worth keeping; that it cannot be removed matters to no one.
                let _ = files::remove_file(&partial);
                return Err(error);
            }
            _ => return Err(error),
        }
    }
    bar.finish_and_clear();
    let mut publish = || -> io::Result<()> {
        out.sync()?;
        files::move_file(&partial, blob)
    };
    publish().map_err(|error| failed(blob, &error))
}

/// What comes, over all connections.
struct Incoming {
    pace: Pace,
    /// Windows of time in a row in which too little came.
    slow: u32,
    /// The last connection brought little before it fell silent.
    silent: bool,
}

impl Incoming {
    fn came(&mut self, bytes: u64) -> Result<(), FetchError> {
        match self.pace.came(bytes) {
            Window::Open => Ok(()),
            Window::Enough => {
                self.slow = 0;
                Ok(())
            }
            Window::Slow(error) => {
                self.slow += 1;
                Err(error)
            }
        }
    }
}

fn length(file: &mut File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

/// Appends what is missing after `have` bytes, and compares the whole with what was announced. The outer error is the
/// disk's.
fn complete(
    client: &Client,
    url: &str,
    announced: &Announced,
    out: &mut File,
    have: u64,
    incoming: &mut Incoming,
    bar: &ProgressBar,
) -> io::Result<Result<(), FetchError>> {
    if have < announced.size {
        // A connection that brings a byte and breaks is as slow as one that goes on.
        let answer = incoming.pace.wait(|| client.get(url, have, None));
        let answer = match answer.and_then(|answer| incoming.came(0).map(|()| answer)) {
            Ok(answer) => answer,
            Err(error) => return Ok(Err(error)),
        };
        if let Err(error) = announced.compare(&answer) {
            return Ok(Err(error));
        }
        // A server that knows no ranges starts over.
        let first = match answer.response.status().as_u16() {
            206 => start(&answer).filter(|first| *first <= have),
            _ => Some(0),
        };
        let Some(first) = first else {
            let found = answer.header("content-range").unwrap_or_default();
            return Ok(Err(FetchError::Header {
                header: "Content-Range",
                found: format!("'{}'", found.escape_debug()),
                expected: "the bytes that were asked for",
            }));
        };
        out.set_len(first)?;
        if let Err(error) = append(client, answer, (first, announced.size), out, incoming, bar)? {
            return Ok(Err(error));
        }
    }
    verify(out, announced)
}

/// Appends the body of `answer`, which starts at byte `at` of `size`.
fn append(
    client: &Client,
    answer: Answer,
    (mut at, size): (u64, u64),
    out: &mut File,
    incoming: &mut Incoming,
    bar: &ProgressBar,
) -> io::Result<Result<(), FetchError>> {
    out.seek(SeekFrom::Start(at))?;
    let mut body = answer.response.into_body().into_reader();
    let mut piece = vec![0; PIECE];
    loop {
        bar.set_position(at);
        let count = match incoming.pace.wait(|| body.read(&mut piece)) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Ok(Err(client.broken(&error))),
        };
        at += count as u64;
        if at > size {
            return Ok(Err(FetchError::Size {
                found: at,
                expected: size,
            }));
        }
        out.write_all(&piece[..count])?;
        if let (true, Err(error)) = (at < size, incoming.came(count as u64)) {
            return Ok(Err(error));
        }
    }
    Ok(match at == size {
        true => Ok(()),
        false => Err(FetchError::Connection(format!(
            "the connection ended after {at} of {size} bytes"
        ))),
    })
}

/// First byte of a partial answer.
fn start(answer: &Answer) -> Option<u64> {
    let range = answer.header("content-range")?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.trim().parse().ok()
}

/// Whether the whole file is what was announced.
fn verify(file: &mut File, announced: &Announced) -> io::Result<Result<(), FetchError>> {
    let found = length(file)?;
    if found != announced.size {
        let expected = announced.size;
        return Ok(Err(FetchError::Size { found, expected }));
    }
    let expected = &announced.etag;
    let (kind, found) = match announced.checksum() {
        None => return Ok(Ok(())),
        Some(Sum::Sha256) => ("SHA-256", hashed(file, Sha256::new())?),
        Some(Sum::Sha1) => {
            let git = hashed(file, Sha1::new_with_prefix(format!("blob {found}\0")))?;
            // Some servers that stand for the hub have the SHA-1 of the content alone.
            if !git.eq_ignore_ascii_case(expected) && hashed(file, Sha1::new())?.eq_ignore_ascii_case(expected) {
                return Ok(Ok(()));
            }
            ("SHA-1, as git has it,", git)
        }
    };
    Ok(match found.eq_ignore_ascii_case(expected) {
        true => Ok(()),
        false => Err(FetchError::Checksum {
            kind,
            found,
            expected: expected.clone(),
        }),
    })
}

/// `hash` of the whole file, hexadecimal.
fn hashed<D: Digest>(file: &mut File, mut hash: D) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => hash.update(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn bar(size: u64, file: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let bar = ProgressBar::new(size).with_message(file.to_string());
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
