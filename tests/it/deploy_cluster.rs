//! The files of `deploy/cluster/`: each part's settings are read by the program, and the parts fit each other.
//!
//! No cluster is started: `tests/it/cluster.rs` runs the roles. Where docker compose or kubectl is on the machine it
//! has the last word.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::PLAYHEAD;

const INSIDE: &str = "/etc/playhead/playhead.yaml";
/// Part of a cluster, its role, and what it is given from the environment.
const PARTS: [(&str, &str); 6] = [
    ("ingest.yaml", "ingest"),
    ("collect.yaml", "collect"),
    ("serve.yaml", "serve"),
    ("kubernetes/ingest.settings.yaml", "ingest"),
    ("kubernetes/collect.settings.yaml", "collect"),
    ("kubernetes/serve.settings.yaml", "serve"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/cluster")
}

#[track_caller]
fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("deploy/cluster/{name}: {error}"))
}

/// The documents of a file.
#[track_caller]
fn documents(name: &str) -> Vec<Value> {
    let text = read(name);
    let parts = text.split("\n---\n");
    parts
        .map(|part| serde_saphyr::from_str(part).unwrap_or_else(|error| panic!("deploy/cluster/{name}: {error}")))
        .collect()
}

#[track_caller]
fn yaml(name: &str) -> Value {
    documents(name).remove(0)
}

fn texts(list: &Value) -> Vec<String> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| Some(item.as_str()?.to_owned())).collect()
}

fn playhead(arguments: &[&str], settings: &str) -> std::process::Output {
    // Elsewhere, so that no ./alerts or ./pipelines of the repository is found.
    let elsewhere = tempfile::tempdir().expect("a temporary folder can be made");
    Command::new(PLAYHEAD)
        .args(arguments)
        .arg("--settings")
        .arg(folder().join(settings))
        .current_dir(elsewhere.path())
        .env("POD_NAME", "playhead-ingest-0")
        .env("PLAYHEAD_KEY", crate::support::KEY)
        .env("PLAYHEAD_PASSWORD", "of-this-test")
        .output()
        .expect("the binary starts")
}

#[test]
fn playhead_accepts_the_settings_of_every_part_in_its_role() {
    for (file, role) in PARTS {
        let output = playhead(&["check"], file);
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(yaml(file)["role"], role, "{file}");
    }
}

#[test]
fn every_topic_that_the_parts_name_is_created() {
    let script = read("topics.sh");
    let names = |variable: &str, layer: &str| -> BTreeSet<String> {
        let start = format!("\n{variable}=\"");
        let (_, rest) = script.split_once(&start).expect("the script names them");
        let (list, _) = rest.split_once('"').expect("a list ends");
        list.split(' ').map(|name| format!("playhead.{layer}.{name}")).collect()
    };
    let created: BTreeSet<String> = names("silver", "silver").into_iter().chain(names("gold", "gold")).collect();
    let output = playhead(&["arroyo", "plan", "--json"], "collect.yaml");
    let plan: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut planned: BTreeSet<String> = crate::relay::VIEWS
        .iter()
        .map(|(view, ..)| format!("playhead.silver.{view}"))
        .collect();
    for body in plan["bodies"].as_array().expect("a list") {
        let text = body["query"].as_str().expect("a text");
        let topics = text.split("topic = '").skip(1).filter_map(|rest| rest.split('\'').next());
        planned.extend(topics.map(str::to_owned));
    }
    assert_eq!(created, planned);
}

/// A subtask that reads two partitions takes rows for late, so the relay refuses such topics.
#[test]
fn every_part_knows_the_same_number_of_subtasks_and_silver_has_no_more_partitions() {
    let subtasks = |file: &str| yaml(file)["arroyo"]["parallelism"].as_u64().expect("a whole number");
    assert_eq!(subtasks("ingest.yaml"), subtasks("collect.yaml"));
    assert_eq!(
        subtasks("kubernetes/ingest.settings.yaml"),
        subtasks("kubernetes/collect.settings.yaml")
    );
    let compose = yaml("compose.yaml");
    let services = compose["services"].as_object().expect("services by name");
    let partitions = services
        .values()
        .filter_map(|service| service["environment"]["SILVER_PARTITIONS"].as_str());
    let partitions: Vec<u64> = partitions.map(|text| text.parse().expect("a whole number")).collect();
    let [partitions] = partitions[..] else {
        panic!("one container makes the topics: {partitions:?}")
    };
    assert!((1..=subtasks("ingest.yaml")).contains(&partitions), "{partitions}");
}

#[test]
fn the_containers_of_the_compose_file_have_their_settings_lakes_and_loopback_ports() {
    let compose = yaml("compose.yaml");
    let services = compose["services"].as_object().expect("services");
    let mut lakes = Vec::new();
    for (name, service) in services {
        let mounts = texts(&service["volumes"]);
        for mount in mounts.iter().filter(|mount| mount.starts_with("./")) {
            let file = mount.split(':').next().unwrap_or_default();
            assert!(folder().join(file).exists(), "{name}: {mount}");
        }
        for mount in mounts.iter().filter(|mount| !mount.starts_with("./")) {
            let volume = mount.split(':').next().unwrap_or_default();
            let is_known = compose["volumes"].as_object().is_some_and(|all| all.contains_key(volume));
            assert!(is_known, "{name}: {mount}");
        }
        for published in texts(&service["ports"]) {
            assert!(published.starts_with("127.0.0.1:"), "{name}: {published} is open to the network");
        }
        if let Some(lake) = mounts.iter().find(|mount| mount.contains(":/lake")) {
            assert!(
                mounts.iter().any(|mount| mount.ends_with(&format!(":{INSIDE}:ro"))),
                "{name}: {mounts:?}"
            );
            lakes.push((name.clone(), lake.clone()));
        }
    }
    lakes.sort_unstable();
    let expected = [
        ("collector", "collected:/lake"),
        ("deploy", "collected:/lake"),
        ("ingest-0", "ingest-0:/lake"),
        ("ingest-1", "ingest-1:/lake"),
        ("server", "collected:/lake:ro"),
    ];
    let lakes: Vec<(&str, &str)> = lakes.iter().map(|(name, lake)| (name.as_str(), lake.as_str())).collect();
    assert_eq!(
        lakes, expected,
        "each ingest daemon has its own lake, and one process writes the collected one"
    );
    for (name, _) in expected {
        let service = &services[name];
        assert!(service["command"].is_null() || name == "deploy", "{name} runs what the image runs");
    }
    let has_compose = Command::new("docker").args(["compose", "version"]).output();
    if !has_compose.is_ok_and(|output| output.status.success()) {
        return println!("skipped: no `docker compose` here; run `docker compose -f deploy/cluster/compose.yaml config -q`");
    }
    let mut command = Command::new("docker");
    command.args(["compose", "-f"]).arg(folder().join("compose.yaml"));
    let output = command
        .args(["--profile", "deploy", "--profile", "collector", "config", "--quiet"])
        .output()
        .expect("it ran a moment ago");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The pod of a workload.
fn pod(object: &Value) -> &Value {
    &object["spec"]["template"]["spec"]
}

#[test]
fn the_pods_of_the_manifests_have_one_collector_their_settings_and_no_rights() {
    let kustomization = yaml("kubernetes/kustomization.yaml");
    let mut named: BTreeSet<String> = texts(&kustomization["resources"]).into_iter().collect();
    let mut settings: Vec<(String, String)> = Vec::new();
    for map in kustomization["configMapGenerator"].as_array().expect("a list") {
        let files = texts(&map["files"]);
        let (_, file) = files[0].split_once('=').expect("the name inside, and the file");
        settings.push((map["name"].as_str().expect("a name").to_owned(), file.to_owned()));
        named.insert(file.to_owned());
    }
    // Created by hand, again and again; and the file itself.
    named.extend(["deploy.job.yaml", "kustomization.yaml"].map(str::to_owned));
    let there = std::fs::read_dir(folder().join("kubernetes"))
        .expect("the folder is there")
        .flatten();
    let there: BTreeSet<String> = there.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(named, there);

    for (file, part) in [
        ("ingest", "ingest"),
        ("collect", "collect"),
        ("serve", "serve"),
        ("deploy.job", "collect"),
    ] {
        let workload = yaml(&format!("kubernetes/{file}.yaml"));
        let pod = pod(&workload);
        let container = &pod["containers"][0];
        let map = pod["volumes"]
            .as_array()
            .expect("volumes")
            .iter()
            .find(|volume| volume["name"] == "settings");
        assert_eq!(map.expect("settings")["configMap"]["name"], format!("playhead-{part}"), "{file}");
        assert!(
            settings.contains(&(format!("playhead-{part}"), format!("{part}.settings.yaml"))),
            "{settings:?}"
        );
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{file}");
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{file}");
        assert_eq!(
            container["securityContext"]["capabilities"]["drop"],
            Value::from(vec!["ALL"]),
            "{file}"
        );
        assert!(container["resources"]["limits"]["memory"].is_string(), "{file}");
        let selected = &workload["spec"]["selector"]["matchLabels"];
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        assert!(selected.is_null() || selected == labels, "{file}: {selected}");
    }
    assert_eq!(
        yaml("kubernetes/collect.yaml")["spec"]["replicas"],
        0,
        "it begins once the pipelines are deployed"
    );
    let url = |file: &str| yaml(&format!("kubernetes/{file}.settings.yaml"))["lake"]["url"].clone();
    assert_eq!(url("serve"), url("collect"), "servers read what the collector writes");
    assert!(
        url("ingest").as_str().is_some_and(|url| url.ends_with("/${POD_NAME}")),
        "each ingest daemon has its own lake"
    );
    let ingest = yaml("kubernetes/ingest.yaml");
    assert_eq!(pod(&ingest)["containers"][0]["env"][0]["name"], "POD_NAME");
    let built = Command::new("kubectl").arg("kustomize").arg(folder().join("kubernetes")).output();
    match built {
        Ok(built) => assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr)),
        Err(error) => println!("skipped: kubectl kustomize: {error}"),
    }
}
