//! Where a simulation goes: a folder, standard output, or an HTTP receiver.
//!
//! Invariant: a receiver that is busy is waited for, so that no event is lost on the way.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::simulate::{CDN_HEADER, Dialect, Output};

/// Events of one request: below what the receiver takes at once.
const EVENTS_A_REQUEST: usize = 1_000;
/// Bytes of one request: likewise.
const BYTES_A_REQUEST: usize = 512 << 10;
/// A receiver that does not answer for so long is gone.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How often a busy receiver is asked again, and after which pause: five minutes in all.
const TRIES: u32 = 300;
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// An answer is a few hundred bytes.
const ANSWER_BYTES: u64 = 64 << 10;

/// Where lines go.
pub enum Target {
    Folder {
        path: PathBuf,
        player: BufWriter<File>,
        cdn: BufWriter<File>,
    },
    Stdout(BufWriter<io::Stdout>),
    Http(Receiver),
}

/// Why a target cannot be written to.
pub enum OpenError {
    /// The command line is wrong.
    Usage(String),
    Io(anyhow::Error),
}

/// A receiver of events.
pub struct Receiver {
    /// `host:port`.
    authority: String,
    path: &'static str,
    body: Vec<u8>,
    events: usize,
}

impl Target {
    /// # Errors
    /// The folder cannot be made; the address is none.
    pub fn open(to: &str, dialect: Dialect) -> Result<Target, OpenError> {
        if to == "-" {
            return Ok(Target::Stdout(BufWriter::new(io::stdout())));
        }
        if to.contains("://") {
            let authority = to.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
            let Some(authority) = authority.filter(|authority| !authority.is_empty() && !authority.contains('/')) else {
                let complaint = format!("{to} is no receiver; write http://HOST:PORT, the rest of the address is known");
                return Err(OpenError::Usage(complaint));
            };
            return Ok(Target::Http(Receiver {
                authority: if authority.contains(':') {
                    authority.to_owned()
                } else {
                    format!("{authority}:80")
                },
                path: if dialect == Dialect::Cmcd { "/cmcd" } else { "/v1/events" },
                body: Vec::new(),
                events: 0,
            }));
        }
        Target::folder(Path::new(to)).map_err(OpenError::Io)
    }

    fn folder(path: &Path) -> anyhow::Result<Target> {
        std::fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        let create = |name: &str| File::create(path.join(name)).map(BufWriter::new);
        let mut cdn = create("cdn.tsv")?;
        cdn.write_all(CDN_HEADER.as_bytes())?;
        Ok(Target::Folder {
            path: path.to_path_buf(),
            player: create("player.ndjson")?,
            cdn,
        })
    }

    /// Where the truth is, unless it is said.
    pub fn truth_file(&self) -> Option<PathBuf> {
        match self {
            Target::Folder { path, .. } => Some(path.join("truth.json")),
            Target::Stdout(_) | Target::Http(_) => None,
        }
    }

    /// Takes one line, newline included. Only a folder has a place for the CDN's.
    ///
    /// # Errors
    /// It cannot be written or sent.
    pub fn put(&mut self, output: Output, line: &[u8]) -> anyhow::Result<()> {
        match (self, output) {
            (Target::Folder { player, .. }, Output::Player) => player.write_all(line)?,
            (Target::Folder { cdn, .. }, Output::Cdn) => cdn.write_all(line)?,
            (Target::Stdout(stdout), Output::Player) => stdout.write_all(line)?,
            (Target::Http(receiver), Output::Player) => receiver.put(line)?,
            (Target::Stdout(_) | Target::Http(_), Output::Cdn) => {}
        }
        Ok(())
    }

    /// Brings what was taken to where it goes.
    ///
    /// # Errors
    /// As `put`.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        match self {
            Target::Folder { player, cdn, .. } => {
                player.flush()?;
                cdn.flush()?;
            }
            Target::Stdout(stdout) => stdout.flush()?,
            Target::Http(receiver) => receiver.send()?,
        }
        Ok(())
    }
}

impl Receiver {
    fn put(&mut self, line: &[u8]) -> anyhow::Result<()> {
        self.body.extend_from_slice(line);
        self.events += 1;
        match self.events >= EVENTS_A_REQUEST || self.body.len() >= BYTES_A_REQUEST {
            true => self.send(),
            false => Ok(()),
        }
    }

    fn send(&mut self) -> anyhow::Result<()> {
        if self.body.is_empty() {
            return Ok(());
        }
        for _ in 0..TRIES {
            match self
                .post()
                .with_context(|| format!("cannot send to {}; is playhead running there?", self.authority))?
            {
                200..300 => {
                    self.body.clear();
                    self.events = 0;
                    return Ok(());
                }
                429 | 503 => std::thread::sleep(TRY_AGAIN_AFTER),
                status => bail!(
                    "{} answers {status} to {}; is it playhead that listens there?",
                    self.authority,
                    self.path
                ),
            }
        }
        bail!("{} has been too busy to take events for five minutes; lower --rate", self.authority)
    }

    /// The status of the answer.
    fn post(&self) -> io::Result<u16> {
        let mut stream = TcpStream::connect(&self.authority)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.path,
            self.authority,
            self.body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(&self.body)?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
        let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
    }
}
