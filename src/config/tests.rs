use std::slice::from_ref;

use super::*;

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

#[test]
fn the_table_of_keys_holds_the_directory_and_the_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("g.toml");
    let read = |toml: &str| {
        std::fs::write(&file, toml).unwrap();
        Layer::from_file(&file).map_err(|fault| fault.to_string())
    };
    let live = |layers: &[Layer]| Config::from_layers(layers.to_vec()).unwrap().live;
    let [table, string, every] = [
        "[keys]\ndirectory = \"d\"\nrotate_every = \"12h\"",
        "keys = \"e\"",
        "keys.rotate_every = 90",
    ]
    .map(|toml| read(toml).unwrap());
    let of = |live: Live| (live.keys.to_str().unwrap().to_owned(), live.rotate_every);
    assert_eq!(of(live(from_ref(&table))), ("d".to_owned(), Some(43_200)));
    assert_eq!(of(live(&[every])), ("keys".to_owned(), Some(90)));
    assert_eq!(of(live(&[table.clone(), string])), ("e".to_owned(), Some(43_200)));
    let text = |setting, text| Layer::from_text(setting, text).unwrap();
    let over = [table, text("keys", "f"), text("keys.rotate_every", "OFF")];
    assert_eq!(of(live(&over)), ("f".to_owned(), None));
    for (toml, says) in [
        ("[keys]\nrotate_evry = 1", "2:1: unknown setting `rotate_evry`: did you mean"),
        ("[keys]\nrotate_every = \"0d\"", "2:16: keys.rotate_every: must be a duration from 1s"),
        ("[keys]\nrotate_every = \"90 d\"", "keys.rotate_every: must be off, seconds, or a"),
        ("keys = 1", "1:8: keys: must be a string, not a number"),
        (
            "keys = \"e\"\n[keys]\nrotate_every = 90",
            "2:2: `keys` is set twice: in a table `[keys]`",
        ),
        ("keys = \"e\"\nkeys.rotate_every = 90", "`keys` is set twice: in a table `[keys]`"),
        ("keys.rotate_every = 90\nkeys = \"e\"", "2:1: `keys` is set twice: in a table `[keys]`"),
        ("keys = \"e\"\nkeys = \"f\"", "2:1: duplicate key"),
    ] {
        let fault = read(toml).unwrap_err();
        assert!(fault.contains(says), "{fault}");
    }
}

#[test]
fn a_changed_password_is_a_changed_url() {
    let with = |url: &str| {
        let layers = [Layer::from_text("store.url", url).unwrap()];
        Config::from_layers(layers).unwrap().startup
    };
    let (one, other) = (with("postgres://u:a@h/d"), with("postgres://u:b@h/d"));
    assert_eq!(one.differences(&other), ["store.url"]);
    assert_eq!(one.differences(&with("postgres://u:a@i/d")), ["store.url"]);
    assert_eq!(one.differences(&one), [] as [&str; 0]);
}

/// Sets one setting from a text, and asserts that no other setting changes. Repeats this for each
/// setting.
#[test]
fn text_sets_one_setting() {
    // Each setting accepts at least one of these texts that is not its default, so the change is
    // visible.
    let texts = [
        "1026",
        "999",
        "Yes",
        "off",
        "postgres://db.example/grantd",
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
        let layers = texts.iter().filter_map(|text| Layer::from_text(&setting, text).ok());
        let mut changes = layers.map(|layer| {
            let config = Config::from_layers([layer]).unwrap();
            let mut changed = layer::differences(&config.startup, &default.startup);
            changed.extend(layer::differences(&config.live, &default.live));
            changed
        });
        let changed = changes.find(|changed| !changed.is_empty());
        let changed = changed.unwrap_or_else(|| panic!("{setting} accepts none of these"));
        assert_eq!(changed, [setting]);
    }
}
