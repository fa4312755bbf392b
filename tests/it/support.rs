//! What every test needs: a folder of its own, the binary, and answers as JSON.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// The binary under test.
pub const PLAYHEAD: &str = env!("CARGO_BIN_EXE_playhead");

/// A key that two lakes share, so that their pseudonyms compare.
pub const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A temporary folder with a lake in it.
pub struct Bench {
    folder: TempDir,
    environment: Vec<(String, String)>,
    settings: Option<PathBuf>,
}

impl Bench {
    pub fn new() -> Bench {
        let bench = Bench {
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
            environment: Vec::new(),
            settings: None,
        };
        std::fs::create_dir_all(bench.lake()).expect("the lake folder can be made");
        std::fs::write(bench.lake().join("playhead.key"), KEY).expect("the key can be written");
        bench
    }

    /// Every command of this bench gets this variable.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_string(), value.to_string()));
    }

    /// Every command of this bench gets these settings; those that it names itself override them.
    pub fn set_settings(&mut self, settings: &str) {
        self.settings = Some(self.write("bench.yaml", settings));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn lake(&self) -> PathBuf {
        self.path("lake")
    }

    /// Writes a file below the folder and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).expect("a folder can be made");
        }
        std::fs::write(&path, content).expect("a file can be written");
        path
    }

    /// A `playhead` command on this bench's lake.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PLAYHEAD);
        command
            .args(arguments)
            .arg("--data")
            .arg(self.lake())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.path());
        if let Some(settings) = &self.settings {
            command.arg("--settings").arg(settings);
        }
        command
    }

    /// Runs and returns whatever came.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary starts")
    }

    /// Ingests and returns the summary; fails the test if the exit code is not 0.
    #[track_caller]
    pub fn ingest(&self, paths: &[&Path]) -> Value {
        let mut command = self.command(&["ingest", "--json"]);
        command.args(paths);
        let output = command.output().expect("the binary starts");
        assert!(
            output.status.success(),
            "ingest failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).expect("the summary is JSON")
    }

    /// Ingests under a settings file and returns the summary.
    #[track_caller]
    pub fn ingest_with(&self, settings: &str, paths: &[&Path]) -> Value {
        let settings = self.write("settings.yaml", settings);
        let mut options = vec![Path::new("--settings"), &settings];
        options.extend(paths);
        self.ingest(&options)
    }

    /// Rows of a query.
    #[track_caller]
    pub fn sql(&self, query: &str) -> Vec<Value> {
        let output = self.run(&["sql", "--json", query]);
        assert!(output.status.success(), "{query}\n{}", String::from_utf8_lossy(&output.stderr));
        match serde_json::from_slice(&output.stdout).expect("the answer is JSON") {
            Value::Array(rows) => rows,
            other => panic!("not a list of rows: {other}"),
        }
    }

    /// The one value of a query that gives one row with one column.
    #[track_caller]
    pub fn value(&self, query: &str) -> Value {
        let rows = self.sql(query);
        assert_eq!(rows.len(), 1, "{query} gave {} rows", rows.len());
        let row = rows[0].as_object().expect("a row is an object");
        row.values().next().cloned().unwrap_or(Value::Null)
    }

    #[track_caller]
    pub fn int(&self, query: &str) -> i64 {
        let value = self.value(query);
        value.as_i64().unwrap_or_else(|| panic!("{query} gave {value}, not a whole number"))
    }
}

/// Every file below a folder with its bytes, by its name relative to the folder.
pub fn files_below(folder: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let mut files = std::collections::BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).expect("the folder can be listed").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).expect("it lies below the folder").to_path_buf();
            files.insert(name, std::fs::read(&path).expect("the file can be read"));
        }
    }
    files
}

/// Text lines with the byte at which each starts.
pub fn lines_with_offsets(text: &str) -> Vec<(i64, &str)> {
    let mut offset = 0;
    text.split_inclusive('\n')
        .map(|line| {
            let at = offset;
            offset += i64::try_from(line.len()).expect("a test file is small");
            (at, line.trim_end_matches('\n'))
        })
        .collect()
}

/// A file of the four that stand in the repository.
pub fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name)
}

/// A folder of foreign fixtures, or `None` with a line that says how to get it.
#[allow(clippy::disallowed_methods)] // Tests have no settings; the variable is documented in the README.
pub fn fixtures(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("PLAYHEAD_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures"), PathBuf::from);
    let folder = root.join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    println!(
        "skipped: {} is not there; set PLAYHEAD_FIXTURES to the folder that holds {name}",
        folder.display()
    );
    None
}

/// Rows of every bronze, silver and gold table without the columns that tell when and where a record
/// was received or which versions a row was computed from: what must not depend on delivery.
pub fn contents(bench: &Bench) -> std::collections::BTreeMap<String, Vec<String>> {
    const BY_DELIVERY: [&str; 6] = [
        "received_at",
        "source_partition",
        "source_offset",
        "source_attributes",
        "silver_versions",
        "is_final",
    ];
    let tables = [
        "bronze.player_events",
        "bronze.cdn_logs",
        "silver.player_events",
        "silver.playback_intervals",
        "silver.playback_sessions",
        "silver.cdn_requests",
        "gold.playback_1m",
        "gold.errors_1m",
        "gold.cdn_1m",
        "gold.delivery_1m",
        "gold.audience_1m",
    ];
    let mut contents = std::collections::BTreeMap::new();
    for table in tables {
        let rows = bench.sql(&format!("SELECT * FROM {table}"));
        let mut rows: Vec<String> = rows
            .into_iter()
            .map(|mut row| {
                if let Some(row) = row.as_object_mut() {
                    BY_DELIVERY.iter().for_each(|column| {
                        row.remove(*column);
                    });
                }
                row.to_string()
            })
            .collect();
        rows.sort();
        contents.insert(table.to_string(), rows);
    }
    contents
}

/// Writes a simulated audience into the bench; gives its folder.
#[track_caller]
pub fn simulate(bench: &Bench, options: &[&str]) -> PathBuf {
    let folder = bench.path("simulated");
    let output = Command::new(PLAYHEAD)
        .arg("simulate")
        .arg(&folder)
        .args(options)
        .output()
        .expect("the binary starts");
    assert!(
        output.status.success(),
        "simulate failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    folder
}
