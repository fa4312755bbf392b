//! An HTTP/1.1 client as small as a test needs it: one request a connection, everything in sight.
//!
//! Written by hand, so that a test can send what no library would, and sees the answer as it came.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// No answer takes as long, even of a debug binary on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in the answer {self:?}"))
    }

    /// `None`: the other side went away before it had said a status line.
    fn parse(bytes: &[u8]) -> Option<Answer> {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines.filter_map(|line| line.split_once(':'));
        Some(Answer {
            status,
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_string()))
                .collect(),
            body: body.to_string(),
        })
    }
}

/// Sends a request and waits for its answer; fails the test without one.
#[track_caller]
pub fn request(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    try_request(address, method, target, headers, body).unwrap_or_else(|| panic!("no answer to {method} {target}"))
}

#[track_caller]
pub fn post(address: SocketAddr, target: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
    request(address, "POST", target, headers, body.as_ref())
}

/// `None`: nobody listens, or the connection broke before the answer was there.
pub fn try_request(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    head.push_str(&format!("content-length: {}\r\n", body.len()));
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    // A receiver that refuses a body need not read it to its end: the answer is there all the same.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    Answer::parse(&bytes)
}
