//! A judge behind an OpenAI-compatible endpoint: one question, one answer, with retries after failures of the
//! connection.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ureq::Agent;

use crate::cli::interrupt::Interrupter;
use crate::cli::output::note;
use crate::run::outcome::RunError;

/// How a judge is reached.
#[derive(Debug, Clone)]
pub struct Access {
    /// Address of the API, such as `http://127.0.0.1:8000/v1`.
    pub url: String,
    /// Model.
    pub model: String,
    /// API key, if the endpoint needs one.
    pub key: Option<String>,
    /// Number of retries.
    pub retries: usize,
    /// Seconds before the first retry; doubled for each further one.
    pub wait: f64,
    /// Timeout of an answer, seconds.
    pub timeout: f64,
}

/// Environment variables for the key; the first one that is set is used.
pub const KEYS: [&str; 2] = ["JUDGE_API_KEY", "OPENAI_API_KEY"];

/// Tokens that a judge read and wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Read.
    pub prompt_tokens: u64,
    /// Written.
    pub completion_tokens: u64,
}

impl Usage {
    /// The sum with `other`.
    pub fn plus(self, other: Self) -> Self {
        Self {
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            completion_tokens: self.completion_tokens.saturating_add(other.completion_tokens),
        }
    }
}

/// An answer, and the tokens that it took.
pub type Said = (String, Option<Usage>);

/// A judge.
pub struct Endpoint {
    agent: Agent,
    access: Access,
}

/// Longest pause between two tries, seconds.
const LONGEST: f64 = 60.0;
/// Maximum tokens that a judge may write.
const MOST_TOKENS: u32 = 2048;
/// Maximum bytes of an answer that are read.
const MOST_BYTES: u64 = 4 << 20;

/// Time between two looks at whether to stop, during a pause.
const LOOK: Duration = Duration::from_millis(200);

/// True if the address is one of this machine.
fn is_here(url: &str) -> bool {
    let uri = url.parse::<ureq::http::Uri>();
    let host = uri
        .ok()
        .and_then(|uri| Some(uri.host()?.trim_matches(['[', ']']).to_string()));
    host.is_some_and(|host| host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()))
}

/// Why there is no answer.
enum Failure {
    /// Worth a retry, after this many seconds if the server says so.
    Again(String, Option<f64>),
    /// Not worth a retry.
    Never(String),
}

impl Endpoint {
    /// A judge at `access`.
    ///
    /// # Errors
    /// An invalid address, or an address on another machine without a key.
    pub fn new(access: Access) -> Result<Self, String> {
        let (local, http) = (
            is_here(&access.url),
            access.url.starts_with("http://") || access.url.starts_with("https://"),
        );
        if !http {
            return Err(format!(
                "--judge-url {}: expected an address such as https://HOST/v1",
                access.url
            ));
        }
        if access.key.is_none() && !local {
            return Err(format!(
                "the judge at {} needs a key; set {} (or {}) in the environment",
                access.url, KEYS[0], KEYS[1]
            ));
        }
        if access.key.is_some() && !local && access.url.starts_with("http://") {
            return Err(format!(
                "the judge at {} would get the key unencrypted; give an https:// address",
                access.url
            ));
        }
        if access
            .key
            .as_ref()
            .is_some_and(|key| key.contains(|c: char| !c.is_ascii_graphic()))
        {
            return Err(format!(
                "the key in {} (or {}) contains a character that no key may contain; set it to the key alone",
                KEYS[0], KEYS[1]
            ));
        }
        let timeout = Some(Duration::from_secs_f64(access.timeout));
        let config = Agent::config_builder()
            // The key must not be sent anywhere else.
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("wegeft/", env!("CARGO_PKG_VERSION")))
            .timeout_global(timeout)
            .build();
        Ok(Self {
            agent: Agent::new_with_config(config),
            access,
        })
    }

    /// The model that judges.
    pub fn model(&self) -> &str {
        &self.access.model
    }

    /// The judge's answer to `question`, and the tokens that it took if the judge says so.
    ///
    /// # Errors
    /// The last failure, after all tries.
    pub fn ask(&self, system: &str, question: &str, interrupter: &Interrupter) -> Result<Said, String> {
        let body = json!({
            "model": self.access.model,
            "messages": [{ "role": "system", "content": system }, { "role": "user", "content": question }],
            "temperature": 0,
            "max_tokens": MOST_TOKENS,
        })
        .to_string();
        let mut wait = self.access.wait;
        let mut tries = 0;
        loop {
            let (why, after) = match self.once(&body) {
                Ok(said) => return Ok(said),
                Err(Failure::Never(why)) => return Err(format!("the judge at {} {why}", self.access.url)),
                Err(Failure::Again(why, after)) => (why, after),
            };
            tries += 1;
            if tries > self.access.retries {
                return Err(format!(
                    "the judge at {} {why}, {tries} times; its earlier judgements are kept, and the same command continues from there",
                    self.access.url
                ));
            }
            let pause = after.unwrap_or(wait).clamp(0.0, LONGEST);
            note(format_args!("the judge {why}; asking again in {pause:.1} s"));
            let end = Instant::now() + Duration::from_secs_f64(pause);
            while Instant::now() < end {
                if interrupter.should_stop() {
                    return Err(RunError::Interrupted.to_string());
                }
                std::thread::sleep((end - Instant::now()).min(LOOK));
            }
            wait *= 2.0;
        }
    }

    fn once(&self, body: &str) -> Result<Said, Failure> {
        let url = format!("{}/chat/completions", self.access.url.trim_end_matches('/'));
        let mut request = self.agent.post(&url).header("Content-Type", "application/json");
        if let Some(key) = &self.access.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let again = |why: String| Failure::Again(why, None);
        let mut response = request.send(body).map_err(|error| match error {
            ureq::Error::Timeout(_) => again(format!("did not answer in {} s", self.access.timeout)),
            ureq::Error::BadUri(_) => Failure::Never("is no address".into()),
            other => again(format!("could not be reached ({other})")),
        })?;
        let status = response.status().as_u16();
        let after = response.headers().get("retry-after");
        let after = after.and_then(|value| value.to_str().ok()?.trim().parse::<f64>().ok());
        let after = after.filter(|seconds| seconds.is_finite());
        let text = response.body_mut().with_config().limit(MOST_BYTES).read_to_string();
        match status {
            200 => {}
            401 | 403 => return Err(Failure::Never(format!("refused the key (status {status})"))),
            429 => return Err(Failure::Again("asks to slow down (status 429)".into(), after)),
            408 | 500.. => return Err(Failure::Again(format!("failed (status {status})"), after)),
            _ => {
                let said: String = text.unwrap_or_default().chars().take(200).collect();
                return Err(Failure::Never(format!(
                    "refused the question (status {status}: {})",
                    said.split_whitespace().collect::<Vec<_>>().join(" ")
                )));
            }
        }
        let text = text.map_err(|error| again(format!("broke off ({error})")))?;
        let answer: Value =
            serde_json::from_str(&text).map_err(|_| again("answered with something that is not JSON".into()))?;
        let said = answer["choices"][0]["message"]["content"].as_str();
        let said = said.ok_or_else(|| again("answered without choices[0].message.content".into()))?;
        Ok((said.to_string(), Usage::deserialize(&answer["usage"]).ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(url: &str, key: Option<&str>) -> Access {
        Access {
            url: url.into(),
            model: "m".into(),
            key: key.map(String::from),
            retries: 0,
            wait: 0.0,
            timeout: 1.0,
        }
    }

    #[test]
    fn a_judge_elsewhere_needs_a_key_and_encryption() {
        let refused = |url: &str, key| Endpoint::new(access(url, key)).err().unwrap();
        assert!(refused("https://judge/v1", None).contains("set JUDGE_API_KEY"));
        assert!(refused("http://judge/v1", Some("k")).contains("unencrypted"));
        for elsewhere in ["http://127.0.0.1.example.org/v1", "http://localhost@example.org/v1"] {
            assert!(refused(elsewhere, Some("k")).contains("unencrypted"), "{elsewhere}");
        }
        assert!(refused("https://judge/v1", Some("k\nx")).contains("no key may contain"));
        assert!(Endpoint::new(access("http://[::1]:1/v1", None)).is_ok());
        assert!(refused("judge", None).contains("expected an address"));
        assert!(Endpoint::new(access("http://127.0.0.1:1/v1", None)).is_ok());
        assert!(Endpoint::new(access("https://judge/v1", Some("k"))).is_ok());
    }
}
