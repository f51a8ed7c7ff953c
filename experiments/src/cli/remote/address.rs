//! The address of a worker's device: `ws://HOST:PORT#INDEX`.

use std::fmt;

/// Where a worker listens, and which of its devices is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A name, or a number without the brackets of IPv6.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The device, by its place in the worker's list.
    pub index: usize,
}

impl Address {
    /// Reads it; without `#INDEX` it is the first device.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = |why: &str| format!("{why}; write it as ws://HOST:PORT#0");
        let Some(rest) = text.strip_prefix("ws://") else {
            return Err(form(
                "workers have addresses that start with ws:// (the docs say how to encrypt the connection)",
            ));
        };
        let (place, index) = rest.split_once('#').unwrap_or((rest, "0"));
        let index = index
            .parse()
            .map_err(|_| form(&format!("'{index}' is not a device number")))?;
        let (host, port) = place.rsplit_once(':').ok_or_else(|| form("the port is missing"))?;
        let port: u16 = port.parse().map_err(|_| form(&format!("'{port}' is not a port")))?;
        let host = match host.strip_prefix('[') {
            Some(number) => number.strip_suffix(']').ok_or_else(|| form("a ] is missing"))?,
            None if host.contains(':') => return Err(form("an IPv6 address stands in brackets")),
            None => host,
        };
        // A user name or a path would be dropped without a word.
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        match host.is_empty() || port == 0 || !host.chars().all(is_part) {
            true => Err(form("this is no host with a port")),
            false => Ok(Self {
                host: host.to_string(),
                port,
                index,
            }),
        }
    }
}

impl fmt::Display for Address {
    /// Without the device.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "ws://[{}]:{}", self.host, self.port),
            false => write!(f, "ws://{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_host_port_and_device() {
        let parts = |text: &str| Address::parse(text).map(|a| (a.to_string(), a.host, a.port, a.index));
        let found = |shown: &str, host: &str, port, index| Ok((shown.into(), host.into(), port, index));
        assert_eq!(parts("ws://gpu-1:3000#2"), found("ws://gpu-1:3000", "gpu-1", 3000, 2));
        assert_eq!(
            parts("ws://127.0.0.1:80"),
            found("ws://127.0.0.1:80", "127.0.0.1", 80, 0)
        );
        assert_eq!(parts("ws://[::1]:3000#0"), found("ws://[::1]:3000", "::1", 3000, 0));
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_form() {
        for text in [
            "wss://gpu:3000",
            "http://gpu:3000",
            "ws://gpu",
            "ws://gpu:x",
            "ws://gpu:0",
            "ws://gpu:70000",
            "ws://gpu:3000#x",
            "ws://gpu:3000#-1",
            "ws://:3000",
            "ws://a@gpu:3000",
            "ws://gpu/x:3000",
            "ws://::1:3000",
            "ws://[::1:3000",
        ] {
            let message = Address::parse(text).unwrap_err();
            assert!(message.ends_with("write it as ws://HOST:PORT#0"), "{text}: {message}");
        }
    }
}
