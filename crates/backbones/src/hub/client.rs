//! Requests to the hub. Redirects are followed here and not by the HTTP library: the token is for the hub alone, and what
//! the hub says about a file (commit, ETag, size) stands in the answers on the way.

use std::io::Read;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body};

use super::error::FetchError;
use super::pace::{Pace, Rate, Window};

/// Redirects of one request at most.
const REDIRECTS: usize = 10;
/// For a connection to be made.
const CONNECT: Duration = Duration::from_secs(10);
const USER_AGENT: &str = concat!("wegeft-backbones/", env!("CARGO_PKG_VERSION"));

/// The hub, or a server that stands for it.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    origin: Option<Origin>,
    token: Option<String>,
    timeout: Duration,
    rate: Rate,
}

/// Bytes of a page of a list of files at most.
const LONGEST_LIST: u64 = 1 << 20;
/// Most pages of a list of files; a page lists a thousand.
const MOST_PAGES: usize = 20;

/// What a list of files says of one.
#[derive(Deserialize)]
struct Entry {
    path: String,
}

/// Scheme, host and port.
type Origin = (String, String, u16);

/// An answer, and what the hub said on the way to it.
pub(super) struct Answer {
    pub response: Response<Body>,
    /// Of the hub's answers alone: name in lower case, value.
    said: Vec<(String, String)>,
}

impl Answer {
    /// The first of the hub's headers of that name.
    pub fn said(&self, name: &str) -> Option<&str> {
        let found = self.said.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    /// A header of the last answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }
}

impl Client {
    /// `timeout`: how long nothing may come; `rate`: how little may come over a longer time.
    pub fn new(endpoint: &str, token: Option<String>, timeout: Duration, rate: Rate) -> Self {
        let config = Agent::config_builder()
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(USER_AGENT)
            .timeout_resolve(Some(timeout))
            .timeout_connect(Some(CONNECT.min(timeout)))
            .timeout_recv_response(Some(timeout))
            .timeout_per_read(Some(timeout))
            .timeout_per_write(Some(timeout))
            .build();
        let endpoint = endpoint.trim_end_matches('/').to_string();
        Self {
            agent: Agent::new_with_config(config),
            origin: endpoint.parse().ok().as_ref().and_then(origin),
            endpoint,
            token,
            timeout,
            // A server that may be silent for long has longer to make up for it.
            rate: Rate {
                window: rate.window.max(timeout.saturating_mul(6)),
                ..rate
            },
        }
    }

    /// Bytes that are to come in a window of time.
    pub fn least(&self) -> u64 {
        (self.rate.bytes as f64 * self.rate.window.as_secs_f64()) as u64
    }

    /// Starts to count what comes.
    pub fn pace(&self) -> Pace {
        Pace::new(self.rate)
    }

    /// Where `file` of the model `name` is at that revision.
    pub fn url(&self, name: &str, revision: &str, file: &str) -> String {
        let revision = encoded(revision, "");
        format!("{}/{name}/resolve/{revision}/{}", self.endpoint, encoded(file, "/"))
    }

    /// Paths of the files in `folder` of the model `name` at that commit.
    pub fn list(&self, name: &str, commit: &str, folder: &str) -> Result<Vec<String>, FetchError> {
        let inside = |path: &String| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        let mut files = Vec::new();
        let mut page = Some(format!("{}/api/models/{name}/tree/{commit}/{folder}", self.endpoint));
        let mut pages = 0;
        while let Some(url) = page {
            if pages == MOST_PAGES {
                let message = format!("its list of files has more than {MOST_PAGES} pages");
                return Err(FetchError::Content(message));
            }
            let (entries, next) = self.page(&url)?;
            files.extend(entries.into_iter().map(|entry| entry.path).filter(inside));
            (page, pages) = (next, pages + 1);
        }
        Ok(files)
    }

    /// A page of a list of files, and where the next one is.
    fn page(&self, url: &str) -> Result<(Vec<Entry>, Option<String>), FetchError> {
        let answer = self.get(url, 0, None)?;
        let next = match (answer.header("link").and_then(next_page), url.parse::<Uri>()) {
            (Some(next), Ok(here)) => Some(redirected(&here, next)?.to_string()),
            _ => None,
        };
        let mut text = Vec::new();
        let mut body = answer.response.into_body().into_reader().take(LONGEST_LIST);
        let mut pace = self.pace();
        let mut piece = [0; 4096];
        loop {
            match pace.wait(|| body.read(&mut piece)) {
                Ok(0) => break,
                Ok(count) => {
                    text.extend_from_slice(&piece[..count]);
                    if let Window::Slow(error) = pace.came(count as u64) {
                        return Err(error);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(&error)),
            }
        }
        let entries: Vec<Entry> = serde_json::from_slice(&text)
            .map_err(|error| FetchError::Content(format!("no list of files ({error})")))?;
        Ok((entries, next))
    }

    /// Bytes of `url` from `first` on, to `last` if it is given. The answer's status is 200 or 206.
    pub fn get(&self, url: &str, first: u64, last: Option<u64>) -> Result<Answer, FetchError> {
        let range = match last {
            Some(last) => format!("bytes={first}-{last}"),
            None => format!("bytes={first}-"),
        };
        let mut uri: Uri = url
            .parse()
            .map_err(|_| FetchError::Connection(format!("{url} is not an address")))?;
        let mut said = Vec::new();
        let mut trusted = true;
        for _ in 0..=REDIRECTS {
            trusted &= origin(&uri) == self.origin;
            let mut request = self
                .agent
                .get(&uri)
                .header("Range", &range)
                .header("Accept-Encoding", "identity");
            if let Some(token) = self.token.as_ref().filter(|_| trusted) {
                check_token(token)?;
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| self.failed(&error))?;
            if trusted {
                let headers = response.headers().iter();
                said.extend(
                    headers.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_string()))),
                );
            }
            match response.status().as_u16() {
                200 | 206 => return Ok(Answer { response, said }),
                301 | 302 | 303 | 307 | 308 => {
                    let location = response.headers().get("location").and_then(|value| value.to_str().ok());
                    uri = redirected(&uri, location.unwrap_or_default())?;
                }
                401 => return Err(FetchError::Unauthorized),
                403 => return Err(FetchError::Forbidden),
                404 => return Err(FetchError::NotFound),
                429 => return Err(FetchError::TooManyRequests(retry_after(&response))),
                status if status >= 500 => return Err(FetchError::Server(status)),
                status => return Err(FetchError::Status(status)),
            }
        }
        Err(FetchError::Redirect(format!("more than {REDIRECTS} times")))
    }

    /// What an error of the HTTP library is here.
    fn failed(&self, error: &ureq::Error) -> FetchError {
        match error {
            ureq::Error::Timeout(_) => FetchError::Stalled(self.timeout),
            other => FetchError::Connection(other.to_string()),
        }
    }

    /// What an error in the middle of a body is here.
    pub fn broken(&self, error: &std::io::Error) -> FetchError {
        let timed_out = |error: &ureq::Error| matches!(error, ureq::Error::Timeout(_));
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
        match error.kind() == std::io::ErrorKind::TimedOut || inner.is_some_and(timed_out) {
            true => FetchError::Stalled(self.timeout),
            false => FetchError::Connection(format!("the connection broke ({error})")),
        }
    }
}

/// Refuses a token that a header cannot hold. The message shows one character of it only.
fn check_token(token: &str) -> Result<(), FetchError> {
    match token.chars().enumerate().find(|(_, c)| !c.is_ascii_graphic()) {
        Some((index, found)) => Err(FetchError::Token {
            found,
            place: index + 1,
        }),
        None => Ok(()),
    }
}

fn origin(uri: &Uri) -> Option<Origin> {
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

/// Where `location` leads from `from`.
fn redirected(from: &Uri, location: &str) -> Result<Uri, FetchError> {
    let refused = |why: String| Err(FetchError::Redirect(why));
    if location.is_empty() {
        return refused("without saying where to".to_string());
    }
    let scheme = location.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    let scheme = scheme.filter(|scheme| !scheme.contains(['/', '?', '#']));
    let (own, host) = (
        from.scheme_str().unwrap_or("https"),
        from.authority().map_or("", |host| host.as_str()),
    );
    let absolute = match scheme.as_deref() {
        Some("http" | "https") => location.to_string(),
        Some(other) => return refused(format!("to the scheme '{other}'; only http and https are followed")),
        None if location.starts_with("//") => format!("{own}:{location}"),
        None if location.starts_with('/') => format!("{own}://{host}{location}"),
        None => {
            let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{own}://{host}{folder}/{location}")
        }
    };
    let Ok(uri) = absolute.parse::<Uri>() else {
        return refused(format!("to '{}', which is not an address", location.escape_debug()));
    };
    match (own, uri.scheme_str()) {
        ("https", Some("http")) => refused("from https to http, which is not followed".to_string()),
        (_, Some(_)) if uri.host().is_some() => Ok(uri),
        _ => refused(format!("to '{}', which is not an address", location.escape_debug())),
    }
}

/// The address of the next page in a Link header, such as `<https://hub/x?cursor=y>; rel="next"`.
fn next_page(header: &str) -> Option<&str> {
    // An address may have commas.
    header.split(", <").find_map(|link| {
        let (address, relation) = link.trim().trim_start_matches('<').split_once('>')?;
        let is_next = relation
            .split(';')
            .any(|part| matches!(part.trim(), "rel=\"next\"" | "rel=next"));
        is_next.then_some(address)
    })
}

/// What Retry-After says, in seconds; a date is not read.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let value = response.headers().get("retry-after")?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// Percent-encoded but for letters, digits, `-._~` and what is in `plain`.
fn encoded(text: &str, plain: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c) || plain.contains(c);
    let encode = |byte: u8| match keep(char::from(byte)) && byte.is_ascii() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_encoded() {
        let client = Client::new("https://hub/", None, CONNECT, Rate::USUAL);
        assert_eq!(
            client.url("org/name", "refs/pr/1", "a folder/ü.json"),
            "https://hub/org/name/resolve/refs%2Fpr%2F1/a%20folder/%C3%BC.json"
        );
    }

    #[test]
    fn the_next_page_is_found_in_the_header() {
        for (header, next) in [
            ("<https://hub/x?cursor=y>; rel=\"next\"", Some("https://hub/x?cursor=y")),
            ("</a>; rel=\"prev\", </b>; rel=next", Some("/b")),
            ("</a>; rel=\"prev\"", None),
            ("nonsense", None),
        ] {
            assert_eq!(next_page(header), next, "{header}");
        }
    }

    #[test]
    fn redirects_lead_where_a_browser_would_go_or_nowhere() {
        let from: Uri = "https://hub:8443/a/b?c=1".parse().unwrap();
        for (location, to) in [
            ("/x", "https://hub:8443/x"),
            ("x?y=z", "https://hub:8443/a/x?y=z"),
            ("//cdn/x", "https://cdn/x"),
            ("HTTPS://cdn:1/x", "https://cdn:1/x"),
        ] {
            assert_eq!(redirected(&from, location).unwrap().to_string(), to);
        }
        for location in [
            "",
            "file:///etc/passwd",
            "http://hub/x",
            "data:x",
            "https://",
            "https://a b/",
        ] {
            assert!(redirected(&from, location).is_err(), "{location}");
        }
    }
}
