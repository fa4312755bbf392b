//! What the settings say of the Postgres endpoint: where it listens and whom it trusts.
//!
//! Invariant: an address that others can reach has a password.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::file::PostgresFile;
use super::{Checks, socket_address};

/// Beside the ports of PostgreSQL's own servers (5432, on Debian 5433 and so on for more of them): there may
/// be one on this machine.
const LISTEN: &str = "127.0.0.1:8432";
const USER: &str = "playhead";
/// Each connection costs a socket and some kilobytes; what queries cost is bounded apart from it.
const CONNECTIONS: RangeInclusive<u64> = 1..=10_000;
const ROWS: RangeInclusive<u64> = 1..=1_000_000_000;

/// The endpoint for programs that speak PostgreSQL.
#[derive(Clone, PartialEq, Eq)]
pub struct Postgres {
    /// `None`: nothing listens.
    pub listen: Option<SocketAddr>,
    pub user: String,
    /// `None`: whoever reaches the address may ask.
    pub password: Option<String>,
    pub tls: Option<Tls>,
    pub connections: u64,
    /// Of one answer.
    pub rows: u64,
}

/// Files in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl fmt::Debug for Postgres {
    /// The password is a secret: only whether there is one may be shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("listen", &self.listen)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "..."))
            .field("tls", &self.tls)
            .field("connections", &self.connections)
            .field("rows", &self.rows)
            .finish()
    }
}

pub(super) fn postgres(written: PostgresFile, checks: &mut Checks) -> Postgres {
    let listen = match written.listen.as_deref().unwrap_or(LISTEN) {
        // YAML reads a bare `off` as false.
        "off" | "false" => None,
        text => socket_address(text, "postgres.listen", checks),
    };
    let password = password(written.password, checks);
    if listen.is_some_and(|address| !address.ip().is_loopback()) && password.is_none() {
        let message = "others than this machine could read every table without a password";
        let fix = "set postgres.password: ${NAME}, or listen on 127.0.0.1 and put an SSH tunnel in front";
        checks.complain("postgres.listen", message, fix);
    }
    let count = |count: &u64| count.to_string();
    Postgres {
        listen,
        user: written.user.unwrap_or_else(|| USER.to_owned()),
        password,
        tls: tls(written.tls_certificate, written.tls_key, checks),
        connections: checks.within("postgres.connections", written.connections.unwrap_or(50), CONNECTIONS, count),
        rows: checks.within("postgres.rows", written.rows.unwrap_or(1_000_000), ROWS, count),
    }
}

fn password(written: Option<String>, checks: &mut Checks) -> Option<String> {
    const KEY: &str = "postgres.password";
    let password = written?;
    if !checks.places.of(KEY).from_environment {
        let message = "a secret is written into the settings file";
        checks.complain(KEY, message, "put it into an environment variable and write `password: ${NAME}`");
    }
    if password.is_empty() {
        checks.complain(KEY, "the password is empty", "leave the key out, or give the variable a value");
    }
    Some(password)
}

fn tls(certificate: Option<PathBuf>, key: Option<PathBuf>, checks: &mut Checks) -> Option<Tls> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(Tls { certificate, key }),
        (None, None) => None,
        (Some(_), None) => {
            checks.complain("postgres.tls_certificate", "there is no key for it", "set postgres.tls_key too");
            None
        }
        (None, Some(_)) => {
            checks.complain(
                "postgres.tls_key",
                "there is no certificate for it",
                "set postgres.tls_certificate too",
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, parse};

    fn read(text: &str) -> Result<Config, String> {
        let env = |name: &str| (name == "SECRET").then(|| "open sesame".to_owned());
        let texts = [("1.yaml".to_owned(), text.to_owned())];
        parse(&texts, &env, &|_| false).map_err(|complaints| complaints.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(read(text).expect_err("it is refused"), expected, "{text}");
    }

    #[test]
    fn an_address_of_the_network_wants_a_password() {
        refused(
            "postgres: {listen: '0.0.0.0:8432'}",
            "1.yaml:1:20: postgres.listen: others than this machine could read every table without a password; set postgres.password: ${NAME}, or listen on 127.0.0.1 and put an SSH tunnel in front",
        );
        let config = read("postgres: {listen: '0.0.0.0:8432', password: '${SECRET}'}").expect("it has one");
        assert_eq!(config.postgres.password.as_deref(), Some("open sesame"));
        assert!(!format!("{config:?}").contains("sesame"), "a secret is shown");
        assert!(read("postgres: {listen: '[::1]:8432'}").is_ok());
    }

    #[test]
    fn a_password_comes_from_the_environment() {
        refused(
            "postgres:\n  password: hunter2",
            "1.yaml:2:13: postgres.password: a secret is written into the settings file; put it into an environment variable and write `password: ${NAME}`",
        );
    }

    #[test]
    fn off_listens_nowhere() {
        assert_eq!(read("postgres: {listen: off}").expect("it is right").postgres.listen, None);
        refused(
            "postgres: {listen: here}",
            "1.yaml:1:20: postgres.listen: \"here\" is no address to listen on; write an address and a port, such as 127.0.0.1:8432 or [::1]:8432, or off",
        );
    }

    #[test]
    fn a_certificate_and_its_key_come_together() {
        refused(
            "postgres: {tls_key: k.pem}",
            "1.yaml:1:21: postgres.tls_key: there is no certificate for it; set postgres.tls_certificate too",
        );
    }
}
