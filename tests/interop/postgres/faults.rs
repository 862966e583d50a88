//! The errors of the database: what happened, where, and what to do; and no password.

use std::net::TcpListener;

use crate::support::Home;
use crate::support::command::Ended;
use crate::support::home::set_mode;
use crate::support::postgres::{DATABASE, Postgres, Role, Setup};

use super::store::{on, versions, with_store};
use crate::support::command::run;

const STATUS: [&str; 2] = ["store", "status"];

#[track_caller]
fn assert_says(ended: &Ended, says: &[&str]) {
    ended.assert_error(1, says);
    for role in Role::ALL {
        assert!(!ended.stderr.contains(role.password()), "{ended:?}");
    }
    assert!(ended.stderr.starts_with("grantd: postgres://"), "{ended:?}");
}

#[test]
fn each_refusal_of_the_database_says_what_to_do() {
    let cluster = Postgres::start();
    let home = Home::new();
    let owner = cluster.url(Role::Owner);
    let node = cluster.url(Role::Node);
    let at = format!("postgres://{}@127.0.0.1:{}/{DATABASE}: ", Role::Owner.name(), cluster.port);

    let wrong = owner.replace(Role::Owner.password(), "wrong-word");
    let refused = on(&home, &wrong, &STATUS);
    assert_says(&refused, &[&at, "refuses the password of the role grantd_owner", "ALTER ROLE"]);
    assert!(!refused.stderr.contains("wrong-word"), "{refused:?}");
    let without = owner.replace(&format!(":{}@", Role::Owner.password()), "@");
    assert_says(&on(&home, &without, &STATUS), &["asks for a password, and none is set"]);
    let unknown = format!("{}elsewhere", owner.strip_suffix(DATABASE).unwrap());
    assert_says(&on(&home, &unknown, &STATUS), &["has no database elsewhere", "CREATE DATABASE"]);
    assert_says(
        &on(&home, &owner, &STATUS),
        &[&at, "has no schema grantd: run `grantd store migrate`"],
    );
    assert_says(
        &on(&home, &node, &["store", "migrate"]),
        &[
            "does not give the role grantd_node a right",
            "permission denied for database",
            "URL of the owner",
        ],
    );

    on(&home, &owner, &["store", "migrate"]).assert_fine();
    assert_says(
        &on(&home, &node, &STATUS),
        &["permission denied for schema grantd", "grantd store migrate --node-role grantd_node"],
    );
    cluster.psql("insert into grantd.migration (version) values (99)");
    for arguments in [&STATUS[..], &["store", "migrate"]] {
        assert_says(
            &on(&home, &owner, arguments),
            &["has version 99 of the schema", &format!("knows only version {}", versions())],
        );
    }
    cluster.psql("delete from grantd.migration");
    assert_says(
        &on(&home, &owner, &STATUS),
        &["has version 0 of the schema", "run `grantd store migrate`"],
    );
}

#[test]
fn a_database_that_does_not_answer_is_an_error_within_seconds() {
    let cluster = Postgres::start();
    let home = Home::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let closed = format!("postgres://u:hunter2@127.0.0.1:{free}/d");
    let refused = on(&home, &closed, &STATUS);
    assert_says(
        &refused,
        &[&format!("cannot be reached: 127.0.0.1:{free}: "), "refused", "listens there"],
    );
    assert!(!refused.stderr.contains("hunter2"));
    let nameless = "postgres://u:hunter2@no-such-host.invalid/d";
    assert_says(&on(&home, nameless, &STATUS), &["no-such-host.invalid"]);
    // The next host is tried.
    let both =
        cluster.url(Role::Owner).replace("@127.0.0.1", &format!("@127.0.0.1:{free},127.0.0.1"));
    on(&home, &both, &["store", "migrate"]).assert_fine();

    cluster.freeze();
    let frozen = format!("{}?connect_timeout=1", cluster.url(Role::Owner));
    assert_says(&on(&home, &frozen, &STATUS), &["no answer from 127.0.0.1", "within 1 s"]);
    cluster.go_on();
}

#[test]
fn tls_is_verified() {
    let cluster = Postgres::start_with(&Setup { tls: true, ..Setup::default() });
    let home = Home::new();
    let owner = format!("{}?sslmode=verify-full", cluster.url(Role::Owner));
    let status = |url: &str, ca: Option<&str>| {
        let mut command = with_store(&home, url, &["store", "migrate"]);
        if let Some(ca) = ca {
            command.env("GRANTD_STORE__CA_FILE", ca);
        }
        run(command)
    };
    let authority = cluster.authority();
    let authority = authority.to_str().unwrap();
    assert_says(&status(&owner, None), &["certificate of an unknown authority", "store.ca_file"]);
    let other_name = owner.replace("@localhost:", "@127.0.0.1:");
    assert_says(
        &status(&other_name, Some(authority)),
        &["has a certificate for another name than 127.0.0.1"],
    );
    status(&owner, Some(authority)).assert_fine();
    status(&owner.replace("verify-full", "require"), Some(authority)).assert_fine();
    assert_says(
        &status(&owner.replace("verify-full", "disable"), None),
        &["does not let the role grantd_owner in"],
    );
    home.write("empty.pem", "");
    status(&owner, Some("empty.pem")).assert_error(1, &["empty.pem: holds no certificate in PEM"]);
    status(&owner, Some("none.pem")).assert_error(1, &["none.pem: cannot be read"]);

    let plain = Postgres::start();
    let demanded = format!("{}?sslmode=verify-full", plain.url(Role::Owner));
    assert_says(
        &status(&demanded, Some(authority)),
        &["offers no TLS", "ssl = on", "sslmode=disable"],
    );
}

#[test]
fn a_standby_is_not_written_to() {
    let cluster = Postgres::start();
    let home = Home::new();
    on(&home, &cluster.url(Role::Owner), &["store", "migrate"]).assert_fine();
    let standby = cluster.standby();
    standby.catch_up_with(&cluster);
    let url = standby.url(Role::Owner);
    assert_says(&on(&home, &url, &STATUS), &["accepts no writes, as a standby does"]);
    on(&home, &format!("{url}?target_session_attrs=any"), &STATUS).assert_fine();
    let both = url.replace(
        &format!("@127.0.0.1:{}", standby.port),
        &format!("@127.0.0.1:{},127.0.0.1:{}", standby.port, cluster.port),
    );
    on(&home, &both, &STATUS).assert_fine();
}

#[test]
fn a_password_is_accepted_only_where_it_is_hidden() {
    let cluster = Postgres::start();
    let home = Home::new();
    let owner = cluster.url(Role::Owner);
    let (before, after) = owner.split_once(&format!(":{}", Role::Owner.password())).unwrap();
    let without = format!("{before}{after}");
    let flag = run(home.command(&["store", "migrate", "--store", &owner]));
    flag.assert_error(2, &["--store: must have no password", "GRANTD_STORE_URL"]);
    assert!(!flag.stderr.contains(Role::Owner.password()), "{flag:?}");
    let faulty = run(home.command(&["serve", "--store", "postgres://u:hunter2@h:x/d"]));
    faulty.assert_error(2, &["--store: has a port that is no number"]);
    assert!(!faulty.stderr.contains("hunter2"), "{faulty:?}");

    let migrate = ["store", "migrate", "--store", &without];
    run(home.command(&migrate)).assert_error(1, &["none is set"]);
    run(home.command(&migrate).env("PGPASSWORD", Role::Owner.password())).assert_fine();
    let line = format!("*:*:{DATABASE}:{}:{}\n", Role::Owner.name(), Role::Owner.password());
    let file = home.write("pass", &line);
    let with_file = format!("{without}?passfile={}", file.display());
    let migrate = ["store", "migrate", "--store", &with_file];
    set_mode(&file, 0o644);
    run(home.command(&migrate)).assert_error(1, &["pass: can be read by everyone"]);
    set_mode(&file, 0o600);
    run(home.command(&migrate)).assert_fine();

    let toml = home.write("grantd.toml", &format!("[store]\nurl = \"{owner}\"\n"));
    let migrate = ["store", "migrate", "--config", "grantd.toml"];
    set_mode(&toml, 0o644);
    let open = run(home.command(&migrate));
    open.assert_error(1, &["grantd.toml: store.url: holds a password and can be read by everyone"]);
    assert!(!open.stderr.contains(Role::Owner.password()), "{open:?}");
    set_mode(&toml, 0o600);
    run(home.command(&migrate)).assert_fine();
}

#[test]
fn master_keys_are_needed_and_hidden() {
    let cluster = Postgres::start();
    let home = Home::new();
    let owner = cluster.url(Role::Owner);
    on(&home, &owner, &["store", "migrate"]).assert_fine();
    let rekey = || {
        let mut command = with_store(&home, &owner, &["store", "rekey"]);
        command.env_remove("GRANTD_MASTER_KEY");
        command
    };
    run(rekey()).assert_error(1, &["store.master_key_file: is not set", "openssl rand -base64 32"]);
    let faulty = run(rekey().env("GRANTD_MASTER_KEY", "hunter2"));
    faulty.assert_error(1, &["GRANTD_MASTER_KEY:1: must be 32 bytes in base64"]);
    assert!(!faulty.stderr.contains("hunter2"));
    let file = home.write("master.key", super::store::MASTER_KEY);
    let with_file = || {
        let mut command = rekey();
        command.env("GRANTD_STORE__MASTER_KEY_FILE", "master.key");
        command
    };
    set_mode(&file, 0o644);
    run(with_file())
        .assert_error(1, &["master.key: can be read by everyone", "grantd store rekey"]);
    set_mode(&file, 0o600);
    run(with_file()).assert_fine();
    run(with_file().env("GRANTD_MASTER_KEY", super::store::MASTER_KEY))
        .assert_error(1, &["GRANTD_MASTER_KEY: is set, and so is store.master_key_file"]);
}
