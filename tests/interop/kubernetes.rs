//! The manifests for Kubernetes: held against their schemas, a catalogue of policies, each other and
//! the program. The pod that they describe runs without Kubernetes.

mod pod;
mod replicas;
mod rollout;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::deploy::{seconds_to_stop, shipped, text_of};
use crate::support::Home;
use crate::support::command::{Ended, installed, run, run_with_input, succeed};

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/kubernetes");
const SETTINGS: &str = include_str!("../../docs/settings.md");
const OPERATIONS: &str = include_str!("../../docs/operations.md");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The objects that `kubectl apply` would send to the cluster.
struct Manifests {
    text: String,
    all: Vec<Value>,
}

impl Manifests {
    /// The shipped manifests, made once by the commands of the documents.
    fn shipped() -> &'static Self {
        static SHIPPED: OnceLock<Manifests> = OnceLock::new();
        SHIPPED.get_or_init(|| Self::made_by(&documented_commands(0), ONE))
    }

    /// Makes the manifests in a directory.
    fn made_by(commands: &str, directory: &str) -> Self {
        let text = render(commands, directory);
        let all = serde_json::from_value(validate(&text).json()).unwrap();
        Self { text, all }
    }

    #[track_caller]
    fn get(&self, kind: &str, name: &str) -> &Value {
        let is_it =
            |manifest: &&Value| manifest["kind"] == kind && manifest["metadata"]["name"] == name;
        self.all.iter().find(is_it).unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    /// The pod, with its metadata.
    fn pod(&self) -> &Value {
        let has_pod = |manifest: &&Value| manifest["spec"]["template"].is_object();
        &self.all.iter().find(has_pod).expect("a pod")["spec"]["template"]
    }

    fn configuration(&self) -> &str {
        self.get("ConfigMap", "grantd")["data"]["grantd.toml"].as_str().unwrap()
    }
}

/// Returns the commands of one of the blocks in the documents.
fn documented_commands(block: usize) -> String {
    let section = OPERATIONS.split("\n## Kubernetes\n").nth(1).expect("a section");
    let block = section.split("```console\n").nth(block + 1).expect("a block of commands");
    block.split("```").next().unwrap().to_owned()
}

/// The directory of one pod with files.
const ONE: &str = "kubernetes";

/// Runs the commands in a copy of the shipped files of `directory`. A stand-in for `kubectl apply` prints what would
/// be sent to the cluster.
fn render(commands: &str, directory: &str) -> String {
    let work = TempDir::new().unwrap();
    let at = |name: &str| work.path().join(name);
    let copy = at("deploy").join(directory);
    fs::create_dir_all(&copy).unwrap();
    for file in manifest_files(directory) {
        fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
    }
    // The files that an operator has made before.
    for name in ["master.key", "pgpass", "database-ca.pem", "admin-token"] {
        fs::write(at(name), format!("{name}\n")).unwrap();
    }
    let kubectl = succeed(Command::new("sh").args(["-c", "command -v kubectl"]));
    let stand_in = "#!/bin/sh\n[ \"$1 $2 $3\" = \"apply --server-side -k\" ] || exit 2\n";
    fs::create_dir(at("bin")).unwrap();
    fs::write(at("bin/kubectl"), format!("{stand_in}exec {} kustomize \"$4\"\n", kubectl.trim()))
        .unwrap();
    crate::support::home::set_mode(&at("bin/kubectl"), 0o755);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_grantd"), at("bin/grantd")).unwrap();
    let path = format!("{}:{}", at("bin").display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", commands]).env("PATH", path).current_dir(work.path());
    let printed = succeed(&mut shell);
    // `grantd client add` prints the secret before them.
    printed[printed.find("apiVersion:").expect("manifests")..].to_owned()
}

fn manifest_files(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(shipped(directory)).unwrap();
    let files = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    files.collect()
}

/// Holds the manifests against the schemas. Prints them as JSON, and the faults as errors.
fn validate(text: &str) -> Ended {
    let mut python = Command::new(installed("packaging/bin/python"));
    run_with_input(python.arg(Path::new(HERE).join("manifests.py")), text)
}

#[test]
fn the_manifests_are_valid() {
    let text = &Manifests::shipped().text;
    for (right, wrong, says) in [
        ("fsGroup:", "fsgroup:", "Deployment grantd: 1.27: "),
        ("jobLabel:", "joblabel:", "ServiceMonitor grantd: $.spec: Additional properties"),
        ("interval: 15s", "interval: often", "ServiceMonitor grantd: $.spec.endpoints[0].interval"),
    ] {
        assert!(text.contains(right), "{text}");
        let ended = validate(&text.replace(right, wrong));
        assert!(ended.stderr.contains(says), "{}", ended.stderr);
    }
}

#[test]
fn every_manifest_is_applied() {
    for directory in [ONE, replicas::THREE] {
        let kustomization = text_of(&format!("{directory}/kustomization.yaml"));
        let applied = kustomization
            .lines()
            .filter_map(|line| line.strip_prefix("  - ")?.split_once(".yaml"))
            .map(|(name, _)| name.to_owned());
        let applied: BTreeSet<_> = applied.collect();
        let stem = |file: PathBuf| file.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut files: BTreeSet<_> = manifest_files(directory).into_iter().map(stem).collect();
        assert!(files.remove("kustomization"));
        assert_eq!(applied, files);
    }
}

/// Runs checkov on the manifests in `directory`.
fn checkov(directory: &Path) -> Ended {
    let mut checkov = Command::new(installed("checkov/bin/checkov"));
    checkov.args(["--framework", "kubernetes", "secrets", "--skip-download", "--compact"]);
    run(checkov.args(["--quiet", "--directory"]).arg(directory))
}

/// Asserts that checkov has no finding in `directory`, except for those that an annotation of
/// `workload` excludes with a reason. Returns a copy of the manifests.
fn assert_no_finding(directory: &str, workload: &Value) -> TempDir {
    // checkov skips hidden directories.
    let copy = TempDir::with_prefix("manifests").unwrap();
    for file in manifest_files(directory) {
        fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    }
    let reasons = workload["metadata"]["annotations"].as_object().unwrap().values();
    let reasons: Vec<_> = reasons.map(|text| text.as_str().unwrap().split_once('=')).collect();
    assert!(reasons.iter().all(|reason| reason.is_some_and(|(_, reason)| reason.len() > 20)));
    let ended = checkov(copy.path());
    let says = format!("Failed checks: 0, Skipped checks: {}", reasons.len());
    assert!(ended.code == Some(0) && ended.stdout.contains(&says), "{ended:?}");
    copy
}

#[test]
fn no_policy_is_violated_without_a_reason() {
    let copy = assert_no_finding(ONE, Manifests::shipped().get("Deployment", "grantd"));
    let deployment = text_of("kubernetes/deployment.yaml");
    let wrong = deployment.replace("privileged: false", "privileged: true");
    assert_ne!(wrong, deployment);
    fs::write(copy.path().join("deployment.yaml"), wrong).unwrap();
    let ended = checkov(copy.path());
    assert!(
        ended.code == Some(1) && ended.stdout.contains("FAILED for resource: Deployment"),
        "{ended:?}"
    );
}

#[test]
fn the_pod_is_the_program_of_this_version_with_documented_settings() {
    let manifests = Manifests::shipped();
    let pod = manifests.pod();
    let container = &pod["spec"]["containers"][0];
    assert_eq!(pod["spec"]["containers"].as_array().unwrap().len(), 1);
    assert_eq!(container["image"], format!("grantd:{VERSION}"));
    for metadata in [&pod["metadata"], &manifests.get("Deployment", "grantd")["metadata"]] {
        assert_eq!(metadata["labels"]["app.kubernetes.io/version"], VERSION);
    }
    for variable in container["env"].as_array().unwrap() {
        let name = variable["name"].as_str().unwrap();
        assert!(SETTINGS.contains(&format!("`{name}`")), "{name} is no setting");
    }
    let health = ["/usr/local/bin/grantd", "health"];
    let ready = ["/usr/local/bin/grantd", "health", "--ready"];
    for (probe, command) in
        [("startupProbe", &health[..]), ("livenessProbe", &health), ("readinessProbe", &ready)]
    {
        assert_eq!(container[probe]["exec"]["command"], json!(command));
        assert!(container[probe]["httpGet"].is_null());
    }
    // One process writes the files of the volume, and during an update two on one node.
    let deployment = &manifests.get("Deployment", "grantd")["spec"];
    assert_eq!(deployment["replicas"], 1);
    assert_eq!(
        deployment["strategy"]["rollingUpdate"],
        json!({"maxSurge": 1, "maxUnavailable": 0})
    );
    let claim = manifests.get("PersistentVolumeClaim", "grantd");
    assert_eq!(claim["spec"]["accessModes"], json!(["ReadWriteOnce"]));
    let near = "/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/0";
    assert_eq!(pod.pointer(near).unwrap()["topologyKey"], "kubernetes.io/hostname");
}

/// The namespace admits only pods that the standard `restricted` allows, and more is given up than it
/// requires.
#[test]
fn the_security_context_has_no_exception() {
    let manifests = Manifests::shipped();
    let namespace = &manifests.get("Namespace", "grantd")["metadata"]["labels"];
    assert_eq!(namespace["pod-security.kubernetes.io/enforce"], "restricted");
    let spec = &manifests.pod()["spec"];
    assert_eq!(
        spec["securityContext"],
        json!({
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": { "type": "RuntimeDefault" },
        })
    );
    assert_eq!(
        spec["containers"][0]["securityContext"],
        json!({
            "allowPrivilegeEscalation": false,
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        })
    );
    assert_eq!(spec["automountServiceAccountToken"], false);
    for name in ["hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"] {
        assert!(spec[name].is_null(), "{name}");
    }
}

#[test]
fn the_manifests_agree_on_labels_and_the_namespace() {
    let manifests = Manifests::shipped();
    let pod = manifests.pod();
    let labels = &pod["metadata"]["labels"];
    let own = json!({"app.kubernetes.io/name": "grantd"});
    assert_eq!(labels["app.kubernetes.io/name"], "grantd");
    for (kind, name, selector) in [
        ("Deployment", "grantd", "/spec/selector/matchLabels"),
        ("Service", "grantd", "/spec/selector"),
        ("Service", "grantd-admin", "/spec/selector"),
        ("PodDisruptionBudget", "grantd", "/spec/selector/matchLabels"),
        ("NetworkPolicy", "grantd", "/spec/podSelector/matchLabels"),
    ] {
        assert_eq!(manifests.get(kind, name).pointer(selector), Some(&own), "{kind} {name}");
    }
    for manifest in manifests.all.iter().filter(|manifest| manifest["kind"] != "Namespace") {
        assert_eq!(manifest["metadata"]["namespace"], "grantd", "{manifest}");
    }
}

/// The ports of the configuration, of the container, of the services, and those that are let in.
#[test]
fn the_manifests_agree_on_ports() {
    let manifests = Manifests::shipped();
    let configuration = manifests.configuration();
    let container = &manifests.pod()["spec"]["containers"][0];
    let ports = |name: &str| {
        let ports = container["ports"].as_array().unwrap().iter();
        ports.filter(|port| port["name"] == name).map(|port| &port["containerPort"]).next().unwrap()
    };
    for says in [
        format!("\nlisten = [\"0.0.0.0:{}\"]\n", ports("http")),
        format!("\nadmin_listen = \"0.0.0.0:{}\"\n", ports("admin")),
    ] {
        assert!(configuration.contains(&says), "{says}");
    }
    for (service, port) in [("grantd", "http"), ("grantd-admin", "admin")] {
        let service = &manifests.get("Service", service)["spec"]["ports"];
        assert_eq!(
            (service.as_array().unwrap().len(), &service[0]["targetPort"]),
            (1, &json!(port))
        );
    }
    let policy = &manifests.get("NetworkPolicy", "grantd")["spec"];
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    assert!(policy["egress"].as_array().is_none_or(Vec::is_empty));
    let let_in = policy["ingress"].as_array().unwrap().iter().map(|rule| {
        assert!(rule["from"].as_array().is_some_and(|from| !from.is_empty()), "{rule}");
        assert_eq!(rule["ports"].as_array().unwrap().len(), 1);
        rule["ports"][0]["port"].as_str().unwrap()
    });
    assert_eq!(let_in.collect::<Vec<_>>(), ["http", "admin"]);
}

/// The paths of the configuration are in the volumes of the container, whose sources exist.
#[test]
fn the_manifests_agree_on_paths_and_volumes() {
    let manifests = Manifests::shipped();
    let configuration = manifests.configuration();
    let spec = &manifests.pod()["spec"];
    let container = &spec["containers"][0];
    let mounts = container["volumeMounts"].as_array().unwrap();
    let mounted = |name: &str| {
        let mount = mounts.iter().find(|mount| mount["name"] == name).unwrap();
        (mount["mountPath"].as_str().unwrap(), mount["readOnly"] == true)
    };
    let is_set = |setting: &str, path: &str| {
        let line = format!("\n{setting} = \"{path}\"\n");
        assert!(configuration.contains(&line), "{configuration} does not say {line}");
    };
    assert_eq!(container["env"][0]["value"], format!("{}/grantd.toml", mounted("config").0));
    is_set("clients", &format!("{}/clients.json", mounted("clients").0));
    is_set("admin_token_file", &format!("{}/token", mounted("admin").0));
    is_set("keys", &format!("{}/keys", mounted("data").0));
    is_set("state", &format!("{}/state", mounted("data").0));
    let read_only = ["config", "clients", "admin", "data"].map(|name| mounted(name).1);
    assert_eq!(read_only, [true, true, true, false]);
    assert!(mounts.iter().all(|mount| mount["subPath"].is_null()));
    let sources = [
        ("Secret", "/secret/secretName"),
        ("ConfigMap", "/configMap/name"),
        ("PersistentVolumeClaim", "/persistentVolumeClaim/claimName"),
    ];
    for volume in spec["volumes"].as_array().unwrap() {
        let name = |place: &str| volume.pointer(place).and_then(Value::as_str);
        let found = sources.into_iter().find_map(|(kind, place)| Some((kind, name(place)?)));
        let (kind, name) = found.expect("a known kind of volume");
        manifests.get(kind, name);
        assert!(kind != "Secret" || volume["secret"]["defaultMode"] == 0o440, "{volume}");
    }
    assert!(manifests.get("Secret", "grantd-clients")["data"]["clients.json"].is_string());
}

/// Prometheus asks each pod at the admin port, with the token that grantd reads, under the job's name
/// that the alerts use.
#[test]
fn the_service_monitor_selects_the_admin_service() {
    let manifests = Manifests::shipped();
    let monitor = &manifests.get("ServiceMonitor", "grantd")["spec"];
    let wanted = monitor["selector"]["matchLabels"].as_object().unwrap();
    let selected = manifests.all.iter().filter(|manifest| {
        let labels = &manifest["metadata"]["labels"];
        manifest["kind"] == "Service" && wanted.iter().all(|(name, value)| labels[name] == *value)
    });
    let selected: Vec<_> = selected.collect();
    assert_eq!(selected.len(), 1, "{selected:?}");
    assert_eq!(selected[0]["metadata"]["name"], "grantd-admin");
    let endpoint = &monitor["endpoints"][0];
    assert_eq!(endpoint["port"], selected[0]["spec"]["ports"][0]["name"]);
    let credentials = &endpoint["authorization"]["credentials"];
    let secret = manifests.get("Secret", credentials["name"].as_str().unwrap());
    assert!(secret["data"][credentials["key"].as_str().unwrap()].is_string());
    let job = &selected[0]["metadata"]["labels"][monitor["jobLabel"].as_str().unwrap()];
    let prometheus = text_of("prometheus/prometheus.yml");
    assert!(prometheus.contains(&format!("- job_name: {}\n", job.as_str().unwrap())));
}

/// The kubelet waits longer than the server takes to stop, and `check` warns from then on.
#[test]
fn the_pod_has_time_to_drain() {
    let manifests = Manifests::shipped();
    let waits = manifests.pod()["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
    let stop = seconds_to_stop(manifests.configuration());
    assert!(waits > stop, "{waits} > {stop}");
    crate::deploy::check_warns_of_a_stop_from(
        waits,
        &[("KUBERNETES_SERVICE_HOST", "10.0.0.1")],
        "terminationGracePeriodSeconds",
    );
}

/// No Secret of the repository holds a secret: all are made by the operator.
#[test]
fn no_secret_is_shipped() {
    for directory in [ONE, replicas::THREE] {
        let files = manifest_files(directory);
        for file in &files {
            let text = fs::read_to_string(file).unwrap();
            assert!(!text.contains("kind: Secret"), "{}", file.display());
        }
        // Without the files, nothing is applied.
        let home = Home::without_key();
        let mut copy = Command::new("cp");
        succeed(copy.args(files).arg(home.path("")));
        let ended = run(Command::new("kubectl").arg("kustomize").arg(home.path("")));
        assert!(ended.code != Some(0) && ended.stdout.is_empty(), "{ended:?}");
        assert!(ended.stderr.contains("secrets/"), "{ended:?}");
    }
}
