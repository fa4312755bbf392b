//! Pages and lists that are made from the code must say what the code says.

use std::path::Path;

use crate::support::{Bench, PLAYHEAD};

fn repository(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn the_page_of_the_tables_is_what_the_binary_prints() {
    let output = Bench::new()
        .command(&["tables"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("the binary starts");
    let printed = String::from_utf8(output.stdout).expect("the page is text");
    let page = std::fs::read_to_string(repository("docs/tables.md")).unwrap_or_default();
    assert!(
        printed == page,
        "docs/tables.md is out of date; run: playhead tables > docs/tables.md"
    );
}

#[test]
fn every_shipped_file_is_compiled_in() {
    for (folder, ending, module) in [
        ("pipelines", "sql", "src/builtin.rs"),
        ("views", "sql", "src/sql/views.rs"),
        ("alerts", "yaml", "src/builtin.rs"),
        ("dashboards", "json", "src/builtin.rs"),
    ] {
        let builtin = std::fs::read_to_string(repository(module)).expect("the module is there");
        for entry in std::fs::read_dir(repository(folder)).expect("the folder is there").flatten() {
            let name = entry.file_name().into_string().expect("a plain name");
            if name.ends_with(ending) {
                assert!(
                    builtin.contains(&format!("../{folder}/{name}\")")),
                    "{folder}/{name} is not in {module}"
                );
            }
        }
    }
}

#[test]
fn every_command_shows_an_example() {
    let help = std::process::Command::new(PLAYHEAD)
        .arg("--help")
        .output()
        .expect("the binary starts");
    let help = String::from_utf8(help.stdout).expect("help is text");
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .map_while(|line| line.strip_prefix("  "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.len() > 5, "the list of commands was not understood: {help}");
    for command in commands {
        let help = std::process::Command::new(PLAYHEAD)
            .args([command, "--help"])
            .output()
            .expect("the binary starts");
        let help = String::from_utf8(help.stdout).expect("help is text");
        assert!(help.contains("Example"), "`playhead {command} --help` shows no example");
    }
}
