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
of_client() {
    ask --fail-with-body -d client_id=reporting --data-urlencode "client_secret=$(secret)" "$@"
}
# Keeps a new token in a file, revokes it, and asks for its state.
keep() { token $url | sed 's/.*"access_token":"\([^"]*\).*/\1/' >"$1"; }
revoke() { of_client -d "token=$(cat "$1")" https://auth.example.com/connect/revocation; }
is_active() {
    of_client -d "token=$(cat "$1")" https://auth.example.com/connect/introspect >/root/answer
    grep -q '"active":true' /root/answer
}
# `!` would not end the script.
fails() { if "$@"; then return 1; fi; }
is_version() {
    [ "$(version)" = "ii $1-1" ]
    [ "$(grantd --version)" = "grantd $1" ]
    curl --silent http://127.0.0.1:8081/metrics | grep -Fx "grantd_build_info{version=\"$1\"} 1"
}
version() { dpkg-query --show --showformat '${db:Status-Abbrev}${Version}\n' grantd; }
succeeded() { cat /run/load.* | grep -c '^200$'; }
"#;

/// An installation of the package.
const INSTALLED: &str = r#"
token $url >/root/token
grep -q '^{"access_token":"ey' /root/token
ask https://auth.example.com/.well-known/jwks.json >/root/keys.json
is_version $old
for number in 1 2 3; do keep /root/token.$number; done
revoke /root/token.1
fails is_active /root/token.1
is_active /root/token.2
cp /etc/grantd/clients.json /root/clients.json
[ "$(stat -c '%U:%G %a' /etc/grantd/clients.json /var/lib/grantd/keys /run/grantd/grantd.sock | xargs)" = \
    "root:grantd 640 grantd:grantd 700 root:www-data 660" ]
ls /etc/systemd/system/multi-user.target.wants/grantd.service \
    /etc/systemd/system/sockets.target.wants/grantd.socket
[ "$(grantd check --config /etc/grantd/grantd.toml | tail -n 1)" = "ok: clients: 1, keys: 1" ]
fails grep demo-client /etc/grantd/clients.json
for file in man/man1/grantd.1.gz man/man1/grantd-client-rotate-secret.1.gz \
    bash-completion/completions/grantd zsh/vendor-completions/_grantd \
    fish/vendor_completions.d/grantd.fish doc/grantd/copyright doc/grantd/THIRD-PARTY-NOTICES; do
    [ -s /usr/share/$file ]
done
for script in backup restore failover; do
    [ -x /usr/share/doc/grantd/examples/cluster/$script ]
done
[ "$(ls /usr/share/doc/grantd/examples/cluster | wc -l)" -eq 10 ]
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

/// The next version serves. It knows what the old version has revoked, and itself revokes a token.
const UPGRADED: &str = r#"
is_version $new
fails is_active /root/token.1
is_active /root/token.2
revoke /root/token.2
fails is_active /root/token.2
is_active /root/token.3
"#;

/// A faulty configuration: the upgrade ends well, says what is wrong, and leaves the service alone.
const FAULTY: &str = r#"
sed -i 's/^issuer = /isuer = /' /etc/grantd/grantd.toml
apt-get install --reinstall ./grantd_$new-1_amd64.deb >/root/apt.log 2>&1
grep -A 4 '^grantd: the service was not restarted' /root/apt.log
grep -q 'grantd.toml.*isuer' /root/apt.log
[ "$(cat /run/grantd.pid)" = "$(cat /root/pid)" ]
token $url >/dev/null
sed -i 's/^isuer = /issuer = /' /etc/grantd/grantd.toml
echo '# changed here' >>/etc/grantd/grantd.toml
"#;

/// After the rollback: no request has failed, and all files are those from before. The old version
/// knows what the next one has revoked.
const SAME: &str = r#"
is_version $old
fails is_active /root/token.1
fails is_active /root/token.2
is_active /root/token.3
cmp /root/clients.json /etc/grantd/clients.json
rm /run/load
wait
sort /run/load.* | uniq -c
[ "$(cat /run/load.* | grep -vc '^200$')" = 0 ]
ask https://auth.example.com/.well-known/jwks.json | cmp - /root/keys.json
grep -q '^# changed here' /etc/grantd/grantd.toml
"#;

const REMOVED: &str = r#"
[ "$(version)" = "rc $old-1" ]
[ ! -e /usr/bin/grantd ]
[ ! -e /run/grantd/grantd.sock ]
fails kill -0 "$(cat /root/pid)" 2>/dev/null
ls /var/lib/grantd/keys/*.pem /etc/grantd/clients.json /etc/grantd/grantd.toml
# Installed again, it is the same server.
apt-get install ./grantd_$new-1_amd64.deb
is_version $new
token $url >/dev/null
ask https://auth.example.com/.well-known/jwks.json | cmp - /root/keys.json
fails is_active /root/token.2
is_active /root/token.3
"#;

/// The user and what the operator has put elsewhere stay; nothing else does.
const PURGED: &str = r#"
fails dpkg -s grantd >/dev/null 2>&1
getent passwd grantd
find / -xdev -name '*grantd*' -not -path '/source/*' -not -path '/run/*' -not -path '/etc/nginx/*' \
    -not -path '/var/log/*' -not -name 'grantd_*_amd64.deb' >/root/left
cat /root/left
[ ! -s /root/left ]
"#;

/// The version whose package upgrades this one: packaging/test-deb builds its program.
fn next_version() -> String {
    let (start, patch) = env!("CARGO_PKG_VERSION").rsplit_once('.').unwrap();
    format!("{start}.{}", patch.parse::<u32>().unwrap() + 1)
}

#[test]
#[ignore = "needs cargo-deb: packaging/test-deb runs it"]
fn the_package_is_installed_upgraded_rolled_back_removed_and_purged() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = debian(&needed());
    let work = TempDir::new().unwrap();
    let source = work.path().join("source");
    fs::create_dir_all(source.join("steps")).unwrap();
    fs::copy(Path::new(HERE).join("systemctl"), source.join("systemctl")).unwrap();
    let (old, new) = (env!("CARGO_PKG_VERSION"), next_version());
    for (program, version) in [("GRANTD_PACKAGED", old), ("GRANTD_NEXT", &new)] {
        let program = env::var(program).expect("packaging/test-deb names the two programs");
        let made = succeed(Command::new(here.join("packaging/deb")).arg(program));
        let made = Path::new(made.trim());
        assert_eq!(
            made.file_name().unwrap().to_str().unwrap(),
            format!("grantd_{version}-1_amd64.deb")
        );
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
        UPGRADED,
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
        let step = format!("old={old} new={new}\n{tools}{step}");
        fs::write(source.join(format!("steps/{number:02}")), step).unwrap();
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
