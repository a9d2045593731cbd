//! Listening addresses: `HOST:PORT`, `[V6]:PORT`, `unix:PATH`.

use std::fmt;
use std::net::Ipv6Addr;

use serde::Serialize;

/// The longest path of a Unix socket on Linux, in bytes: sockaddr_un's 108 less the NUL (unix(7)).
pub const UNIX_PATH_MAX: usize = 107;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// A host name or IPv4 address and a port.
    Host(String, u16),
    /// An IPv6 address and a port.
    V6(Ipv6Addr, u16),
    /// A Unix socket's absolute path.
    Unix(String),
}

impl Address {
    /// Reads an address; the error says what is wrong with it and what one looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path);
        }
        if text.starts_with('/') {
            return Err(format!("a Unix socket is written with its scheme: \"unix:{text}\""));
        }
        if let Some((scheme, _)) = text.split_once("://").filter(|(scheme, _)| {
            !scheme.is_empty()
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        }) {
            return Err(format!("an address has no {scheme}:// before it; {EXPECTED}"));
        }
        if text.contains(',') {
            return Err(
                "several addresses are written as a list: [\"127.0.0.1:8000\", \"[::1]:8000\"]".to_owned()
            );
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (host, port) = rest.split_once("]:").ok_or_else(|| EXPECTED.to_owned())?;
            let host = host.parse().map_err(|_| format!("{host:?} is not an IPv6 address"))?;
            return Ok(Self::V6(host, number(port)?));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("the port is missing; {EXPECTED}"))?;
        if host.contains(':') {
            return Err("an IPv6 address stands in brackets: \"[::1]:8000\"".to_owned());
        }
        if host.is_empty() || host == "*" {
            let what = if host.is_empty() { "the host is missing" } else { "\"*\" is not a host" };
            return Err(format!("{what}: for every address write \"0.0.0.0:{port}\" or \"[::]:{port}\""));
        }
        if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
            || host.starts_with(['-', '.'])
            || host.len() > 253
        {
            return Err(format!("{host:?} is not a host name or IPv4 address"));
        }
        let looks_like_v4 = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if looks_like_v4 && host.parse::<std::net::Ipv4Addr>().is_err() {
            return Err(format!("{host:?} is not an IPv4 address"));
        }
        Ok(Self::Host(host.to_owned(), number(port)?))
    }

    /// The path, if it is a Unix socket.
    pub fn unix_path(&self) -> Option<&str> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Host(..) | Self::V6(..) => None,
        }
    }
}

const EXPECTED: &str = "expected HOST:PORT, [V6]:PORT or unix:PATH, such as \"127.0.0.1:8000\"";

fn unix(path: &str) -> Result<Address, String> {
    if path.starts_with('@') || path.starts_with('\0') {
        return Err("an abstract socket has no owner and no mode, so anybody may take its name; use a path"
            .to_owned());
    }
    let path = path.strip_prefix("//").map_or(path, |rest| if rest.starts_with('/') { rest } else { path });
    super::paths::absolute(path)?;
    if path.len() > UNIX_PATH_MAX {
        return Err(format!(
            "the path has {} bytes, and the kernel takes {UNIX_PATH_MAX} for a Unix socket",
            path.len()
        ));
    }
    Ok(Address::Unix(path.to_owned()))
}

fn number(port: &str) -> Result<u16, String> {
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err(format!("{port:?} is not a port: expected a number from 1 to 65535")),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host, port) => write!(f, "{host}:{port}"),
            Self::V6(host, port) => write!(f, "[{host}]:{port}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_mistakes_get_advice() {
        for (text, said) in [
            ("127.0.0.1:8000,127.0.0.1:8001", "written as a list"),
            ("*:8000", "\"*\" is not a host: for every address write \"0.0.0.0:8000\""),
            (":8000", "the host is missing: for every address write \"0.0.0.0:8000\""),
            ("postgres://h/x", "an address has no postgres:// before it"),
            ("tcp://127.0.0.1:1", "an address has no tcp:// before it"),
            ("::1:8000", "stands in brackets"),
        ] {
            let reason = Address::parse(text).unwrap_err();
            assert!(reason.contains(said), "{text}: {reason}");
        }
    }

    #[test]
    fn reads_what_it_writes() {
        for text in
            ["127.0.0.1:8000", "localhost:80", "[::1]:443", "unix:/run/x.sock", "unix:/run/a b:c.sock"]
        {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Address::parse("unix:///run/x").unwrap().to_string(), "unix:/run/x");
    }

    #[test]
    fn refuses_with_a_reason() {
        for (text, reason) in [
            ("8000", "the port is missing"),
            (":8000", "0.0.0.0:8000"),
            ("::1:8000", "brackets"),
            ("host:0", "from 1 to 65535"),
            ("host:+80", "from 1 to 65535"),
            ("300.1.1.1:80", "not an IPv4 address"),
            ("/run/x.sock", "unix:/run/x.sock"),
            ("unix:run/x.sock", "absolute"),
            ("unix:/run/../x", ".."),
            ("unix:@x", "abstract"),
            ("tcp://1.2.3.4:80", "no tcp://"),
        ] {
            let error = Address::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(Address::parse(&format!("unix:/{}", "x".repeat(107))).unwrap_err().contains("107"));
    }
}
