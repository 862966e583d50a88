//! The pod of the Deployment, started as a kubelet starts it: mounts, modes, links and user are those
//! that the manifest says. These tests need root.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kubernetes::{HERE, Manifests};
use crate::support::command::{Ended, run};
use crate::support::home::{secret_of, set_mode, signing_key};
use crate::support::ports::free_port;
use crate::support::registry::{client_json, registry_of};
use crate::support::{ENCODINGS, Home, Program, Request, Token, request_of, wait_until};

/// A node of a cluster with the volumes of the pod.
pub(super) struct Node {
    manifests: &'static Manifests,
    directory: TempDir,
    /// The number of directories that were made so far: versions of volumes, and roots of pods.
    made: Cell<u32>,
}

/// A running pod.
pub(super) struct Pod {
    pub(super) program: Program,
    admin_port: u16,
}

const CLIENT: &str = "steady";
pub(super) const TOKEN: &str = "the-admin-token.aB3dE5fG7hJ9kL1mN3";

fn id(name: &str) -> u32 {
    let context = &Manifests::shipped().pod()["spec"]["securityContext"];
    u32::try_from(context[name].as_u64().unwrap()).unwrap()
}

/// The text of a registry with one client, whose tokens have this lifetime.
fn registry(lifetime: u64) -> String {
    registry_of(&[client_json(CLIENT, &json!({ "token_lifetime": lifetime }))])
}

pub(super) fn token_request() -> Request {
    Request::token(ENCODINGS[0], &request_of(CLIENT, &secret_of(CLIENT), &[]))
}

impl Node {
    /// Makes the volumes of the Deployment, with a new disk.
    pub(super) fn new() -> Self {
        let node = Self::of(Manifests::shipped());
        node.publish("config", &[("grantd.toml", Manifests::shipped().configuration())]);
        node.publish("clients", &[("clients.json", &registry(99))]);
        node.publish("admin", &[("token", TOKEN)]);
        node
    }

    /// Makes the volumes of a pod, with a new disk.
    pub(super) fn of(manifests: &'static Manifests) -> Self {
        let node = Self { manifests, directory: TempDir::new().unwrap(), made: Cell::new(0) };
        for mount in node.container()["volumeMounts"].as_array().unwrap() {
            let directory = node.volume(mount["name"].as_str().unwrap());
            fs::create_dir(&directory).unwrap();
            give_to_fs_group(&directory, 0o2777);
        }
        fs::create_dir(node.volume("data").join("lost+found")).unwrap();
        set_mode(&node.volume("data").join("lost+found"), 0o700);
        set_mode(&node.volume("data"), 0o2775);
        node
    }

    fn container(&self) -> &'static Value {
        &self.manifests.pod()["spec"]["containers"][0]
    }

    /// Adds a signing key to the disk, which a first start would generate.
    pub(super) fn with_key(self) -> Self {
        let keys = self.volume("data").join("keys");
        let (name, pem) = signing_key();
        fs::create_dir(&keys).unwrap();
        fs::write(keys.join(name), pem).unwrap();
        for (path, mode) in [(keys.join(name), 0o600), (keys, 0o700)] {
            set_mode(&path, mode);
            chown(&path, Some(id("runAsUser")), Some(id("runAsGroup"))).unwrap();
        }
        self
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn next(&self) -> u32 {
        self.made.set(self.made.get() + 1);
        self.made.get()
    }

    /// Makes these the files of a ConfigMap or Secret, as a kubelet does: each version is a directory,
    /// the link `..data` names the current one, and each file is a link to the file behind `..data`.
    pub(super) fn publish(&self, volume: &str, files: &[(&str, &str)]) {
        let directory = self.volume(volume);
        let version = format!("..2026_11_29_20_10_00.{}", self.next());
        let (new, link) = (directory.join(&version), directory.join("..data"));
        let volumes = self.manifests.pod()["spec"]["volumes"].as_array().unwrap();
        let source = volumes.iter().find(|source| source["name"] == volume).unwrap();
        let mode = source["secret"]["defaultMode"].as_u64().unwrap_or(0o644);
        fs::create_dir(&new).unwrap();
        for (name, text) in files {
            fs::write(new.join(name), text).unwrap();
            give_to_fs_group(&new.join(name), u32::try_from(mode).unwrap() | 0o440);
        }
        give_to_fs_group(&new, 0o2755);
        let old = fs::read_link(&link).ok();
        symlink(&version, directory.join("..data_tmp")).unwrap();
        fs::rename(directory.join("..data_tmp"), &link).unwrap();
        for (name, _) in files {
            let shown = directory.join(name);
            if !shown.is_symlink() {
                symlink(Path::new("..data").join(name), shown).unwrap();
            }
        }
        if let Some(old) = old {
            fs::remove_dir_all(directory.join(old)).unwrap();
        }
    }

    /// Returns a command that runs the program in a pod.
    pub(super) fn command(&self) -> Command {
        let root = self.directory.path().join(format!("root-{}", self.next()));
        fs::create_dir(&root).unwrap();
        let mut command = Command::new(Path::new(HERE).join("pod"));
        command.env_clear();
        let home = Home::without_key();
        let given = home.command(&[]);
        command.envs(given.get_envs().filter_map(|(name, value)| Some((name, value?))));
        for variable in self.container()["env"].as_array().unwrap() {
            let [name, value] = ["name", "value"].map(|part| variable[part].as_str().unwrap());
            command.env(name, value);
        }
        // What a kubelet sets in every container.
        command.env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
        command.arg(root).arg(env!("CARGO_BIN_EXE_grantd"));
        command.args(["runAsUser", "runAsGroup", "fsGroup"].map(|name| id(name).to_string()));
        for mount in self.container()["volumeMounts"].as_array().unwrap() {
            let [name, path] = ["name", "mountPath"].map(|part| mount[part].as_str().unwrap());
            let mode = if mount["readOnly"] == true { "ro" } else { "rw" };
            command.arg(format!("{}:{path}:{mode}", self.volume(name).display()));
        }
        command.arg("--");
        command
    }

    /// Starts the pod. It has ports of its own, since it shares the network with other tests.
    pub(super) fn start(&self, variables: &[(&str, &str)]) -> Pod {
        assert_eq!(self.container()["args"], json!(["serve"]));
        let admin_port = free_port();
        let admin = format!("0.0.0.0:{admin_port}");
        let mut command = self.command();
        command.envs(variables.iter().copied());
        let arguments = ["--admin-listen", &admin];
        let program = Program::start_by(Home::without_key(), command, &arguments);
        Pod { program, admin_port }
    }

    /// Runs one of the probes in the pod.
    pub(super) fn probe(&self, pod: &Pod, name: &str) -> Ended {
        let command = self.container()[name]["exec"]["command"].as_array().unwrap();
        let command: Vec<_> = command.iter().map(|part| part.as_str().unwrap()).collect();
        assert_eq!(command[0], "/usr/local/bin/grantd");
        let mut inside = self.command();
        inside.env("GRANTD_ADMIN_LISTEN", format!("0.0.0.0:{}", pod.admin_port));
        run(inside.args(&command[1..]))
    }

    /// Runs a command in the pod, as `kubectl exec` does.
    pub(super) fn exec(&self, arguments: &[&str]) -> Ended {
        run(self.command().args(arguments))
    }
}

fn give_to_fs_group(path: &Path, mode: u32) {
    set_mode(path, mode);
    chown(path, Some(0), Some(id("fsGroup"))).expect("this test needs users: run it as root");
    // A change of the group clears the set-group-id bit of some files.
    set_mode(path, mode);
}

/// The lines of `/proc/<id>/<file>` that begin with `name`, without it.
fn in_proc(program: &Program, file: &str, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{}/{file}", program.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the key file on the disk, if there is one.
fn key_file(node: &Node) -> PathBuf {
    let files = fs::read_dir(node.volume("data").join("keys")).unwrap();
    let mut files = files.map(|file| file.unwrap().path());
    files.find(|file| file.extension().is_some_and(|extension| extension == "pem")).unwrap()
}

#[test]
fn the_pod_starts_on_an_empty_disk_and_with_the_group_of_a_kubelet() {
    let node = Node::new();
    let pod = node.start(&[]);
    let server = &pod.program;
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(node.probe(&pod, probe).assert_fine(), "ok\n", "{probe}");
    }
    let token = Token::verified(&server.ask(&token_request()), server.address);
    assert_eq!(token.claims["iss"], "https://auth.example.com");

    for (name, value) in [
        ("Uid:", "65532 65532 65532 65532"),
        ("Gid:", "65532 65532 65532 65532"),
        ("Groups:", "65532"),
        ("CapPrm:", "0000000000000000"),
        ("CapEff:", "0000000000000000"),
        ("CapBnd:", "0000000000000000"),
        ("NoNewPrivs:", "1"),
    ] {
        assert_eq!(in_proc(server, "status", name), value, "{name}");
    }
    let mounts = fs::read_to_string(format!("/proc/{}/mounts", server.id())).unwrap();
    let writable = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let writable = writable.filter(|line| line[3].split(',').any(|option| option == "rw"));
    let writable: Vec<_> = writable.map(|line| line[1].to_owned()).collect();
    assert!(
        writable.iter().all(|path| path == "/var/lib/grantd"
            || path.starts_with("/proc")
            || path.starts_with("/dev")),
        "{writable:?}"
    );
    let key = key_file(&node);
    let metadata = fs::metadata(&key).unwrap();
    assert_eq!((metadata.uid(), metadata.mode() & 0o777), (65532, 0o600));

    let Pod { program, .. } = pod;
    program.into_home();
    // At the next mount, a kubelet gives the disk to the group.
    let mut group = Command::new("chmod");
    let data = node.volume("data");
    run(group.args(["-R", "ug+rwX,g+s"]).arg(&data)).assert_fine();
    run(Command::new("chgrp").args(["-R", "65532"]).arg(&data)).assert_fine();
    assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o660);
    let checked = node.exec(&["check"]);
    let text = checked.assert_fine();
    assert!(text.contains("ok: clients: 1, keys: 1") && !text.contains("warning"), "{text}");
    let pod = node.start(&[]);
    let again = Token::verified(&pod.program.ask(&token_request()), pod.program.address);
    assert_eq!(again.header["kid"], token.header["kid"]);
    assert_eq!(node.probe(&pod, "readinessProbe").assert_fine(), "ok\n");

    let rotated = node.exec(&["key", "rotate"]);
    let rotated = rotated.json();
    wait_until(|| key_ids(&pod.program).iter().any(|id| *id == rotated["kid"]));
    assert_eq!(key_ids(&pod.program).len(), 2);
}

/// The ids in the key set.
fn key_ids(server: &Program) -> Vec<Value> {
    let keys = server.ask(&Request::get("/.well-known/jwks.json")).json();
    keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect()
}

/// Keys that are made elsewhere can be mounted, too. The program only reads them.
#[test]
fn signing_keys_can_be_in_a_secret() {
    let node = Node::new();
    let next = Home::without_key();
    run(next.command(&["key", "generate"])).assert_fine();
    let made = fs::read_dir(next.keys()).unwrap().map(|file| file.unwrap().path());
    let made = made.filter(|file| file.extension().is_some_and(|extension| extension == "pem"));
    let [made] = made.collect::<Vec<_>>().try_into().unwrap();
    let (name, pem) = signing_key();
    let (second, text) = (made.file_name().unwrap().to_str().unwrap(), fs::read_to_string(&made));
    let text = text.unwrap();

    node.publish("admin", &[("token", TOKEN), (name, pem)]);
    let keys = [("GRANTD_KEYS", "/etc/grantd/admin")];
    let pod = node.start(&keys);
    let token = Token::verified(&pod.program.ask(&token_request()), pod.program.address);
    assert_eq!(format!("{}.pem", token.header["kid"].as_str().unwrap()), *name);
    node.publish("admin", &[("token", TOKEN), (name, pem), (second, &text)]);
    wait_until(|| key_ids(&pod.program).len() == 2);
    let checked = run(node.command().envs(keys).arg("check"));
    assert!(checked.assert_fine().contains("ok: clients: 1, keys: 2"), "{checked:?}");
}

/// A token that other users of the node could read is refused, and the text says what to change.
#[test]
fn a_secret_that_others_can_read_is_refused() {
    let node = Node::new().with_key();
    let token = fs::canonicalize(node.volume("admin").join("token")).unwrap();
    give_to_fs_group(&token, 0o444);
    let says = ["/etc/grantd/admin/token: can be read by everyone", "defaultMode: 0440", "fsGroup"];
    node.exec(&["check"]).assert_error(1, &says);
}

#[test]
fn changed_configmaps_and_secrets_are_read_again_as_a_whole() {
    let node = Node::new().with_key();
    let pod = node.start(&[]);
    let server = &pod.program;
    let lifetime = || server.ask(&token_request()).json()["expires_in"].as_u64().unwrap();
    assert_eq!(lifetime(), 99);
    let is_generation = |line: &Value, generation: u64| {
        line["message"] == "reloaded" && line["generation"] == json!(generation)
    };

    // The server notices each by itself.
    node.publish("clients", &[("clients.json", &registry(100))]);
    server.log.wait_for(|line| is_generation(line, 2));
    assert_eq!(lifetime(), 100);
    let configuration = Manifests::shipped().configuration();
    let changed = format!("jwks_max_age = 60\n{configuration}");
    node.publish("config", &[("grantd.toml", &changed)]);
    server.log.wait_for(|line| is_generation(line, 3));
    let keys = server.ask(&Request::get("/.well-known/jwks.json"));
    assert_eq!(keys.header("cache-control"), Some("public, max-age=60"));
    let next = TOKEN.replace("the-", "the-next-");
    let status = |token: &str| {
        let request =
            Request::get("/metrics").without_header("Host").header("Host", "grantd-admin");
        request.header("Authorization", format!("Bearer {token}")).send(server.admin).status
    };
    assert_eq!([TOKEN, &next].map(status), [200, 421]);
    node.publish("admin", &[("token", &next)]);
    wait_until(|| [TOKEN, &next].map(status) == [421, 200]);

    // At any time, all that is read is of one version: a change in the middle of a reload breaks none.
    for change in 0..50 {
        node.publish("clients", &[("clients.json", &registry(200 + change))]);
        server.hang_up();
        assert!((100..250).contains(&lifetime()));
    }
    wait_until(|| lifetime() == 249);
    let faults = server.log.count(|line| line["level"] == "ERROR" || line["level"] == "WARN");
    assert_eq!(faults, 0);
    assert_eq!(node.probe(&pod, "readinessProbe").assert_fine(), "ok\n");
}
