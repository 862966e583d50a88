use super::*;

#[test]
fn what_a_process_cannot_change_is_named() {
    let running = Startup::default();
    let mut next = running.clone();
    next.workers += 1;
    next.limits.idle_seconds += 1;
    assert_eq!(next.differences(&running), ["workers", "limits.idle_seconds"]);
    assert_eq!(running.differences(&running), [] as [&str; 0]);
}

#[test]
fn a_later_layer_wins_setting_by_setting() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("g.toml");
    let toml = "workers = 5\njwks_max_age = 60\n[limits]\nidle_seconds = 7\nbody_bytes = 9\n";
    std::fs::write(&file, toml).unwrap();
    let layers = [
        Layer::from_file(&file).unwrap(),
        Layer::from_text("limits.idle_seconds", "8").unwrap(),
        Layer::from_text("workers", "3").unwrap(),
        Layer::from_text("workers", "4").unwrap(),
    ];
    let Config { startup, live } = Config::from_layers(layers).unwrap();
    assert_eq!((startup.workers, live.jwks_max_age), (4, 60));
    assert_eq!((startup.limits.idle_seconds, live.limits.body_bytes), (8, 9));
    assert_eq!(startup.limits.connections, StartupLimits::default().connections);
    assert_eq!(Config::from_layers([]), Ok(Config::default()));
}

/// `Startup` ignores the settings of `Live`, and `Live` ignores the settings of `Startup`. They do
/// so even if an ignored value has the wrong type.
#[test]
fn a_fault_of_either_part_is_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("g.toml");
    for (toml, says) in [
        (
            "jwks_max_age = 1.5",
            "1:16: jwks_max_age: must be a number from 1 to 86400, not a fraction",
        ),
        ("workers = 1.5", "1:11: workers: must be a number from 1 to 1024, not a fraction"),
        (
            "limits.body_bytes = 2026-01-01",
            "1:21: limits.body_bytes: must be a number from 1 to 1073741824, not a date or time",
        ),
        (
            "limits.idle_seconds = \"\"",
            "1:23: limits.idle_seconds: must be a number from 1 to 31536000, not a string",
        ),
    ] {
        std::fs::write(&file, toml).unwrap();
        let fault = Layer::from_file(&file).unwrap_err().to_string();
        assert_eq!(fault, format!("{}:{says}", file.display()));
    }
}

/// Sets one setting from a text, and asserts that no other setting changes. Repeats this for each
/// setting.
#[test]
fn text_sets_one_setting() {
    // Each setting accepts at least one of these texts. The first text that a setting accepts
    // differs from the setting's default, so the change is visible.
    let texts = [
        "1026",
        "999",
        "Yes",
        "0600",
        "127.0.0.1:1, unix:/s",
        "127.0.0.1:1",
        "https://a.example",
        "10.0.0.0/8,UNIX",
        "/a=connect, /b=Vision",
        "RING",
        "Issuer",
        "Json",
        "DEBUG",
    ];
    let default = Config::default();
    for setting in setting_names() {
        let layer = texts.iter().find_map(|text| Layer::from_text(&setting, text).ok());
        let layer = layer.unwrap_or_else(|| panic!("{setting} accepts none of these"));
        let config = Config::from_layers([layer]).unwrap();
        let mut changed = layer::differences(&config.startup, &default.startup);
        changed.extend(layer::differences(&config.live, &default.live));
        assert_eq!(changed, [setting]);
    }
}

#[test]
fn text_that_is_no_value_is_refused_in_plain_words() {
    for (setting, text, says) in [
        ("workers", "four", "must be a number from 1 to 1024"),
        ("workers", "-1", "must be a number from 1 to 1024"),
        ("workers", "1025", "must be a number from 1 to 1024"),
        ("workers", "", "must be a number from 1 to 1024"),
        ("jwks_max_age", "0", "must be a number from 1 to 86400"),
        ("dpop_nonce", "maybe", "must be true or false, 1 or 0, yes or no, on or off"),
        ("log.level", "loud", "must be one of error, warn, info, debug"),
        ("clients", "", "must not be empty"),
        ("audit", "", "must not be empty"),
        ("listen", "127.0.0.1:1,", "must not be empty"),
        ("listen", "a", "an address is written host:port, [::1]:port or unix:/path"),
        ("route", "/a", "must be path=dialect"),
        ("route", "/a=b", "must be one of connect, vision, firstvision"),
        ("route", "/docs=connect", "is a path that is answered already (/docs): choose another"),
    ] {
        let problem = Layer::from_text(setting, text).unwrap_err();
        assert_eq!(problem.to_string(), says, "{setting} = {text}");
    }
}
