//! Runs every command in `docs/postgresql.md`.

use std::fs;
use std::path::Path;
use std::process::Command;

use grantd::clock::Clock;

use crate::support::Home;
use crate::support::command::succeed;
use crate::support::postgres::Postgres;

const PAGE: &str = include_str!("../../../docs/postgresql.md");

#[test]
fn every_command_on_the_page_of_postgresql_succeeds() {
    let cluster = Postgres::start();
    // The cluster has the roles and the database of other tests already.
    let here = |text: &str| {
        text.replace("db.example:5432/grantd", &format!("127.0.0.1:{}/page", cluster.port))
            .replace("grantd_owner", "page_owner")
            .replace("grantd_node", "page_node")
            .replace("DATABASE grantd", "DATABASE page")
    };
    let home = Home::new();
    fs::create_dir(home.path("state")).unwrap();
    let revoked =
        format!("{} jti:kGGv6zFBu5FLUEcBWPGsQw", Clock::unix_micros() / 1_000_000 + 86_400);
    home.write("state/revocations", &format!("{revoked}\n"));
    let mut script = "set -euo pipefail\n".to_owned();
    let mut counts = [0; 3];
    for block in PAGE.split("\n```").skip(1).step_by(2) {
        let (language, text) = block.split_once('\n').unwrap();
        match language {
            "sql" => {
                for statement in text.split(';').map(str::trim).filter(|it| !it.is_empty()) {
                    cluster.psql(&here(statement));
                }
                counts[0] += 1;
            }
            "toml" => {
                home.write("grantd.toml", &here(text));
                counts[1] += 1;
            }
            "sh" => {
                script.push_str(&here(text));
                script.push('\n');
                counts[2] += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(counts, [1, 1, 5]);
    let binaries = Path::new(env!("CARGO_BIN_EXE_grantd")).parent().unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).env("PATH", path).current_dir(home.clients().parent().unwrap());
    let printed = succeed(&mut bash);
    assert_eq!(printed.lines().count(), 7, "{printed}");
    assert!(home.path("exported/clients.json").exists());
    let exported = fs::read_to_string(home.path("exported/state/revocations")).unwrap();
    assert!(exported.contains(&revoked), "{exported}");
}
