//! The Debian package: installed, upgraded, rolled back, removed and purged in a Debian 12 chroot.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::deploy::debian::{HERE, as_root, debian, needed, steps_in};
use crate::deploy::text_of;
use crate::support::command::succeed;

/// The chroot, before the package: it has documentation, and apt asks nothing.
const BEFORE: &str = r#"
rm -f /etc/dpkg/dpkg.cfg.d/*
echo 'APT::Get::Assume-Yes "true";' >/etc/apt/apt.conf.d/90assume-yes
# apt's user cannot read the directory of the test.
echo 'APT::Sandbox::User "root";' >/etc/apt/apt.conf.d/90sandbox
cp ./*.deb /usr/share/doc/
"#;

/// Defines what the other steps use.
const TOOLS: &str = r#"
cd /usr/share/doc
secret() { sed -n 's/.*"client_secret":"\([^"]*\)".*/\1/p' /root/client.json; }
ask() {
    curl --silent --cacert /etc/nginx/grantd/certificate.pem \
        --resolve auth.example.com:443:127.0.0.1 "$@"
}
token() {
    ask --fail-with-body -d grant_type=client_credentials -d client_id=reporting \
        --data-urlencode "client_secret=$(secret)" "$@"
}
url=https://auth.example.com/connect/token
version() { dpkg-query --show --showformat '${db:Status-Abbrev}${Version}\n' grantd; }
succeeded() { cat /run/load.* | grep -c '^200$'; }
"#;

/// An installation of the package.
const INSTALLED: &str = r#"
token $url >/root/token
grep -q '^{"access_token":"ey' /root/token
ask https://auth.example.com/.well-known/jwks.json >/root/keys.json
[ "$(version)" = "ii 0.1.0-1" ]
[ "$(stat -c '%U:%G %a' /etc/grantd/clients.json /var/lib/grantd/keys /run/grantd/grantd.sock | xargs)" = \
    "root:grantd 640 grantd:grantd 700 root:www-data 660" ]
ls /etc/systemd/system/multi-user.target.wants/grantd.service \
    /etc/systemd/system/sockets.target.wants/grantd.socket
[ "$(grantd check --config /etc/grantd/grantd.toml | tail -n 1)" = "ok: clients: 1, keys: 1" ]
! grep demo-client /etc/grantd/clients.json
for file in man/man1/grantd.1.gz man/man1/grantd-client-rotate-secret.1.gz \
    bash-completion/completions/grantd zsh/vendor-completions/_grantd \
    fish/vendor_completions.d/grantd.fish doc/grantd/copyright; do
    [ -s /usr/share/$file ]
done
[ "$(xargs </var/lib/dpkg/info/grantd.conffiles)" = \
    "/etc/grantd/clients.json /etc/grantd/grantd.toml /etc/logrotate.d/grantd" ]
"#;

/// Starts four loops of requests, from an address each since nginx limits the rate of an address.
const LOAD: &str = r#"
touch /run/load
for number in 1 2 3 4; do
    while [ -e /run/load ]; do
        token --interface "127.0.0.1$number" --output /dev/null --write-out '%{http_code}\n' $url ||
            echo "curl: $?"
    done </dev/null >>/run/load.$number 2>&1 &
done
for _ in {1..300}; do [ "$(succeeded)" -gt 20 ] && break || sleep 0.1; done
cat /run/grantd.pid >/root/pid
"#;

/// After an upgrade or a rollback: another process serves, and requests succeed.
const REPLACED: &str = r#"
[ "$(cat /run/grantd.pid)" != "$(cat /root/pid)" ]
cat /run/grantd.pid >/root/pid
before=$(succeeded)
for _ in {1..300}; do [ "$(succeeded)" -gt $((before + 20)) ] && break || sleep 0.1; done
[ "$(succeeded)" -gt $((before + 20)) ]
"#;

/// A faulty configuration: the upgrade ends well, says what is wrong, and leaves the service alone.
const FAULTY: &str = r#"
[ "$(version)" = "ii 0.1.0-2" ]
sed -i 's/^issuer = /isuer = /' /etc/grantd/grantd.toml
apt-get install --reinstall ./grantd_0.1.0-2_amd64.deb >/root/apt.log 2>&1
grep -A 4 '^grantd: the service was not restarted' /root/apt.log
grep -q 'grantd.toml.*isuer' /root/apt.log
[ "$(cat /run/grantd.pid)" = "$(cat /root/pid)" ]
token $url >/dev/null
sed -i 's/^isuer = /issuer = /' /etc/grantd/grantd.toml
echo '# changed here' >>/etc/grantd/grantd.toml
"#;

/// After the rollback: no request has failed, and all files are those from before.
const SAME: &str = r#"
[ "$(version)" = "ii 0.1.0-1" ]
rm /run/load
wait
sort /run/load.* | uniq -c
[ "$(cat /run/load.* | grep -vc '^200$')" = 0 ]
ask https://auth.example.com/.well-known/jwks.json | cmp - /root/keys.json
grep -q '^# changed here' /etc/grantd/grantd.toml
"#;

const REMOVED: &str = r#"
[ "$(version)" = "rc 0.1.0-1" ]
[ ! -e /usr/bin/grantd ]
[ ! -e /run/grantd/grantd.sock ]
! kill -0 "$(cat /root/pid)" 2>/dev/null
ls /var/lib/grantd/keys/*.pem /etc/grantd/clients.json /etc/grantd/grantd.toml
# Installed again, it is the same server.
apt-get install ./grantd_0.1.0-2_amd64.deb
token $url >/dev/null
ask https://auth.example.com/.well-known/jwks.json | cmp - /root/keys.json
"#;

/// The user and what the operator has put elsewhere stay; nothing else does.
const PURGED: &str = r#"
! dpkg -s grantd >/dev/null 2>&1
getent passwd grantd
find / -xdev -name '*grantd*' -not -path '/source/*' -not -path '/run/*' -not -path '/etc/nginx/*' \
    -not -path '/var/log/*' -not -name 'grantd_0.1.0-*.deb' >/root/left
cat /root/left
[ ! -s /root/left ]
"#;

#[test]
#[ignore = "needs cargo-deb: packaging/test-deb runs it"]
fn the_package_is_installed_upgraded_rolled_back_removed_and_purged() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program =
        env::var("GRANTD_PACKAGED").unwrap_or_else(|_| env!("CARGO_BIN_EXE_grantd").to_owned());
    let root = debian(&needed());
    let work = TempDir::new().unwrap();
    let source = work.path().join("source");
    fs::create_dir_all(source.join("steps")).unwrap();
    fs::copy(Path::new(HERE).join("systemctl"), source.join("systemctl")).unwrap();
    for revision in ["1", "2"] {
        let mut make = Command::new(here.join("packaging/deb"));
        let made = succeed(make.args(["--revision", revision, program.as_str()]));
        let made = Path::new(made.trim());
        fs::copy(here.join(made), source.join(made.file_name().unwrap())).unwrap();
    }

    let document = include_str!("../../../docs/operations.md");
    let (_, section) = document.split_once("\n## Debian package\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let commands = steps_in(section, "console");
    let [install, nginx, upgrade, roll_back, remove, purge] = &commands[..] else {
        panic!("{commands:#?}");
    };
    let nginx =
        nginx.replace("--scope reports.read\n", "--scope reports.read | tee /root/client.json\n");
    let guide = steps_in(&text_of("README.md"), "sh");
    let certificates = guide.iter().find(|step| step.contains("openssl req")).unwrap();

    let steps = [
        BEFORE,
        install,
        certificates,
        &nginx,
        INSTALLED,
        LOAD,
        upgrade,
        REPLACED,
        FAULTY,
        roll_back,
        REPLACED,
        SAME,
        remove,
        REMOVED,
        purge,
        PURGED,
    ];
    for (number, step) in steps.iter().enumerate() {
        let tools = if number == 0 { "" } else { TOOLS };
        fs::write(source.join(format!("steps/{number:02}")), format!("{tools}{step}")).unwrap();
    }
    let mut follow = as_root(Path::new(HERE).join("follow"));
    let printed = succeed(follow.arg(&root).arg(work.path()));

    let calls = printed.split("== systemctl\n").nth(1).unwrap();
    let actions = ["start", "stop", "restart"];
    let calls: Vec<_> = calls
        .lines()
        .map(|call| call.trim_start_matches("--quiet ").trim_start_matches("--system "))
        .filter(|call| actions.iter().any(|action| call.starts_with(action)))
        .collect();
    assert_eq!(
        calls,
        [
            "start grantd.socket grantd.service",
            "restart grantd.service",
            "restart grantd.service",
            "restart grantd.service",
            "stop grantd.service grantd.socket",
            "start grantd.socket grantd.service",
            "stop grantd.service grantd.socket",
        ]
    );
}
