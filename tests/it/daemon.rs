//! `playhead run` as a test meets it: started, watched, stopped; never left behind.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::support::Bench;

/// How long a condition may take to come true: a debug binary on a busy machine, with room.
const PATIENCE: Duration = Duration::from_secs(90);
/// Pause between two looks at a condition; each look at a table starts a process.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A running daemon. It dies with the test.
pub struct Daemon {
    child: Child,
    log: std::path::PathBuf,
}

impl Daemon {
    /// Starts `playhead run` with these settings, which are written beside the lake.
    pub fn start(bench: &Bench, settings: &str) -> Daemon {
        let settings = bench.write("run.yaml", settings);
        // Daemons of other tests run beside this one: who wants to listen says where.
        let quiet = bench.write("quiet.yaml", "http: {listen: off}\n");
        let log = bench.path("run.log");
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .expect("the log can be opened");
        let mut command = bench.command(&["run"]);
        command.arg("--settings").arg(quiet);
        command.arg("--settings").arg(settings).stdout(Stdio::null()).stderr(file);
        Daemon {
            child: command.spawn().expect("the binary starts"),
            log,
        }
    }

    /// Everything that the daemon and those before it wrote to standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
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

    /// Asks the daemon to stop, as an init system does, and waits for its end.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("kill can be run");
        assert!(sent.success(), "the signal was not sent");
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "the daemon does not stop\n{}", self.log());
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
