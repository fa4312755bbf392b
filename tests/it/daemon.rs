//! `playhead run` as a test meets it: started, watched, stopped; never left behind.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::support::Bench;

/// How long a condition may take to come true: a debug binary on a busy machine, with room.
const PATIENCE: Duration = Duration::from_secs(90);
/// Pause between two looks at a condition; each look at a table starts a process.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What the log says once events are taken over HTTP.
const LISTENING: &str = "taking player events on http://";

/// A running daemon. It dies with the test.
pub struct Daemon {
    child: Child,
    log: OwnLog,
}

/// The part of a log file that one daemon writes, after what those before it wrote.
#[derive(Debug, Clone)]
pub struct OwnLog {
    file: PathBuf,
    start: usize,
}

impl OwnLog {
    pub fn text(&self) -> String {
        let all = std::fs::read(&self.file).unwrap_or_default();
        // A kill may leave half a letter.
        String::from_utf8_lossy(all.get(self.start..).unwrap_or_default()).into_owned()
    }

    /// Where the daemon takes events over HTTP, once it does.
    pub fn address(&self) -> Option<SocketAddr> {
        let text = self.text();
        let (address, _) = text.split_once(LISTENING)?.1.split_once('/')?;
        address.parse().ok()
    }
}

impl Daemon {
    /// Starts `playhead run` with these settings, which are written beside the lake.
    pub fn start(bench: &Bench, settings: &str) -> Daemon {
        let settings = bench.write("run.yaml", settings);
        // Daemons of other tests run beside this one: who wants to listen says where.
        let quiet = bench.write("quiet.yaml", "http: {listen: off}\npostgres: {listen: off}\n");
        let log = bench.path("run.log");
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .expect("the log can be opened");
        let start = file.metadata().expect("an open file has a size").len();
        let mut command = bench.command(&["run"]);
        command.arg("--settings").arg(quiet);
        command.arg("--settings").arg(settings).stdout(Stdio::null()).stderr(file);
        Daemon {
            child: command.spawn().expect("the binary starts"),
            log: OwnLog {
                file: log,
                start: usize::try_from(start).expect("a log is small"),
            },
        }
    }

    /// Everything that the daemon and those before it wrote to standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log.file).unwrap_or_default()
    }

    /// What this daemon writes to standard error.
    pub fn own_log(&self) -> OwnLog {
        self.log.clone()
    }

    /// Waits until it takes events over HTTP; gives where.
    #[track_caller]
    pub fn address(&mut self) -> SocketAddr {
        let log = self.own_log();
        self.wait_until("the receiver listens", || log.address().is_some());
        log.address().expect("it was waited for")
    }

    /// Waits until the condition holds.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, mut holds: impl FnMut() -> bool) {
        let started = Instant::now();
        while !holds() {
            let ended = self.child.try_wait().expect("a child can be asked");
            assert!(
                ended.is_none(),
                "the daemon ended ({ended:?}) while waiting: {what}\n{}",
                self.log()
            );
            assert!(started.elapsed() < PATIENCE, "never came true: {what}\n{}", self.log());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until what is measured is enough, however long that takes, as long as it moves.
    #[track_caller]
    pub fn wait_while_it_moves<T: PartialEq + std::fmt::Debug>(
        &mut self,
        what: &str,
        mut measure: impl FnMut() -> T,
        is_enough: impl Fn(&T) -> bool,
    ) {
        let mut known = measure();
        while !is_enough(&known) {
            let mut moved = None;
            self.wait_until(&format!("{what}; it stands at {known:?}"), || {
                let now = measure();
                let has_moved = now != known;
                moved = Some(now);
                has_moved
            });
            known = moved.expect("it was measured");
        }
    }

    /// Waits until the daemon has ended by itself.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "the daemon does not end\n{}", self.log());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks the daemon to stop, as an init system does, and waits for its end.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        self.ask_to_stop();
        self.wait_for_end()
    }

    /// Asks the daemon to stop and does not wait.
    #[track_caller]
    pub fn ask_to_stop(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("kill can be run");
        assert!(sent.success(), "the signal was not sent");
    }
}

impl Daemon {
    /// `kill -9`. The status tells whether it had ended by itself.
    pub fn kill(mut self) -> ExitStatus {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("a child can be waited for")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
