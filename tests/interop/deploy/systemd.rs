//! The units, checked by systemd itself.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::deploy::{check_warns_of_a_stop_from, seconds_to_stop, shipped, text_of};
use crate::support::command::succeed;

/// `systemd-analyze` reports no fault. One of its checks is that the program exists, so the test
/// changes a copy of the unit to name the program that cargo built.
#[test]
fn the_units_are_valid() {
    let directory = TempDir::new().unwrap();
    let installed = "ExecStart=/usr/local/bin/grantd ";
    let service = text_of("systemd/grantd.service");
    assert!(service.contains(installed), "{service}");
    let built = format!("ExecStart={} ", env!("CARGO_BIN_EXE_grantd"));
    let service = service.replace(installed, &built);
    for (name, text) in
        [("grantd.service", service), ("grantd.socket", text_of("systemd/grantd.socket"))]
    {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no", "./grantd.service", "./grantd.socket"]);
    let ended = verify.current_dir(directory.path()).output().expect("tests/run installs it");
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success() && !said.contains("grantd."), "{said}");
}

/// The exposure level of `systemd-analyze security` is at most 2.0 of 10.
#[test]
fn the_service_is_hardened() {
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--no-pager", "--offline=true", "--threshold=20"]);
    let printed = succeed(security.arg(shipped("systemd/grantd.service")));
    assert!(printed.contains("Overall exposure level for grantd.service"), "{printed}");
}

#[test]
fn the_service_user_can_be_created() {
    let mut make = Command::new("systemd-sysusers");
    let printed = make.arg("--dry-run").arg(shipped("systemd/grantd.sysusers")).output().unwrap();
    assert!(printed.status.success(), "{printed:?}");
}

/// systemd waits longer than the server takes to stop, by default and with the shipped configuration,
/// and `check` warns from then on.
#[test]
fn the_service_has_time_to_drain() {
    let unit = text_of("systemd/grantd.service");
    let seconds = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
    let waits = seconds.parse().unwrap();
    for configuration in ["", &text_of("grantd.toml")] {
        let stop = seconds_to_stop(configuration);
        assert!(waits > stop, "{waits} > {stop}");
    }
    check_warns_of_a_stop_from(waits, &[], "TimeoutStopSec");
}
