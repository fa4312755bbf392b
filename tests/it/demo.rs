//! `playhead demo` as a new user meets it: addresses, an incident with its cause, and nothing left behind.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::support::PLAYHEAD;

/// How long a line may take to come: a debug binary on a busy machine, with room.
const PATIENCE: Duration = Duration::from_secs(240);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A rule like the shipped one, for an audience that a debug binary keeps up with.
const RULES: &str = "version: 1
targets:
  console:
    stdout: {}
rules:
  - alert: ReleaseFails
    from: gold.errors_1m
    value:
      ratio: {num: clients_with_errors, den: clients}
    group_by: [device_type, app_name]
    min_samples: 20
    confidence: {method: wilson, z: 1}
    condition: {test: value, op: \">\", threshold: 5%}
    for: 2m
    explain: {dims: [app_version]}
    notify: {targets: [console]}
";

/// A running demo. It dies with the test, and so does its folder.
struct Demo {
    child: Child,
    bench: tempfile::TempDir,
}

impl Demo {
    /// Starts a small audience that lives fast; temporary folders of the demo lie in the test's own.
    fn start(options: &[&str]) -> Demo {
        let bench = tempfile::tempdir().expect("a temporary folder can be made");
        let path = |name: &str| bench.path().join(name);
        std::fs::create_dir_all(path("rules")).expect("a folder can be made");
        std::fs::create_dir_all(path("tmp")).expect("a folder can be made");
        std::fs::write(path("rules/release.yaml"), RULES).expect("a file can be written");
        let settings = format!(
            "http: {{listen: \"127.0.0.1:0\"}}\npostgres: {{listen: \"127.0.0.1:0\"}}\nalerts: {{folder: {}}}\n",
            path("rules").display()
        );
        std::fs::write(path("demo.yaml"), settings).expect("a file can be written");
        let output = |name: &str| Stdio::from(std::fs::File::create(path(name)).expect("a file can be made"));
        let child = Command::new(PLAYHEAD)
            .args(["demo", "--attempts", "60", "--history", "12", "--speed", "20", "--settings"])
            .arg(path("demo.yaml"))
            .args(options)
            .env("TMPDIR", path("tmp"))
            .current_dir(bench.path())
            .stdout(output("out"))
            .stderr(output("log"))
            .spawn()
            .expect("the binary starts");
        Demo { child, bench }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.bench.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Waits for a line of its output with all of these in it.
    #[track_caller]
    fn wait_for(&mut self, parts: &[&str]) -> String {
        let started = Instant::now();
        loop {
            let text = self.text("out");
            if let Some(line) = text.lines().find(|line| parts.iter().all(|part| line.contains(part))) {
                return line.to_owned();
            }
            let ended = self.child.try_wait().expect("a child can be asked");
            let is_late = started.elapsed() > PATIENCE;
            assert!(
                ended.is_none() && !is_late,
                "no {parts:?} ({ended:?}):\n{text}\n{}",
                self.text("log")
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Ctrl-C, and the end.
    #[track_caller]
    fn stop(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status().expect("kill can be run");
        assert!(sent.success(), "the signal was not sent");
        self.child.wait().expect("a child can be waited for")
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).expect("the folder can be listed").next().is_none()
}

#[test]
fn the_incident_fires_with_its_cause_and_nothing_is_left_behind() {
    let mut demo = Demo::start(&[]);
    demo.wait_for(&["Playhead is running"]);
    assert!(!is_empty(&demo.path("tmp")), "the demo has no folder");
    demo.wait_for(&["psql \"host=127.0.0.1 port="]);
    demo.wait_for(&["version 5.3.0 on tv fails to start"]);
    let alert = demo.wait_for(&["FIRING", "device_type=tv"]);
    assert!(alert.contains("app_version=5.3.0 explains"), "{alert}");
    let status = demo.stop();
    assert!(status.success(), "{status}\n{}", demo.text("log"));
    assert!(is_empty(&demo.path("tmp")), "something is left behind");
    assert_eq!(
        demo.text("log").lines().filter(|line| line.contains("ERROR")).count(),
        0,
        "{}",
        demo.text("log")
    );
}

#[test]
fn what_is_kept_can_be_asked_afterwards_and_a_folder_in_use_is_refused() {
    let kept = tempfile::tempdir().expect("a temporary folder can be made");
    let folder = kept.path().join("demo");
    let name = folder.to_str().expect("a name in Unicode");
    let mut demo = Demo::start(&["--keep", name]);
    demo.wait_for(&["The history is in the tables"]);
    assert!(demo.stop().success(), "{}", demo.text("log"));
    let told = demo.text("out");
    assert!(told.contains("tables are kept") && is_empty(&demo.path("tmp")), "{told}");
    let ask = |query: &str| {
        let lake = folder.join("lake");
        let output = Command::new(PLAYHEAD)
            .args(["sql", "--format", "csv", query, "--data"])
            .arg(lake)
            .output();
        String::from_utf8(output.expect("the binary starts").stdout).expect("text")
    };
    let attempts = ask("SELECT sum(attempts) AS n FROM gold.playback_1m");
    assert!(
        attempts.lines().nth(1).and_then(|n| n.parse().ok()).is_some_and(|n: u64| n > 200),
        "{attempts}"
    );

    let again = Command::new(PLAYHEAD)
        .args(["demo", "--keep", name])
        .output()
        .expect("the binary starts");
    assert_eq!(again.status.code(), Some(64));
    let complaint = String::from_utf8(again.stderr).expect("text");
    assert!(
        complaint.contains("there is something in this folder; name a new one"),
        "{complaint}"
    );
}
