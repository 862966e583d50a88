//! Faults in files, which `check` and `serve` both report: each with its place and its remedy.

use serde_json::json;

use crate::support::Home;
use crate::support::command::{Ended, run};
use crate::support::home::{set_mode, signing_key};

/// An RSA key of 1024 bits, made for this test and used nowhere else.
pub(crate) const SHORT_KEY: &str = "-----BEGIN PRIVATE KEY-----
MIICdgIBADANBgkqhkiG9w0BAQEFAASCAmAwggJcAgEAAoGBAOj9toAbhS6EoEb4
JX9QHCt+ov+Xv3IQVHLQRpkCh5RsyWqyU4IPKkwXLLyFuGSawNxRwTrzEL7yTNAs
fgUjbY+XjJulkIU9/iOlgDc6I895ApYe88Ij3t3YuPMyf831ms964jvnPdIpPigR
drs2uPzI2JpGv30XgfQQOWQOFfGlAgMBAAECgYAUlYWwH75Oc80tN/MoIk260f9Y
kXGKhELRufDix8RuqoXI9WRHU0urWUjMhwvZZ4qubFKkAKF0HTgIFEY18gFVyShy
0W4YKnMVBOi08eWYPngFyfq0GHrzBDuEL8pv7hsDLO3VZv+KfE8wTrrfQ0TPGqrl
yRrLEN5JgbUZIN2p6QJBAPTN6q/ovK3YXiOVEQ4bpgJilFep2YCQ7GfjdmZeXIq9
MJQMk/HGfUx+uWM/oFyAJJSL2y5l1Yq3wl+RVk5DSt8CQQDzpX1/6r3W1cRyXgYi
XozaoCwis6prowiOhbTkPnW596aCVdzNXcxsi/CV2GYCoXBS+/3Ka1UmVHq7awBP
Tpf7AkAJ9lNFo1gCTxrNoeRWyaNA15gn1R6nz73/IE+SLObhMn/Glphyr1wr/8A1
nMI+4Wwbq3FY+wXspju/vd9gQfbLAkEA0jO7g4mlQNzqf/UIe8xw3wmDKmkxJW3h
qvxF5QjSDqBPQnELbw52mEtfRBgPYkOfoaiP+3wAWXJW9KzK9qEK0wJAJYqCnztp
6wnQBONgVeNQrHZZhtukiabQMKWBmAu8zZQvkIe9cnDISzZB5hrbUTFDODy0VBhH
WVg7Y1l3KTYgpA==
-----END PRIVATE KEY-----
";

/// An RSA key with the public exponent 3, made for this test and used nowhere else.
pub(crate) const EXPONENT_KEY: &str = "-----BEGIN PRIVATE KEY-----
MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQDRlsBNfFWkO+7Q
Y+x1MAexgNW4CFfmEbYJGWDk37FedNkB3JTZU8OGug1gM9MGf3j0wRXtMXG39RWV
dwYGWJ7KfepW3RClOqM4Sg37wxsE9lqibnvTCr0wa0uEzeofKym9mxwakxWhMZz3
+R8zbusatVi8O3wyyRJp8SCf07UXmBBCr0xCee4Ag9hfooF8lL6xfMLf/aZrVGZf
PLJITmC3+ldSGcSUqWv2S9CduR527zejgSCaRbt+r73xDH8J/KlNbrmJfiFYGOXZ
AJfnS0mVPp8K/uNpv9QiWW51twTALAiNw/EEYLo5GuRXqLIPQIQXf0woT8jCOfjT
Vq4FLtvLAgEDAoIBAQCLudWI/Y5tfUngQp2jdVp2VePQBY/utnlbZkCYlSDpoztW
kw3mN9evJrOVd+IEVPtN1g6eIPZ6o2O4+gQEOxSG/pw56LXDfGzQMV6n12dYpDxs
SafiByjK8jJYiUa/chvTvL1nDLkWIRNP+2oiSfIRzjsoJ6gh22Gb9hW/4ni6ZCrL
PeoZhGSWGSGFRWetoNTveHtv7nZdCzWPpzOtl/Cq+V93v1tS3+ZCHIHw1cHj4wkN
7QrvPY7f59k1SFpT/ZpGdW55Ae19nZNHoyPjtiYdy6u9ivNL+2XnJcEFnhwelA14
SUfpANxzWEMaA9vp/d2uT+BkxEjas9OGMzg4SccrAoGBAPWmqTQZEzXzOv18eHW+
X8tmGSU89gCEKeIwRyx6INaCoXCWIf4EGsQLecG/DgVUHY+Z964NoHt3yQx9TVEh
P3l53OKzyq+o0GjEH+H4uKjgcVX/LN52PBuXz0RcJmv59BswPr3JG5Y1ICS9x0Zd
thgy/6NmwEWnBn9I7oLkw+krAoGBANprKTkDICEsIyibQfA5w7PkLuR7IfRbmbPX
erhJyaE04teIWL2UPs6Hp0v1anZM/Rp0peIlyOm3Cuuj0qZqwMhp4bEgMI1y3CAp
bAAZAWeIG8dvgZgBip+v0YiRI26YWdkpF0ddw9lW9lry26HSjZ9fB9gqaRXTJbxB
G1bL/EfhAoGBAKPEcM1mDM6iJ1OoUE5+6oeZZhjTTqsCxpbK2h2mwI8BwPW5a/6t
Zy1c+9Z/Xq44E7URT8leavz6hghTiODA1Pumk0HNMcpwivCCv+v7JcXq9jlUyJRO
0r0P34LoGZ1RTWd1fykwvQ7OFW3T2i7pJBAh/8JEgC5vWaownwHt1/DHAoGBAJGc
xiYCFWtywhsSK/V7181Cye2na/g9ESKPpyWGhmt4lzpa5dO4Kd8FGjKjnE7d/hGj
GUFuhfEksfJtNxmcgIWb68tqywj3PWrGSAAQq5pavS+fq7qrsb/Ki7Bgwkm65pDG
D4TpLTuPTudMkmvhs7+Ur+Vxm2PiGSgrZ48yqC/rAoGBAMniGIPl6i/VPAegSUQ0
+2gGtM9b8wYN/68NV+dLa0PN59hDyxgrIiJK6NilUmDf0d/VxBuRdElMbPsJMDVu
gB4ozW5uelb3mFLvCqNQdRs1mikqwtbzQQD/1L7fXaWDH4KmBz89Kv2xCeiC07NY
+E3CBtKGj2bAvkkajDFihOL9
-----END PRIVATE KEY-----
";

/// A key on the curve P-256, made for this test and used nowhere else.
pub(crate) const CURVE_KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgc0wL1tOCyUl0Rf+M
GiETMKWyxz9VDMvtjYRRa2RU2dyhRANCAAQu1dhtAiH/rmefv/3QshFPb6BAbt87
rXXCbn6tnrwxn6tIabHebF7bBLyg2tLoPfRKvfamoTSkeZD5EsCP8Lma
-----END PRIVATE KEY-----
";

/// Runs `check` and `serve`, which both load every file. `serve` must fail before it listens.
fn check_and_serve(home: &Home, arguments: &[&str]) -> [Ended; 2] {
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    [&["check"][..], &serve].map(|command| run(home.command(command).args(arguments)))
}

#[track_caller]
fn assert_both_fail(home: &Home, arguments: &[&str], says: &[&str]) {
    for ended in check_and_serve(home, arguments) {
        ended.assert_error(1, says);
        let lines: Vec<_> = ended.stderr.lines().filter(|line| !line.starts_with('{')).collect();
        assert!(lines.iter().all(|line| line.starts_with("grantd: ")), "{lines:?}");
    }
}

#[test]
fn a_fault_in_the_configuration_has_its_file_and_line() {
    let home = Home::new();
    for (toml, says) in [
        (
            "workers = 2\nwrokers = 3\n",
            &["bad.toml:2:1: unknown setting `wrokers`: did you mean `workers`?"][..],
        ),
        ("\n[limits]\nbody = 1\n", &["bad.toml:3:1: unknown setting `body`"]),
        (
            "workers = \"two\"\n",
            &["bad.toml:1:11: workers: must be a number from 1 to 1024, not a string"],
        ),
        // `Startup` and `Live` ignore each other's settings, whatever type their values have.
        (
            "workers = 1.5\n",
            &["bad.toml:1:11: workers: must be a number from 1 to 1024, not a fraction\n"],
        ),
        (
            "jwks_max_age = 1.5",
            &["bad.toml:1:16: jwks_max_age: must be a number from 1 to 86400, not a fraction\n"],
        ),
        (
            "limits.body_bytes = 2026-01-01",
            &["bad.toml:1:21: limits.body_bytes: must be a number from 1 to 1073741824, not a \
               date or time\n"],
        ),
        (
            "limits.idle_seconds = \"\"",
            &["bad.toml:1:23: limits.idle_seconds: must be a number from 1 to 31536000, not a \
               string\n"],
        ),
        (
            "workers = 99999999999999999999\n",
            &["1:11: workers: must be a number from 1 to 1024, not"],
        ),
        ("listen = \"a:1\"\n", &["bad.toml:1:10: listen: must be a list, as in [", "not a string"]),
        ("issuer = 5\n", &["bad.toml:1:10: issuer: must be a string, not a number"]),
        ("clients = true\n", &["bad.toml:1:11: clients: must be a string, not true or false"]),
        ("dpop_nonce = \"yes\"\n", &["1:14: dpop_nonce: must be true or false, not a string"]),
        ("dpop_nonce = 1\n", &["1:14: dpop_nonce: must be true or false, not a number"]),
        ("socket_mode = true\n", &["bad.toml:1:15: socket_mode: must be a file mode in octal"]),
        ("limits = 3\n", &["bad.toml:1:10: limits: must be a table, not a number"]),
        ("log = \"info\"\n", &["bad.toml:1:7: log: must be a table, not a string"]),
        (
            "[log]\nlevel = \"loud\"\n",
            &["bad.toml:2:9: log.level: must be one of error, warn, info, debug"],
        ),
        ("[log]\nlevel = 3\n", &["bad.toml:2:9: log.level: must be a string, not a number"]),
        ("route = \"/a=connect\"\n", &["bad.toml:1:9: route: must be a list"]),
        ("route = [\"/a=connect\"]\n", &["bad.toml:1:10: route: must be a table, not a string"]),
        ("[[route]]\npath = \"/a\"\n", &["bad.toml:1:1: route: lacks `dialect`"]),
        (
            "[[route]]\npath = \"/a\"\ndialect = \"connect\"\nto = 1\n",
            &["bad.toml:4:1: unknown setting `to`"],
        ),
        ("admin_token_file = \"\"\n", &["1:20: admin_token_file: must not be empty"]),
        ("clients = \"\"\n", &["bad.toml:1:11: clients: must not be empty"]),
        ("keys = \"\"\n", &["bad.toml:1:8: keys: must not be empty"]),
        ("state = \"\"\n", &["bad.toml:1:9: state: must not be empty"]),
        ("audit = \"\"\n", &["bad.toml:1:9: audit: must not be empty"]),
        // If a file has two faults, the error names the fault that is nearer to the file's start.
        ("dpop_nonce = 1\nworkers = 0\n", &["bad.toml:1:14: dpop_nonce: "]),
        ("workers = 0\ndpop_nonce = 1\n", &["bad.toml:1:11: workers: "]),
        ("\nlisten = [\"nonsense\"]\n", &["bad.toml:2:11: listen: ", "host:port"]),
        ("listen = [\n  \"a:1\",\n  \"b\",\n]\n", &["bad.toml:3:3: listen: ", "host:port"]),
        ("listen = [\"::1:8080\"]\n", &["bad.toml:1:11: listen: ", "[::1]:8080"]),
        ("\n\nissuer = \"auth.example\"\n", &["bad.toml:3:10: issuer: ", "http"]),
        ("workers = \n", &["bad.toml:1:"]),
        (
            "listen = [\n  \"a:1\",\n  3,\n]\n",
            &["bad.toml:3:3: listen: must be a string, not a number"],
        ),
        ("workers = 0\n", &["bad.toml:1:11: workers: must be a number from 1 to 1024"]),
        ("jwks_max_age = 0\n", &["bad.toml:1:16: jwks_max_age: must be a number from 1 to 86400"]),
        ("listen = []\n", &["bad.toml:1:10: listen: name at least one address"]),
        (
            "[limits]\nbody_bytes = 0\n",
            &["bad.toml:2:14: limits.body_bytes: must be a number from 1"],
        ),
        (
            "[limits]\nheader_bytes = 9\n",
            &["bad.toml:2:16: limits.header_bytes: must be a number from 1024"],
        ),
    ] {
        home.write("bad.toml", toml);
        // No `--listen` here: an address on the command line would override the one in the file.
        run(home.command(&["check", "--config", "bad.toml"])).assert_error(1, says);
    }
    run(home.command(&["check", "--config", "none.toml"]))
        .assert_error(1, &["grantd: none.toml: cannot be read: "]);
}

#[test]
fn every_fault_of_the_registry_has_its_line_and_field_and_no_value() {
    let home = Home::new();
    let text = r#"{"clients": [
  {"client_id": "a", "scopes": ["x y"],
   "token_lifetime": "hunter2"},
  {"client_id": "b",
   "secrets": [{"label": "1",
                "hash": "hunter2"}],
   "default_scopes": ["s"], "auth_methods": ["hunter2"], "audience": [""],
   "claims": {"sub": "hunter2"}},
  {"client_id": "c", "enabled": 1, "hunter": 2},
  {"client_id": "d"}, {"client_id": "d"}, {"client_id": ""},
  {"client_id": "e", "token_reuse": 3601, "server_timing": "hunter2"},
  {"client_id": "f", "introspects": [""], "not_before": "hunter2"},
  {"client_id": "a"}, {"client_id": "g", "scopes": [], "scopes": 3, "client_idx": "hunter2"},
  {"client_id": "g"}, {"scopes": 3},
  {"client_id": "h", "claims": {"x": [{"a": 1, "a": "hunter2"}]}},
  {"client_id": "i", "claims": {"a": 1, "a": "hunter2"}, "rate_limit": {"requests": 1, "requests": 2}}
]}"#;
    home.write("clients.json", text);
    let expected = [
        "2:32: clients[0].scopes: must hold scope tokens",
        "3:22: clients[0].token_lifetime: must be a number of seconds",
        "6:25: clients[1].secrets: holds a hash that is not",
        "7:45: clients[1].auth_methods: names what is not a known",
        "7:22: clients[1].default_scopes: names a scope that is not in",
        "7:70: clients[1].audience: must not hold an empty",
        "8:14: clients[1].claims: must not set a claim",
        "9:43: clients[2]: unknown field `hunter`",
        "9:33: clients[2].enabled: must be true or false",
        "10:23: clients[4].client_id: is registered twice",
        "10:57: clients[5].client_id: must be one or more printable",
        "11:37: clients[6].token_reuse: must be a number of seconds",
        "11:60: clients[6].server_timing: must be true or false",
        "12:37: clients[7].introspects: must not hold an empty",
        "12:57: clients[7].not_before: must be a time in Unix seconds",
        "13:3: clients[8].client_id: is registered twice",
        "13:63: clients[9]: duplicate field `scopes`",
        "13:80: clients[9]: unknown field `client_idx`",
        "14:3: clients[10].client_id: is registered twice",
        "14:23: clients[11]: missing field `client_id`",
        "14:34: clients[11].scopes: must be a list of strings",
        "15:32: clients[12].claims: repeats the name \"a\" in one object",
        "16:72: clients[13].rate_limit: must be {",
        "16:32: clients[13].claims: repeats the name \"a\" in one object",
    ];
    for ended in check_and_serve(&home, &[]) {
        let found: Vec<_> = ended.stderr.lines().filter(|line| !line.starts_with('{')).collect();
        assert_eq!((ended.code, found.len()), (Some(1), expected.len()), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(&format!("grantd: clients.json:{expected}")), "{found}");
            assert!(!found.contains("hunter2"), "{found}");
        }
    }
    for (text, says) in [
        ("{\"clients\": [], \"x\": 1}", "unknown field `x`"),
        ("{}", "missing field `clients`"),
        ("{\"clients\": [\"hunter2\"]}", "clients[0]: must be"),
    ] {
        home.write("clients.json", text);
        assert_both_fail(&home, &[], &["grantd: clients.json:", says]);
    }
    home.write("clients.json", "{\"clients\": [\n  {\"client_id\": \"a\",}\n]}");
    assert_both_fail(
        &home,
        &[],
        &["grantd: clients.json:2:21: is not valid JSON here: key must be a string"],
    );
    // serde would read each of these objects from an array of its members, too.
    let hash = format!("$sha256${}", "A".repeat(43));
    let entry = json!({
        "client_id": "a", "secrets": [["1", hash, null, null]], "rate_limit": [5, 60],
    });
    home.write("clients.json", &json!({ "clients": [entry] }).to_string());
    let says = ["clients[0].secrets: must be a list of {", "clients[0].rate_limit: must be {"];
    assert_both_fail(&home, &[], &says);
    home.write("clients.json", "[[]]");
    assert_both_fail(&home, &[], &["clients.json:1:1: must be {\"clients\": [{…}, …]}"]);
    let twice = "{\"clients\": [\n{\"client_id\": \"a\"},\n{\"client_id\": \"a\"}]}";
    home.write("clients.json", twice);
    assert_both_fail(&home, &[], &["clients.json:3:1: clients[1].client_id: is registered twice"]);
    let says = &["grantd: none.json: cannot be read: ", "grantd client add"];
    assert_both_fail(&home, &["--clients", "none.json"], says);
}

#[test]
fn a_key_that_cannot_be_used_is_named() {
    let (name, pem) = signing_key();
    let begin = pem.replace("PRIVATE KEY", "RSA PRIVATE KEY");
    for (file, text, mode, says) in [
        (name.as_str(), pem.as_str(), 0o644, "can be read by everyone on this machine"),
        (name, pem, 0o604, "can be read by everyone on this machine"),
        (
            "short.pem",
            SHORT_KEY,
            0o600,
            "is not a usable RSA key of 2048 to 4096 bits: it has fewer than 2048 bits, or",
        ),
        (
            "curve.pem",
            CURVE_KEY,
            0o600,
            "is not a usable RSA key of 2048 to 4096 bits: it is a key of another algorithm",
        ),
        (
            "exponent.pem",
            EXPONENT_KEY,
            0o600,
            "is not a usable RSA key of 2048 to 4096 bits: its public exponent is less than",
        ),
        ("text.pem", "hunter2\n", 0o600, "is not an unencrypted PKCS#8 private key in PEM"),
        ("empty.pem", "", 0o600, "is not an unencrypted PKCS#8 private key in PEM"),
        ("pkcs1.pem", &begin, 0o600, "is not an unencrypted PKCS#8 private key in PEM"),
        ("cut.pem", &pem[..pem.len() / 2], 0o600, "is not an unencrypted PKCS#8"),
    ] {
        let home = Home::without_key();
        let path = home.write_key(file, text);
        set_mode(&path, mode);
        assert_both_fail(&home, &[], &[&format!("grantd: keys/{file}: {says}")]);
    }

    let home = Home::without_key();
    home.write_key("bad.pem", &format!("Published-At: 0\nSigns-From: soon\n{pem}"));
    assert_both_fail(&home, &[], &["grantd: keys/bad.pem:2:13: Signs-From: must be Unix seconds"]);
    home.write_key("bad.pem", pem);
    home.write_key("same.pem", pem);
    assert_both_fail(&home, &[], &["keys/same.pem: holds a key that another file holds too"]);
    std::fs::create_dir(home.keys().join("directory.pem")).unwrap();
    set_mode(&home.keys().join("directory.pem"), 0o700);
    assert_both_fail(&home, &[], &["keys/directory.pem: is not a regular file"]);
}

#[test]
fn all_faults_of_all_files_are_reported_at_once() {
    let home = Home::without_key();
    home.write("clients.json", "[]");
    home.write_key("short.pem", SHORT_KEY);
    home.write_key("text.pem", "text");
    let says = ["grantd: clients.json:1:", "grantd: keys/short.pem: ", "grantd: keys/text.pem: "];
    assert_both_fail(&home, &[], &says);
}

#[test]
fn files_without_the_name_of_a_key_are_ignored() {
    let home = Home::new();
    home.write_key(".hidden.pem", "text");
    home.write_key("notes.txt", "text");
    assert!(run(home.command(&["check"])).assert_fine().ends_with(", keys: 1\n"));
}
