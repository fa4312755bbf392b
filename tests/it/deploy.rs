//! The files of `deploy/`: each is read as its own tool would, and what it names must exist.
//!
//! Where a tool is on the machine (systemd-analyze, docker compose, kubectl) it has the last word; where
//! it is not, the test says `skipped: ...` and keeps to what can be read without it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use playhead::serve::dashboard::{DATA_SOURCE_TYPE, DATA_SOURCE_UID};
use serde_json::Value;

use crate::support::PLAYHEAD;

const SETTINGS_INSIDE: &str = "/etc/playhead/playhead.yaml";

// ---- settings ----

/// Settings of each way to deploy, and the command line that reads them there.
fn ways() -> [(&'static str, PathBuf, Vec<String>); 5] {
    let unit = Unit::read("playhead.service");
    let mut systemd: Vec<String> = unit.value("ExecStart").split_whitespace().map(str::to_owned).collect();
    assert_eq!(systemd.remove(0), "/usr/local/bin/playhead");
    let container = docker_list("CMD");
    let pod = texts(&container_of(&yaml("kubernetes/statefulset.yaml"))["args"]);
    [
        ("systemd", deploy("playhead.yaml"), systemd),
        ("Docker", deploy("container.yaml"), container.clone()),
        ("compose with Kafka", deploy("container.kafka.yaml"), container.clone()),
        ("compose with Kafka and Grafana", deploy("container.grafana.yaml"), container),
        ("Kubernetes", deploy("kubernetes/playhead.yaml"), pod),
    ]
}

#[test]
fn playhead_accepts_the_settings_of_every_way_to_deploy_it() {
    for (way, settings, _) in ways() {
        // Elsewhere, so that no ./alerts or ./pipelines of the repository is found.
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut command = Command::new(PLAYHEAD);
        command.args(["check", "--settings"]).arg(&settings).current_dir(folder.path());
        command.env("PLAYHEAD_PASSWORD", "of-this-test");
        let output = command.output().expect("the binary starts");
        assert!(output.status.success(), "{way}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_command_line_is_one_that_playhead_run_knows() {
    let help = stdout(Command::new(PLAYHEAD).args(["run", "--help"]));
    for (way, _, line) in ways() {
        assert_eq!(line, ["run", "--settings", SETTINGS_INSIDE], "{way}");
        for option in line.iter().filter(|word| word.starts_with("--")) {
            assert!(help.contains(option.as_str()), "{way}: `playhead run` does not know {option}");
        }
    }
}

#[test]
fn the_page_names_only_settings_that_exist() {
    let reference = stdout(Command::new(PLAYHEAD).arg("settings"));
    let reference: Value = serde_saphyr::from_str(&reference).expect("the reference is YAML");
    let known = keys(&reference, "");
    let is_setting = |word: &&str| {
        let section = word.split('.').next().unwrap_or_default();
        word.contains('.') && !word.contains(' ') && reference[section].is_object()
    };
    let files = ["README.md", "playhead.service", "compose.yaml", "kubernetes/statefulset.yaml"];
    let mut named = 0;
    for file in files {
        let text = read(file);
        for word in text.split('`').skip(1).step_by(2).filter(is_setting) {
            assert!(known.contains(word), "{file}: no setting {word}");
            named += 1;
        }
    }
    assert!(named >= 5, "only {named} settings were looked at");
}

#[test]
fn data_lives_on_what_outlives_the_process() {
    let data = |file: &str| yaml(file)["data"].as_str().expect("data is set").to_owned();
    let unit = Unit::read("playhead.service");
    let states: Vec<String> = unit
        .value("StateDirectory")
        .split_whitespace()
        .map(|name| format!("/var/lib/{name}"))
        .collect();
    assert!(states.contains(&data("playhead.yaml")), "{states:?}");
    for source in yaml("playhead.yaml")["sources"].as_array().expect("a list") {
        let path = source["path"].as_str().expect("a path");
        assert!(states.iter().any(|state| state == path), "{path} is not among {states:?}");
    }
    let compose = yaml("compose.yaml");
    let mounts = texts(&compose["services"]["playhead"]["volumes"]);
    let lake = format!("lake:{}", data("container.yaml"));
    assert!(mounts.contains(&lake), "{mounts:?}");
    assert!(
        mounts.contains(&format!("./${{SETTINGS:-container.yaml}}:{SETTINGS_INSIDE}:ro")),
        "{mounts:?}"
    );
    assert!(compose["volumes"].as_object().is_some_and(|volumes| volumes.contains_key("lake")));
    assert_eq!(docker_line("VOLUME"), data("container.yaml"));
    let set = yaml("kubernetes/statefulset.yaml");
    let claim = &set["spec"]["volumeClaimTemplates"][0]["metadata"]["name"];
    let mount = find(&container_of(&set)["volumeMounts"], "name", claim.as_str().expect("a name"));
    assert_eq!(mount["mountPath"], data("kubernetes/playhead.yaml"));
}

#[test]
fn ports_that_are_opened_are_ports_that_are_listened_on() {
    let port = |file: &str, key: &str| {
        let settings = yaml(file);
        let address = settings["http"][key].as_str().unwrap_or_else(|| panic!("{file}: no http.{key}"));
        address.rsplit(':').next().expect("a port").to_owned()
    };
    let (events, status) = (port("container.yaml", "listen"), port("container.yaml", "status"));
    assert_eq!(docker_line("EXPOSE"), format!("{events} {status}"));
    assert!(docker_list("HEALTHCHECK")[2].contains(&format!("/dev/tcp/127.0.0.1/{status} ")));
    for published in texts(&yaml("compose.yaml")["services"]["playhead"]["ports"]) {
        let inside = published.rsplit(':').next().expect("a port");
        assert!([&events, &status].contains(&&inside.to_owned()), "{published}");
        assert!(published.starts_with("127.0.0.1:"), "{published} is open to the network");
    }
    let set = yaml("kubernetes/statefulset.yaml");
    let service = yaml("kubernetes/service.yaml");
    for (name, key) in [("events", "listen"), ("status", "status")] {
        let expected = port("kubernetes/playhead.yaml", key);
        let container_port = find(&container_of(&set)["ports"], "name", name)["containerPort"].to_string();
        let service_port = find(&service["spec"]["ports"], "name", name);
        assert_eq!(
            (container_port.as_str(), service_port["targetPort"].as_str()),
            (expected.as_str(), Some(name))
        );
    }
    let annotations = &set["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations["prometheus.io/port"], port("kubernetes/playhead.yaml", "status"));
    assert_eq!(annotations["prometheus.io/path"], "/metrics");
}

// ---- Kubernetes ----

#[test]
fn the_pod_is_probed_where_it_answers_and_has_time_to_stop() {
    let set = yaml("kubernetes/statefulset.yaml");
    let container = container_of(&set);
    for (probe, path) in [
        ("startupProbe", "/healthz"),
        ("livenessProbe", "/healthz"),
        ("readinessProbe", "/readyz"),
    ] {
        let get = &container[probe]["httpGet"];
        assert_eq!(
            (&get["path"], &get["port"]),
            (&Value::from(path), &Value::from("status")),
            "{probe}"
        );
    }
    let pod = &set["spec"]["template"]["spec"];
    assert!(pod["terminationGracePeriodSeconds"].as_i64() >= Some(60), "{pod}");
    assert_eq!(set["spec"]["replicas"], 1, "a lake has one writer");
}

#[test]
fn no_pod_and_no_container_runs_as_root_or_writes_into_its_image() {
    let set = yaml("kubernetes/statefulset.yaml");
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let container = container_of(&set);
    let security = &container["securityContext"];
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["capabilities"]["drop"], Value::from(vec!["ALL"]));
    let user = pod["securityContext"]["runAsUser"].to_string();
    assert_eq!(docker_line("USER"), format!("{user}:{user}"));
    let compose = yaml("compose.yaml");
    assert_eq!(compose["services"]["playhead"]["read_only"], true);
    assert_eq!(compose["services"]["playhead"]["cap_drop"], Value::from(vec!["ALL"]));
}

#[test]
fn the_manifests_build_and_fit_each_other() {
    let kustomization = yaml("kubernetes/kustomization.yaml");
    let mut files: BTreeSet<String> = texts(&kustomization["resources"]).into_iter().collect();
    files.extend(texts(&kustomization["configMapGenerator"][0]["files"]));
    files.insert("kustomization.yaml".to_owned());
    let there = std::fs::read_dir(deploy("kubernetes")).expect("the folder is there").flatten();
    let there: BTreeSet<String> = there.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(files, there, "kustomization.yaml names every file of its folder");
    // Without a selector a disruption budget covers every pod of the namespace.
    let budget = yaml("kubernetes/disruption.yaml");
    let labels = &kustomization["labels"][0]["pairs"];
    assert_eq!(&budget["spec"]["selector"]["matchLabels"], labels);

    let Some(built) = tool("kubectl", &["kustomize"], &[&deploy("kubernetes")]) else {
        return;
    };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let text = String::from_utf8_lossy(&built.stdout).into_owned();
    let objects: Vec<Value> = text
        .split("\n---\n")
        .map(|document| serde_saphyr::from_str(document).expect("kustomize writes YAML"))
        .collect();
    let of_kind = |kind: &str| {
        let found = objects.iter().find(|object| object["kind"] == kind);
        found.unwrap_or_else(|| panic!("no {kind} in\n{text}"))
    };
    let pod = &of_kind("StatefulSet")["spec"]["template"];
    let pod_labels = &pod["metadata"]["labels"];
    assert_eq!(&of_kind("Service")["spec"]["selector"], pod_labels);
    assert_eq!(&of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"], pod_labels);
    assert_eq!(&of_kind("StatefulSet")["spec"]["selector"]["matchLabels"], pod_labels);
    let settings = find(&pod["spec"]["volumes"], "name", "settings");
    assert_eq!(settings["configMap"]["name"], of_kind("ConfigMap")["metadata"]["name"]);
    check_with_a_cluster();
}

fn check_with_a_cluster() {
    let answers = tool("kubectl", &["version", "--request-timeout=2s"], &[]);
    if !answers.is_some_and(|output| output.status.success()) {
        return println!("skipped: kubectl has no cluster to ask; run `kubectl apply --dry-run=server -k deploy/kubernetes`");
    }
    let kubernetes = deploy("kubernetes");
    if let Some(output) = tool("kubectl", &["apply", "--dry-run=client", "-k"], &[&kubernetes]) {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

// ---- Docker ----

#[test]
fn the_image_is_built_from_files_that_are_there_and_that_the_build_may_see() {
    let ignore = read("Dockerfile.dockerignore");
    let seen: Vec<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let dockerfile = read("Dockerfile");
    let copies = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY "));
    let mut copied = 0;
    for copy in copies.filter(|copy| !copy.starts_with("--from")) {
        let words: Vec<&str> = copy.split_whitespace().collect();
        for source in &words[..words.len() - 1] {
            assert!(root().join(source).exists(), "COPY {source}: not there");
            assert!(seen.contains(source), "COPY {source}: Dockerfile.dockerignore hides it");
            copied += 1;
        }
    }
    assert!(copied >= 6, "only {copied} sources were looked at");
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("there is a Cargo.toml");
    let release = manifest.lines().find_map(|line| line.strip_prefix("rust-version = "));
    let release = release.expect("Cargo.toml names its Rust").trim_matches('"');
    assert!(
        dockerfile.contains(&format!("FROM rust:{release}-")),
        "not built with Rust {release}"
    );
}

#[test]
fn compose_reads_its_file() {
    let compose = yaml("compose.yaml");
    let services = compose["services"].as_object().expect("services");
    for (name, service) in services {
        let profiles = texts(&service["profiles"]);
        let expected: &[&str] = if name == "playhead" { &[] } else { &[name.as_str()] };
        assert_eq!(profiles, expected, "{name} starts only when its profile is asked for");
        let named = texts(&service["volumes"]).into_iter().filter(|mount| !mount.starts_with('.'));
        for mount in named {
            let volume = mount.split(':').next().unwrap_or_default().to_owned();
            assert!(
                compose["volumes"].as_object().is_some_and(|all| all.contains_key(&volume)),
                "{mount}"
            );
        }
    }
    let settings = yaml("container.kafka.yaml");
    let broker = settings["sources"][0]["kafka"]["brokers"].as_str().expect("a broker");
    let advertised = compose["services"]["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].as_str();
    assert!(
        advertised.is_some_and(|listeners| listeners.contains(&format!("://{broker},"))),
        "{advertised:?}"
    );
    for key in ["listen", "status"] {
        assert_eq!(
            settings["http"][key],
            yaml("container.yaml")["http"][key],
            "the same ports are published"
        );
    }
    let file = deploy("compose.yaml");
    let has_compose = tool("docker", &["compose", "version"], &[]).is_some_and(|output| output.status.success());
    if !has_compose {
        return println!(
            "skipped: no `docker compose` here; run `docker compose -f deploy/compose.yaml --profile kafka --profile grafana config -q`"
        );
    }
    let mut command = Command::new("docker");
    command
        .args(["compose", "-f"])
        .arg(file)
        .args(["--profile", "kafka", "--profile", "grafana", "config", "--quiet"]);
    let output = command.output().expect("it ran a moment ago");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

// ---- Grafana ----

#[test]
fn grafana_asks_where_playhead_answers() {
    let source = yaml("grafana/provisioning/datasources/playhead.yaml")["datasources"][0].clone();
    assert_eq!(source["uid"], DATA_SOURCE_UID, "the dashboards name it so");
    assert_eq!(source["type"], DATA_SOURCE_TYPE);
    assert_eq!(source["secureJsonData"]["password"], "$PLAYHEAD_PASSWORD", "no password in a file");
    let compose = yaml("compose.yaml");
    let environment = &compose["services"]["grafana"]["environment"];
    // Grafana puts nothing in for a variable that is not set, and says nothing.
    for value in [
        &source["url"],
        &source["user"],
        &source["jsonData"]["sslmode"],
        &source["secureJsonData"]["password"],
    ] {
        let name = value.as_str().and_then(|text| text.strip_prefix('$')).expect("a variable");
        assert!(environment[name].is_string(), "compose.yaml does not set {name}");
    }
    let postgres = yaml("container.grafana.yaml")["postgres"].clone();
    let port = postgres["listen"]
        .as_str()
        .and_then(|listen| listen.rsplit(':').next())
        .expect("a port");
    assert_eq!(environment["PLAYHEAD_POSTGRES"], format!("playhead:{port}"));
    assert_eq!(environment["PLAYHEAD_USER"], postgres["user"]);
    assert_eq!(postgres["password"], "${PLAYHEAD_PASSWORD}");
    let of_playhead = &compose["services"]["playhead"]["environment"]["PLAYHEAD_PASSWORD"];
    assert_eq!(&environment["PLAYHEAD_PASSWORD"], of_playhead);
    let kafka = yaml("container.kafka.yaml");
    assert_eq!(yaml("container.grafana.yaml")["sources"], kafka["sources"], "the same broker");
    assert_eq!(
        yaml("container.grafana.yaml")["http"],
        kafka["http"],
        "the same ports are published"
    );
}

#[test]
fn grafana_finds_the_dashboards_where_they_are_mounted() {
    let provider = yaml("grafana/provisioning/dashboards/playhead.yaml")["providers"][0].clone();
    let path = provider["options"]["path"].as_str().expect("a path").to_owned();
    let grafana = yaml("compose.yaml")["services"]["grafana"].clone();
    let mounts = texts(&grafana["volumes"]);
    assert!(mounts.contains(&format!("../dashboards:{path}:ro")), "{mounts:?}");
    assert!(
        mounts.contains(&"./grafana/provisioning:/etc/grafana/provisioning:ro".to_owned()),
        "{mounts:?}"
    );
    let home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        .as_str()
        .expect("a file");
    let file = home.strip_prefix(&format!("{path}/")).expect("one of those that are mounted");
    assert!(root().join("dashboards").join(file).exists(), "{file}");
    for published in texts(&grafana["ports"]) {
        assert!(published.starts_with("127.0.0.1:"), "{published} is open to the network");
    }
}

// ---- systemd ----

#[test]
fn the_unit_is_held_back_from_everything_that_it_does_not_need() {
    let unit = Unit::read("playhead.service");
    for (key, expected) in [
        ("User", "playhead"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("LimitCORE", "0"),
        ("KillSignal", "SIGTERM"),
        ("Restart", "on-failure"),
        ("RestartPreventExitStatus", "64"),
    ] {
        assert_eq!(unit.value(key), expected, "{key}");
    }
    let patience: u64 = unit.value("TimeoutStopSec").parse().expect("seconds");
    assert!(patience >= 60, "an epoch in hand may take longer than {patience} s");
    assert!(read("playhead.sysusers").contains(&format!("\nu {} ", unit.value("User"))));
}

#[test]
fn systemd_accepts_the_unit_and_finds_it_well_protected() {
    // The program stands elsewhere on this machine; nothing else of the unit is changed.
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let copy = folder.path().join("playhead.service");
    let text = read("playhead.service").replace("/usr/local/bin/playhead run", &format!("{PLAYHEAD} run"));
    std::fs::write(&copy, text).expect("a file can be written");
    let Some(verified) = tool("systemd-analyze", &["verify", "--man=no"], &[&copy]) else {
        return;
    };
    let complaints = String::from_utf8_lossy(&verified.stderr).into_owned();
    let ours: Vec<&str> = complaints.lines().filter(|line| line.contains("playhead")).collect();
    assert!(ours.is_empty(), "{}", ours.join("\n"));
    let Some(judged) = tool("systemd-analyze", &["security", "--offline=true"], &[&copy]) else {
        return;
    };
    if !judged.status.success() {
        return println!("skipped: this systemd-analyze cannot judge a unit that is not installed");
    }
    let judgement = String::from_utf8_lossy(&judged.stdout).into_owned();
    let level = judgement.split("Overall exposure level for playhead.service: ").nth(1);
    let level: f64 = level
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .expect("a level from 0 to 10");
    assert!(level <= 2.0, "{judgement}");
}

/// The text of a unit, key by key.
struct Unit(String);

impl Unit {
    fn read(name: &str) -> Unit {
        Unit(read(name))
    }

    /// The one value of a key.
    #[track_caller]
    fn value(&self, key: &str) -> String {
        let lines = self.0.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let values: Vec<&str> = lines.collect();
        assert_eq!(values.len(), 1, "{key} stands {} times", values.len());
        values[0].to_owned()
    }
}

// ---- reading ----

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn deploy(name: &str) -> PathBuf {
    root().join("deploy").join(name)
}

#[track_caller]
fn read(name: &str) -> String {
    std::fs::read_to_string(deploy(name)).unwrap_or_else(|error| panic!("deploy/{name}: {error}"))
}

#[track_caller]
fn yaml(name: &str) -> Value {
    serde_saphyr::from_str(&read(name)).unwrap_or_else(|error| panic!("deploy/{name}: {error}"))
}

fn container_of(set: &Value) -> Value {
    set["spec"]["template"]["spec"]["containers"][0].clone()
}

/// The item of a list whose `key` has this value.
#[track_caller]
fn find(list: &Value, key: &str, value: &str) -> Value {
    let items = list.as_array().unwrap_or_else(|| panic!("not a list: {list}"));
    let found = items.iter().find(|item| item[key] == value);
    found.unwrap_or_else(|| panic!("nothing with {key} {value} in {list}")).clone()
}

fn texts(list: &Value) -> Vec<String> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| Some(item.as_str()?.to_owned())).collect()
}

/// What follows the last instruction of this name in the Dockerfile, on its line or the next.
#[track_caller]
fn docker_line(instruction: &str) -> String {
    let text = read("Dockerfile").replace("\\\n", " ");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(instruction)?.strip_prefix(' '));
    let line = lines.next_back().unwrap_or_else(|| panic!("no {instruction} in the Dockerfile"));
    line.trim().to_owned()
}

/// The list in brackets of such a line.
#[track_caller]
fn docker_list(instruction: &str) -> Vec<String> {
    let line = docker_line(instruction);
    let list = &line[line.find('[').expect("a list")..];
    serde_json::from_str(list).expect("the exec form is JSON")
}

/// Every key of the settings as a path with dots.
fn keys(value: &Value, path: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (key, below) in value.as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        found.extend(keys(below, &path));
        found.insert(path);
    }
    found
}

#[track_caller]
fn stdout(command: &mut Command) -> String {
    let output = command.output().expect("the binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Runs a tool; `None`, and a line that says so, where it is not on this machine.
fn tool(name: &str, arguments: &[&str], files: &[&Path]) -> Option<Output> {
    match Command::new(name).args(arguments).args(files).output() {
        Ok(output) => Some(output),
        Err(error) => {
            println!("skipped: {name} {}: {error}", arguments.join(" "));
            None
        }
    }
}
