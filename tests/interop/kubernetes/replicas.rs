//! Three replicas with one store: held against the schemas, the policies and the manifests of one pod.

use std::sync::OnceLock;

use serde_json::{Value, json};

use super::{Manifests, assert_no_finding, documented_commands, validate};
use crate::deploy::{seconds_to_stop, text_of};
use crate::kubernetes::pod::{Node, TOKEN, token_request};
use crate::postgres::nodes::cluster_with;
use crate::postgres::store::MASTER_KEY;
use crate::support::Token;
use crate::support::postgres::{Role, Stop};
use crate::support::registry::client_json;

pub(super) const THREE: &str = "kubernetes/cluster";

fn manifests() -> &'static Manifests {
    static SHIPPED: OnceLock<Manifests> = OnceLock::new();
    SHIPPED.get_or_init(|| Manifests::made_by(&documented_commands(1), THREE))
}

fn stateful_set() -> &'static Value {
    manifests().get("StatefulSet", "grantd")
}

#[test]
fn the_manifests_are_valid() {
    let mut text = manifests().text.clone();
    for (right, wrong) in
        [("serviceName:", "servicename:"), ("cidr: 10.0.0.0/24", "sidr: 10.0.0.0/24")]
    {
        assert!(text.contains(right), "{text}");
        text = text.replace(right, wrong);
    }
    let ended = validate(&text);
    for says in ["StatefulSet grantd: 1.27: ", "NetworkPolicy grantd: 1.27: "] {
        assert!(ended.stderr.contains(says), "{}", ended.stderr);
    }
}

#[test]
fn no_policy_is_violated_without_a_reason() {
    assert_no_finding(THREE, stateful_set());
}

/// The pod is that of the Deployment, but for its place and its volumes, and what stands beside it is
/// the same.
#[test]
fn the_pod_is_the_one_of_the_deployment() {
    let one = Manifests::shipped();
    let (mut own, mut other) = (stateful_set()["spec"]["template"].clone(), one.pod().clone());
    for pod in [&mut own, &mut other] {
        let spec = pod["spec"].as_object_mut().unwrap();
        for differs in ["affinity", "topologySpreadConstraints", "volumes"] {
            spec.remove(differs);
        }
        spec["containers"][0].as_object_mut().unwrap().remove("volumeMounts");
    }
    assert_eq!(own, other);
    for metadata in ["annotations", "labels"] {
        let of = |workload: &Value| workload["metadata"][metadata].clone();
        assert_eq!(of(stateful_set()), of(one.get("Deployment", "grantd")));
    }
    for name in ["namespace", "service", "servicemonitor"] {
        let [own, other] = [THREE, "kubernetes"].map(|at| text_of(&format!("{at}/{name}.yaml")));
        assert_eq!(own, other);
    }
    for (kind, name) in [("PodDisruptionBudget", "grantd"), ("Secret", "grantd-admin")] {
        let [own, other] = [manifests(), one].map(|all| all.get(kind, name).clone());
        assert_eq!((&own["spec"], &own["metadata"]), (&other["spec"], &other["metadata"]));
    }
    assert_eq!(manifests().get("PodDisruptionBudget", "grantd")["spec"]["maxUnavailable"], 1);
    let ingress = |all: &Manifests| all.get("NetworkPolicy", "grantd")["spec"]["ingress"].clone();
    assert_eq!(ingress(manifests()), ingress(one));
}

#[test]
fn three_pods_are_apart_and_each_has_a_volume() {
    let spec = &stateful_set()["spec"];
    assert_eq!((&spec["replicas"], &spec["podManagementPolicy"]), (&json!(3), &json!("Parallel")));
    let own = json!({"app.kubernetes.io/name": "grantd"});
    assert_eq!(spec["selector"]["matchLabels"], own);
    let pod = &spec["template"]["spec"];
    let spread = pod["topologySpreadConstraints"].as_array().unwrap();
    assert_eq!(spread[0]["topologyKey"], "kubernetes.io/hostname");
    assert_eq!(spread[0]["whenUnsatisfiable"], "DoNotSchedule");
    assert!(spread.iter().all(|one| one["labelSelector"]["matchLabels"] == own));
    assert!(pod["affinity"].is_null());
    // The service of this name is headless.
    let service = manifests().get("Service", spec["serviceName"].as_str().unwrap());
    assert_eq!(service["spec"]["clusterIP"], "None");
    let claims = spec["volumeClaimTemplates"].as_array().unwrap();
    assert_eq!((claims.len(), &claims[0]["metadata"]["name"]), (1, &json!("data")));
    assert_eq!(claims[0]["spec"]["accessModes"], json!(["ReadWriteOnce"]));
    assert!(manifests().all.iter().all(|it| it["kind"] != "PersistentVolumeClaim"));
}

/// The paths of the configuration are in the volumes of the container, whose sources exist.
#[test]
fn the_manifests_agree_on_paths_and_volumes() {
    let configuration = manifests().configuration();
    let pod = &stateful_set()["spec"]["template"]["spec"];
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    let mounted = |name: &str, read_only: bool| {
        let mount = mounts.iter().find(|mount| mount["name"] == name).unwrap();
        assert!((mount["readOnly"] == true) == read_only && mount["subPath"].is_null(), "{mount}");
        mount["mountPath"].as_str().unwrap()
    };
    let store = mounted("store", true);
    for says in [
        format!("\nmaster_key_file = \"{store}/master.key\"\n"),
        format!("\nca_file = \"{store}/ca.pem\"\n"),
        format!("?passfile={store}/pgpass\"\n"),
        format!("\nadmin_token_file = \"{}/token\"\n", mounted("admin", true)),
        format!("\nstate = \"{}/state\"\n", mounted("data", false)),
    ] {
        assert!(configuration.contains(&says), "{configuration} does not say {says}");
    }
    assert!(!configuration.contains("\nclients =") && !configuration.contains("\nkeys ="));
    assert_eq!(mounted("config", true), "/etc/grantd/config");
    let secret = |name: &str| manifests().get("Secret", name)["data"].as_object().unwrap();
    let files: Vec<_> = secret("grantd-store").keys().collect();
    assert_eq!(files, ["ca.pem", "master.key", "pgpass"]);
    for volume in pod["volumes"].as_array().unwrap() {
        match volume["secret"]["secretName"].as_str() {
            Some(name) => {
                assert!(!secret(name).is_empty());
                assert_eq!(volume["secret"]["defaultMode"], 0o440);
            }
            None => assert_eq!(volume["configMap"]["name"], "grantd"),
        }
    }
}

/// A pod may connect to the database that the configuration names, and to the DNS.
#[test]
fn the_database_can_be_reached() {
    let egress = manifests().get("NetworkPolicy", "grantd")["spec"]["egress"].as_array().unwrap();
    let ports = |rule: &Value| {
        assert!(rule["to"].as_array().is_some_and(|to| !to.is_empty()), "{rule}");
        let ports = rule["ports"].as_array().unwrap().iter();
        ports.map(|port| port["port"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(egress.iter().map(ports).collect::<Vec<_>>(), [vec![5432], vec![53, 53]]);
    assert!(manifests().configuration().contains("@db1.example:5432,db2.example:5432/grantd"));
}

/// `check` warns from the time that the kubelet waits, which is that of the Deployment.
#[test]
fn the_pod_has_time_to_drain() {
    let pod = &stateful_set()["spec"]["template"]["spec"];
    let waits = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert_eq!(waits, Manifests::shipped().pod()["spec"]["terminationGracePeriodSeconds"]);
    assert!(waits > seconds_to_stop(manifests().configuration()));
}

/// The pod starts with its volumes, and on the same disk also while the database is away. On an empty
/// disk it does not.
#[test]
fn the_pod_starts_again_on_its_disk_while_the_database_is_away() {
    let mut cluster = cluster_with(&[client_json("steady", &json!({}))]);
    let at = "@db1.example:5432,db2.example:5432/";
    let ca = "ca_file = \"/etc/grantd/store/ca.pem\"\n";
    let configuration = manifests().configuration();
    assert!(configuration.contains(at) && configuration.contains(ca), "{configuration}");
    let here = format!("@127.0.0.1:{}/", cluster.port);
    // The database of the test has no TLS.
    let configuration = configuration.replace(at, &here).replace(ca, "");
    let password = format!("*:*:grantd:grantd_node:{}\n", Role::Node.password());
    let new_node = || {
        let node = Node::of(manifests());
        node.publish("config", &[("grantd.toml", &configuration)]);
        node.publish("store", &[("master.key", MASTER_KEY), ("pgpass", &password)]);
        node.publish("admin", &[("token", TOKEN)]);
        node
    };
    let node = new_node();
    let mut pod = node.start(&[("GRANTD_SHUTDOWN_DELAY_SECONDS", "0")]);
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(node.probe(&pod, probe).assert_fine(), "ok\n", "{probe}");
    }
    let token = pod.program.ask(&token_request());
    assert!(node.exec(&["check"]).assert_fine().contains("ok: clients: 1, keys: "));
    pod.program.terminate();
    assert!(pod.program.wait().success());

    cluster.stop(Stop::Fast);
    let pod = node.start(&[]);
    Token::verified(&token, pod.program.address);
    Token::verified(&pod.program.ask(&token_request()), pod.program.address);
    let ready = node.probe(&pod, "readinessProbe");
    assert!(ready.assert_fine().starts_with("degraded: "), "{ready:?}");
    let empty = new_node();
    let refused =
        empty.exec(&["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    refused.assert_error(1, &["cannot be reached"]);
}
