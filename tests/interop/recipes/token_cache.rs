//! Clients that keep a token.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::recipes::{Recipe, registered};
use crate::support::command::{python, succeed};
use crate::support::{Home, Program};

/// Uses the cache in `tokens.py`. Both programs print the same lines.
const PYTHON: &str = r#"
import sys, time
from concurrent.futures import ThreadPoolExecutor
from tokens import TokenError, Tokens

url, secret, brief, busy = sys.argv[1:]
tokens = Tokens(url, "kept", secret)
with ThreadPoolExecutor(16) as pool:
    got = set(pool.map(lambda _: tokens.get(), range(64)))
first = got.pop()
tokens.forget("another")
print("one token:", not got and tokens.get() == first)
tokens.forget(first)
print("forgotten:", tokens.get() != first)

wrong = Tokens(url, "kept", "wrong")
for _ in range(3):
    try:
        wrong.get()
    except TokenError as error:
        print("refused:", str(error).startswith("400: "))

short = Tokens(url, "brief", brief, "read")
first = short.get()
for _ in range(600):
    if short.get() != first:
        print("renewed: True")
        break
    time.sleep(0.05)

tokens = Tokens(busy, "kept", secret)
print(tokens.get(), tokens.get())
tokens.renew_at = 0
print(tokens.get(), tokens.get())
"#;

/// Uses the cache in `tokens.mjs`.
const JAVASCRIPT: &str = r#"
import { Tokens } from './tokens.mjs';

const say = (what, right) => console.log(what, right ? 'True' : 'False');
const [url, secret, brief, busy] = process.argv.slice(2);
let tokens = new Tokens(url, 'kept', secret);
const got = new Set(await Promise.all(Array.from({ length: 64 }, () => tokens.get())));
let [first] = got;
tokens.forget('another');
say('one token:', got.size === 1 && (await tokens.get()) === first);
tokens.forget(first);
say('forgotten:', (await tokens.get()) !== first);

const wrong = new Tokens(url, 'kept', 'wrong');
for (let time = 0; time < 3; time += 1) {
  await wrong.get().catch((error) => say('refused:', error.message.startsWith('400: ')));
}

const short = new Tokens(url, 'brief', brief, 'read');
first = await short.get();
for (let time = 0; time < 600; time += 1) {
  if ((await short.get()) !== first) {
    say('renewed:', true);
    break;
  }
  await new Promise((resolve) => setTimeout(resolve, 50));
}

tokens = new Tokens(busy, 'kept', secret);
console.log(await tokens.get(), await tokens.get());
tokens.renewAt = 0;
console.log(await tokens.get(), await tokens.get());
"#;

#[test]
fn one_token_is_kept_and_renewed() {
    let recipe = Recipe::open("token-cache.md");
    for (file, program, source) in
        [("tokens.py", "use.py", PYTHON), ("tokens.mjs", "use.mjs", JAVASCRIPT)]
    {
        let home = Home::new();
        let made = "grantd client add --id kept --scope read\n\
                    grantd client add --id brief --scope read --lifetime 2";
        let clients = registered(&home, made);
        home.write(file, recipe.file(file));
        home.write(program, source);
        let server = Program::start(home, &[]);
        let (busy, asked) = busy_server();
        let url = format!("{}/connect/token", server.issuer);
        let mut interpreter =
            if file == "tokens.py" { Command::new(python()) } else { Command::new("node") };
        interpreter.arg(program).args([&url, &clients[0].1, &clients[1].1, &busy]);
        let printed = succeed(interpreter.current_dir(server.home.path("")));
        let expected = "one token: True\nforgotten: True\nrefused: True\nrefused: True\n\
                        refused: True\nrenewed: True\nfirst first\nfirst first\n";
        assert_eq!(printed, expected, "{file}");
        let refused = server.log.count(|line| line["outcome"] == "refused");
        assert_eq!(refused, 1, "a refusal is remembered");
        let issued =
            |id: &str| server.log.count(|line| line["client"] == id && line["outcome"] == "issued");
        assert_eq!(issued("kept"), 2, "64 requests for a token, and one after `forget`");
        assert_eq!(asked.load(Ordering::Relaxed), ANSWERS.len(), "requests to the busy server");
    }
    recipe.assert_all_run();
}

/// The answers of a busy server: the client waits twice, gets a token whose time of expiry is
/// absolute, and keeps it while the server is unavailable.
const ANSWERS: [(&str, &str); 4] = [
    ("503 Service Unavailable\r\nRetry-After: 1", ""),
    ("429 Too Many Requests\r\nRetry-After: 0", ""),
    ("200 OK", r#"{"access_token":"first","expires_in":32503680000,"token_type":"Bearer"}"#),
    ("503 Service Unavailable\r\nRetry-After: 60", ""),
];

/// Starts a server that gives [`ANSWERS`] in order. Returns its URL and the number of requests.
fn busy_server() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(&connection);
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let line = line.trim_end().to_lowercase();
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.parse().unwrap();
                }
                if line.is_empty() {
                    break;
                }
            }
            reader.take(length).read_to_end(&mut Vec::new()).unwrap();
            let (status, body) = ANSWERS[count.fetch_add(1, Ordering::Relaxed)];
            let head = format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            (&connection)
                .write_all(format!("HTTP/1.1 {status}\r\n{head}{body}").as_bytes())
                .unwrap();
        }
    });
    (url, asked)
}
