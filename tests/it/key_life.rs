//! `grantd key rotate|retire|import` and a server that runs meanwhile: from key to key without a
//! token that cannot be verified.

use std::fs;
use std::path::Path;

use grantd::clock::Clock;
use grantd::jose::key_life::Retention;
use grantd::store::key_directory;
use serde_json::{Value, json};

use crate::support::command::{Ended, run, run_with_input};
use crate::support::home::{set_mode, signing_key};
use crate::support::{
    Connection, DEMO, ENCODINGS, Encoding, Home, Library, Program, Request, Response, Token,
    demo_with,
};

const JWKS: &str = "/.well-known/jwks.json";

/// Of the registry and the settings that tests have: its longest tokens live for two hours.
const RETENTION: Retention = Retention { jwks_max_age: 300, token_lifetime: 7200 };
/// From the time at which a key retires.
const KEPT_FOR: u64 = 7500;

fn key(home: &Home, arguments: &[&str]) -> Ended {
    run(home.command(&[&["key"], arguments].concat()))
}

/// What a command has printed: one object a line.
#[track_caller]
fn printed(ended: &Ended) -> Vec<Value> {
    ended.assert_fine().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn one(ended: &Ended) -> Value {
    let [line] = <[Value; 1]>::try_from(printed(ended)).expect("one line");
    line
}

fn seconds(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn now() -> u64 {
    Clock::system().unix_seconds()
}

/// The `kid` of the key that every home has.
fn first_kid() -> &'static str {
    signing_key().0.trim_end_matches(".pem")
}

/// Puts another key beside those of `home`, with these times. Gives its `kid`.
fn put_key(home: &Home, published_at: u64, signs_from: u64) -> String {
    let elsewhere = Home::without_key();
    let made = one(&key(&elsewhere, &["generate"]));
    let kid = made["kid"].as_str().unwrap().to_owned();
    let name = format!("{kid}.pem");
    let text = fs::read_to_string(elsewhere.keys().join(&name)).unwrap();
    let pem = &text[text.find("-----BEGIN").unwrap()..];
    let times = format!("Published-At: {published_at}\nSigns-From: {signs_from}\n");
    home.write_key(&name, &(times + pem));
    kid
}

/// The names of the files in the directory of keys that are not hidden.
fn files(home: &Home) -> Vec<String> {
    let names = home.keys().read_dir().unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

fn kids(key_set: &Response) -> Vec<String> {
    let key_set = key_set.json();
    let kids = key_set["keys"].as_array().unwrap().iter();
    let mut kids: Vec<_> = kids.map(|key| key["kid"].as_str().unwrap().to_owned()).collect();
    kids.sort();
    kids
}

fn sorted<const N: usize>(kids: [&str; N]) -> Vec<String> {
    let mut kids = kids.map(str::to_owned).to_vec();
    kids.sort();
    kids
}

/// Waits until the server has noticed by itself that its files have changed.
fn reloaded(server: &Program, generation: u64) -> String {
    let line = server
        .log
        .wait_for(|line| line["message"] == "reloaded" && line["generation"] == json!(generation));
    line["changes"].as_str().unwrap().to_owned()
}

#[test]
fn rotating_publishes_a_key_and_says_when_the_old_one_goes() {
    let home = Home::new();
    let rotated = one(&key(&home, &["rotate", "--bits", "3072"]));
    let names: Vec<_> = rotated.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["kid", "bits", "published_at", "signs_from", "retires", "dates"]);
    assert_eq!(rotated["bits"], 3072);
    let signs_from = seconds(&rotated, "signs_from");
    assert_eq!(signs_from, seconds(&rotated, "published_at") + 600);
    let retires = json!({
        "kid": first_kid(), "retires_at": signs_from, "gone_at": signs_from + KEPT_FOR,
        "dates": rotated["retires"]["dates"],
    });
    assert_eq!(rotated["retires"], retires);
    assert_eq!(retires["dates"]["retires_at"], rotated["dates"]["signs_from"]);

    let listed = printed(&key(&home, &["list"]));
    for key in &listed {
        let is_first = key["kid"] == first_kid();
        assert_eq!(key["state"], if is_first { "signing" } else { "published" });
        for end in ["retires_at", "gone_at"] {
            let expected = if is_first { Some(&retires[end]) } else { None };
            assert_eq!(key.get(end), expected, "{key}");
        }
    }
    assert_eq!(listed.len(), 2);
}

#[test]
fn a_key_that_waits_is_not_overtaken() {
    let home = Home::new();
    let rotated = one(&key(&home, &["rotate"]));
    let before = files(&home);
    let (kid, from) = (rotated["kid"].as_str().unwrap(), seconds(&rotated, "signs_from"));
    let says = format!("grantd: keys: {kid} is already published and signs from {from} (");
    key(&home, &["rotate"]).assert_error(1, &[&says, "rotate after that"]);
    assert_eq!(files(&home), before);
}

#[test]
fn of_two_that_rotate_at_once_one_does() {
    let home = Home::new();
    let ended: Vec<_> = std::thread::scope(|scope| {
        let running = [(); 4].map(|()| scope.spawn(|| key(&home, &["rotate"])));
        running.map(|running| running.join().unwrap()).into()
    });
    assert_eq!(ended.iter().filter(|ended| ended.code == Some(0)).count(), 1, "{ended:?}");
    assert_eq!(files(&home).len(), 2);
}

#[test]
fn there_must_be_a_key_to_take_over_from() {
    let home = Home::without_key();
    let says = "holds no key to succeed: `grantd key generate` generates the first one";
    key(&home, &["rotate"]).assert_error(1, &[&format!("grantd: keys: {says}")]);
    key(&home, &["rotate", "--keys", "mistyped"])
        .assert_error(1, &[&format!("grantd: mistyped: {says}")]);
    assert!(!home.path("mistyped").exists());
    assert_eq!(key(&home, &["rotate", "--bits", "1024"]).code, Some(2));
}

#[test]
fn a_running_server_publishes_both_and_counts_who_has_fetched_which() {
    let server = Program::start(Home::new(), &[]);
    let keys = || -> Vec<Value> {
        let answer = Request::get("/keys").send(server.admin);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        answer.json().as_array().unwrap().clone()
    };
    let find = |keys: &[Value], kid: &str| -> Value {
        keys.iter().find(|key| key["kid"] == kid).expect("the key").clone()
    };
    assert_eq!(
        keys(),
        [json!({
            "kid": first_kid(), "bits": 2048, "state": "signing", "published_at": 0,
            "signs_from": 0, "fetches": 0, "last_fetch": null,
        })]
    );
    let jwks = server.ask(&Request::get(JWKS));
    let etag = jwks.header("etag").unwrap();
    let known = Request::get(JWKS).header("If-None-Match", etag);
    assert_eq!(server.ask(&known).status, 304);
    let other = "/.well-known/openid-configuration/jwks";
    assert_eq!(server.ask(&Request::get(other)).status, 200);
    // Neither of these has a key in it.
    assert_eq!(server.ask(&Request::new("POST", JWKS)).status, 405);
    assert_eq!(server.ask(&Request::get("/.well-known/openid-configuration")).status, 200);
    let first = find(&keys(), first_kid());
    assert_eq!(first["fetches"], 3);
    let last = seconds(&first, "last_fetch");
    assert!(now().abs_diff(last) < 600, "{first}");

    let rotated = one(&key(&server.home, &["rotate"]));
    let second_kid = rotated["kid"].as_str().unwrap();
    assert_eq!(reloaded(&server, 2), format!("keys added: {second_kid}"));
    // The same key goes on counting; the new one has yet to be fetched.
    let both = keys();
    let (first, second) = (find(&both, first_kid()), find(&both, second_kid));
    assert_eq!((&first["fetches"], &second["fetches"]), (&json!(3), &json!(0)));
    assert_eq!((&second["state"], &second["last_fetch"]), (&json!("published"), &Value::Null));
    for end in ["retires_at", "gone_at"] {
        assert_eq!((&first[end], second.get(end)), (&rotated["retires"][end], None));
    }
    assert_eq!(kids(&server.ask(&Request::get(JWKS))), sorted([first_kid(), second_kid]));
    assert_eq!(server.ask(&known).status, 200, "it is another key set");
    let token = server.ask(&Request::token(Encoding::Urlencoded, &DEMO));
    // This fetches once more.
    assert_eq!(Token::verified(&token, server.address).header["kid"], first_kid());

    let fetches =
        |kid: &str| server.metric(&format!("grantd_key_set_fetches_total{{kid=\"{kid}\"}}"));
    assert_eq!((fetches(first_kid()), fetches(second_kid)), (6, 3));
    let age = |kid: &str, state: &str| {
        server.metric(&format!("grantd_key_age_seconds{{kid=\"{kid}\",state=\"{state}\"}}"))
    };
    assert!(age(second_kid, "published") < 600);
    assert!(age(first_kid(), "signing") > 1_760_000_000, "its file names no time");

    // `key list` asks for the same; without `--admin` it does not.
    let admin = server.admin.to_string();
    let mut listed = printed(&key(&server.home, &["list", "--admin", &admin]));
    for line in &mut listed {
        let dates = line.as_object_mut().unwrap().remove("dates").unwrap();
        assert_eq!(dates["last_fetch"].is_string(), line["last_fetch"].is_u64(), "{dates}");
    }
    assert_eq!(listed, keys());
    assert_eq!(find(&listed, second_kid)["fetches"], 3);
    for line in printed(&key(&server.home, &["list"])) {
        assert!(line.get("fetches").is_none() && line.get("last_fetch").is_none());
    }
    let public = server.address.to_string();
    key(&server.home, &["list", "--admin", &public])
        .assert_error(1, &[&format!("grantd: {public}: answered 404"), "admin listener"]);
}

#[test]
fn a_key_that_the_server_has_not_read_has_no_figures() {
    let server = Program::start(Home::new(), &[]);
    let other = Home::without_key();
    let kid = one(&key(&other, &["generate"]))["kid"].clone();
    let admin = server.admin.to_string();
    let listed = one(&key(&other, &["list", "--admin", &admin]));
    assert_eq!((&listed["kid"], &listed["fetches"]), (&kid, &Value::Null));
    assert!(listed["last_fetch"].is_null() && listed.as_object().unwrap().contains_key("fetches"));
}

#[test]
fn one_key_follows_the_other_without_a_token_that_cannot_be_verified() {
    const START: u64 = 1_790_000_000;
    let home = Home::new();
    let rotated = key_directory::rotate(&home.keys(), 2048, &RETENTION, START).unwrap();
    let second_kid = rotated.made.key_id().to_owned();
    let (takes_over, gone) = (rotated.retirement.retires_at, rotated.retirement.gone_at);
    assert_eq!((takes_over, gone), (START + 600, START + 600 + KEPT_FOR));
    let server = Library::start(home, "https://auth.example", START);
    let jwks = || kids(&Request::get(JWKS).send(server.address));
    let signed_by = |encoding| {
        let answer = Request::token(encoding, &DEMO).send(server.address);
        Token::verified(&answer, server.address).header["kid"].as_str().unwrap().to_owned()
    };
    let is_active = |answer: &Response| {
        let token = answer.json()["access_token"].as_str().unwrap().to_owned();
        let request = Request::new("POST", "/connect/introspect")
            .form(Encoding::Urlencoded, &demo_with(&[("token", &token)]));
        request.send(server.address).json()["active"] == true
    };
    let both = sorted([first_kid(), &second_kid]);
    for now in [START, takes_over - 1] {
        server.clock.set(now);
        assert_eq!(jwks(), both, "{now}");
        assert_eq!(ENCODINGS.map(signed_by), [first_kid(), first_kid()], "{now}");
    }
    let last_of_the_first = Request::token(Encoding::Multipart, &DEMO).send(server.address);
    for now in [takes_over, gone - 1] {
        server.clock.set(now);
        assert_eq!(jwks(), both, "{now}");
        assert_eq!(ENCODINGS.map(signed_by), [&*second_kid, &*second_kid], "{now}");
    }
    server.clock.set(takes_over - 1 + 3599);
    assert!(is_active(&last_of_the_first), "to its last second");
    server.clock.set(gone);
    assert_eq!(jwks(), sorted([&*second_kid]));
    assert_eq!(ENCODINGS.map(signed_by), [&*second_kid, &*second_kid]);
    assert!(!is_active(&last_of_the_first));
    // The next one can come, and the old one can go.
    let retired = key_directory::retire(&server.home.keys(), None, &RETENTION, gone).unwrap();
    assert_eq!(retired.iter().map(|retired| &*retired.key_id).collect::<Vec<_>>(), [first_kid()]);
    key_directory::rotate(&server.home.keys(), 2048, &RETENTION, gone).unwrap();
}

#[test]
fn keys_that_are_gone_are_taken_out_and_kept() {
    let home = Home::new();
    let at = now();
    let retiring = put_key(&home, 5, at - KEPT_FOR - 1000);
    let signing = put_key(&home, 6, at - 1000);
    let text = fs::read(home.keys().join(&signing_key().0)).unwrap();
    let server = Program::start(home, &[]);
    let home = &server.home;
    assert_eq!(kids(&server.ask(&Request::get(JWKS))), sorted([&*retiring, &*signing]));
    assert!(!server.metrics().contains(first_kid()), "a key that is gone");
    assert_eq!(printed(&key(home, &["list"])).len(), 3);

    let file = format!("keys/{}.pem.retired", first_kid());
    let expected = json!({ "kid": first_kid(), "state": "gone", "file": file });
    assert_eq!(one(&key(home, &["retire"])), expected);
    assert_eq!(reloaded(&server, 2), format!("keys removed: {}", first_kid()));
    assert_eq!(kids(&server.ask(&Request::get(JWKS))), sorted([&*retiring, &*signing]));
    assert_eq!(fs::read(home.path(&file)).unwrap(), text, "nothing is lost");
    assert_eq!(files(home).len(), 3);
    let states: Vec<_> =
        printed(&key(home, &["list"])).iter().map(|key| key["state"].clone()).collect();
    assert!(states.contains(&json!("signing")) && states.contains(&json!("retiring")));
    assert_eq!(states.len(), 2);
    // There is nothing left to do.
    assert_eq!(key(home, &["retire"]).assert_fine(), "");
    assert_eq!(run(Home::without_key().command(&["key", "retire"])).assert_fine(), "");
}

#[test]
fn the_tokens_of_a_leaked_key_are_worthless() {
    let home = Home::new();
    let at = now();
    let gone = put_key(&home, 0, at - 100_000);
    let leaked = put_key(&home, 0, at - 1000);
    // It retires since the leaked one signs; the two before it are gone.
    let between = put_key(&home, 0, at - 50_000);
    let server = Program::start(home, &[]);
    let request = Request::token(Encoding::Urlencoded, &DEMO);
    let answer = server.ask(&request);
    assert_eq!(Token::verified(&answer, server.address).header["kid"], *leaked);
    let token = answer.json()["access_token"].as_str().unwrap().to_owned();
    let validate =
        Request::get("/connect/validate").header("Authorization", format!("Bearer {token}"));
    let introspect = Request::new("POST", "/connect/introspect")
        .form(Encoding::Urlencoded, &demo_with(&[("token", &token)]));
    let mut connection = Connection::open(server.address);
    assert_eq!(connection.ask(&validate).status, 204);
    assert_eq!(server.ask(&introspect).json()["active"], true);

    let out = printed(&key(&server.home, &["retire", &leaked]));
    let states: Vec<_> =
        out.iter().map(|key| (key["kid"].as_str(), key["state"].as_str())).collect();
    // Without the leaked one, the oldest would stand as if they had retired this moment.
    assert_eq!(states.len(), 3, "{states:?}");
    assert_eq!(states[2], (Some(&*leaked), Some("signing")));
    for kid in [&*gone, first_kid()] {
        assert!(states[..2].contains(&(Some(kid), Some("gone"))), "{states:?}");
    }
    assert!(reloaded(&server, 2).starts_with("keys removed: "));
    assert_eq!(kids(&server.ask(&Request::get(JWKS))), [&*between]);
    assert_eq!(connection.ask(&validate).status, 401);
    assert_eq!(server.ask(&introspect).text(), "{\"active\":false}");
    // The one before it is still in the key set that everyone has: it signs again.
    let answer = server.ask(&request);
    assert_eq!(Token::verified(&answer, server.address).header["kid"], *between);
}

#[test]
fn the_last_key_that_signs_is_not_taken_out() {
    let home = Home::new();
    let refused = key(&home, &["retire", first_kid()]);
    refused
        .assert_error(1, &["grantd: keys: no signing key would be left: run `grantd key rotate`"]);
    let rotated = one(&key(&home, &["rotate"]));
    let says = format!("the next one signs from {} (", rotated["signs_from"]);
    key(&home, &["retire", first_kid()])
        .assert_error(1, &["no signing key would be left", &says, "retire this one then"]);
    assert_eq!(files(&home).len(), 2);
    // The one that waits can go.
    let waiting = rotated["kid"].as_str().unwrap();
    assert_eq!(one(&key(&home, &["retire", waiting]))["state"], "published");
    assert_eq!(one(&key(&home, &["list"]))["kid"], first_kid());
}

#[test]
fn a_kid_is_one_that_is_there() {
    let home = Home::new();
    // Names may begin with a hyphen.
    let unknown = format!("-{}", "a".repeat(42));
    let says = format!("grantd: keys: holds no key {unknown}; `grantd key list` shows");
    key(&home, &["retire", &unknown]).assert_error(1, &[&says]);
    key(&home, &["retire", "--keys", "none", &unknown])
        .assert_error(1, &["grantd: none: does not exist"]);
    for wrong in ["x", "--kyes", &format!("{}/", "a".repeat(42)), &signing_key().0] {
        key(&home, &["retire", wrong]).assert_error(2, &["grantd key list"]);
    }
    home.write_key("bad.pem", "text");
    key(&home, &["retire"]).assert_error(1, &["grantd: keys/bad.pem: "]);
}

#[test]
fn a_key_of_another_file_name_is_taken_out_too() {
    let home = Home::without_key();
    home.write_key("by-hand.pem", &signing_key().1);
    put_key(&home, 0, now() - 100_000);
    let file = format!("{}.pem.retired", first_kid());
    assert_eq!(one(&key(&home, &["retire"]))["file"], format!("keys/{file}"));
    assert!(files(&home).contains(&file) && files(&home).len() == 2);
}

#[test]
fn a_key_made_elsewhere_is_taken_in() {
    let home = Home::without_key();
    fs::remove_dir(home.keys()).unwrap();
    // What stands in front of it elsewhere does not hold here.
    let text = format!("Signs-From: 5\n{}", signing_key().1);
    set_mode(&home.write("elsewhere.pem", &text), 0o600);
    let first = one(&key(&home, &["import", "elsewhere.pem"]));
    assert_eq!((&first["kid"], &first["bits"]), (&json!(first_kid()), &json!(2048)));
    assert_eq!(first["published_at"], first["signs_from"]);
    assert!(now().abs_diff(seconds(&first, "signs_from")) < 600, "{first}");
    assert_eq!(fs::read_to_string(home.path("elsewhere.pem")).unwrap(), text);
    let kept = home.keys().join(&signing_key().0);
    let kept_text = fs::read_to_string(&kept).unwrap();
    assert!(kept_text.ends_with(&signing_key().1));
    assert_eq!(mode(&kept), 0o600);
    assert_eq!(mode(&home.keys()), 0o700);

    // The second one is published first; it comes by standard input.
    let other = Home::without_key();
    let made = one(&key(&other, &["generate", "--bits", "3072"]));
    let name = format!("{}.pem", made["kid"].as_str().unwrap());
    let text = fs::read_to_string(other.keys().join(name)).unwrap();
    let second = one(&run_with_input(home.command(&["key", "import", "-"]), &text));
    assert_eq!((&second["kid"], &second["bits"]), (&made["kid"], &json!(3072)));
    assert_eq!(seconds(&second, "signs_from"), seconds(&second, "published_at") + 600);
    let server = Program::start(home, &[]);
    assert_eq!(kids(&server.ask(&Request::get(JWKS))).len(), 2);
    let token = server.ask(&Request::token(Encoding::Multipart, &DEMO));
    assert_eq!(Token::verified(&token, server.address).header["kid"], first_kid());
}

#[test]
fn what_is_no_key_to_load_is_none_to_import() {
    let home = Home::new();
    let (name, pem) = signing_key();
    let refused = |ended: &Ended, says: &str| {
        ended.assert_error(1, &[says]);
        // No line of a key, right or wrong.
        assert!(!pem.lines().any(|line| line.len() == 64 && ended.stderr.contains(line)));
        assert_eq!(files(&home), [&**name]);
    };
    for (text, says) in [
        (pem.replace("PRIVATE KEY", "RSA PRIVATE KEY"), "is not an unencrypted PKCS#8 private key"),
        (pem[..pem.len() / 2].to_owned(), "is not an unencrypted PKCS#8 private key"),
        ("hunter2\n".to_owned(), "is not an unencrypted PKCS#8 private key in PEM"),
        (crate::cli::SHORT_KEY.to_owned(), "is not a usable RSA key of 2048 to 4096 bits"),
        (crate::cli::CURVE_KEY.to_owned(), "is not a usable RSA key of 2048 to 4096 bits"),
        (pem.clone(), "already"),
    ] {
        set_mode(&home.write("a.pem", &text), 0o600);
        let there = format!("grantd: keys/{name}: already holds the key {}", first_kid());
        let is_there = says == "already";
        let by_file = if is_there { there.clone() } else { format!("grantd: a.pem: {says}") };
        refused(&key(&home, &["import", "a.pem"]), &by_file);
        let by_pipe = if is_there { there } else { format!("grantd: standard input: {says}") };
        refused(&run_with_input(home.command(&["key", "import", "-"]), &text), &by_pipe);
    }
    set_mode(&home.path("a.pem"), 0o644);
    let open = "grantd: a.pem: can be read by everyone on this machine";
    refused(&key(&home, &["import", "a.pem"]), open);
    refused(&key(&home, &["import", "none.pem"]), "grantd: none.pem: cannot be read: ");
    assert_eq!(key(&home, &["import"]).code, Some(2));
    // Nothing is made for what cannot be taken in.
    key(&home, &["import", "--keys", "new", "none.pem"]).assert_error(1, &["none.pem"]);
    set_mode(&home.write("a.pem", "text"), 0o600);
    key(&home, &["import", "--keys", "new", "a.pem"]).assert_error(1, &["a.pem"]);
    assert!(!home.path("new").exists());
}

#[test]
fn a_key_that_was_taken_out_can_come_back() {
    let home = Home::new();
    let at = now();
    put_key(&home, 0, at - 1000);
    let retired = one(&key(&home, &["retire", first_kid()]));
    assert_eq!(retired["state"], "retiring");
    let file = retired["file"].as_str().unwrap();
    let back = one(&key(&home, &["import", file]));
    assert_eq!(back["kid"], first_kid());
    assert!(seconds(&back, "signs_from") > at);
    // It goes to the same place again.
    assert_eq!(one(&key(&home, &["retire", first_kid()]))["file"], file);
}

#[test]
fn no_command_prints_key_material() {
    let home = Home::new();
    set_mode(&home.write("a.pem", &signing_key().1), 0o600);
    let imports = Home::without_key();
    let file = home.path("a.pem").display().to_string();
    let mut output = key(&imports, &["import", &file]).assert_fine().to_owned();
    output += key(&home, &["rotate"]).assert_fine();
    let signing = put_key(&home, 0, now() - 100_000);
    output += key(&home, &["list"]).assert_fine();
    output += key(&home, &["retire"]).assert_fine();
    assert!(output.contains(&signing) && !output.contains("PRIVATE"));
    let mut lines = 0;
    for entry in home.keys().read_dir().unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in text.lines().filter(|line| line.len() == 64) {
            lines += 1;
            assert!(!output.contains(line));
        }
    }
    assert!(lines > 60, "the lines of three keys");
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn without_a_registry_nobody_knows_when_a_key_may_go() {
    let home = Home::new();
    fs::remove_file(home.clients()).unwrap();
    for command in ["rotate", "retire"] {
        key(&home, &[command]).assert_error(1, &["clients.json: there is no client registry"]);
    }
    // A first key may come before the first client.
    key(&home, &["generate"]).assert_fine();
}
