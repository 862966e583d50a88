//! An MCP server and a client that use the SDK.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::recipes::api::{ask, home_with, token_of};
use crate::recipes::{Recipe, Serving, addresses_of, local, moved, registered, run, shell};
use crate::support::ports::free_port;
use crate::support::{Program, Request, Signer};

#[test]
fn an_mcp_server_accepts_the_tokens_of_its_clients() {
    let recipe = Recipe::open("mcp.md");
    let key = Signer::rs256();
    let home = home_with(&key);
    let port = free_port();
    let at_port = vec![("8000", port.to_string())];
    let clients = registered(&home, &moved(recipe.commands("grantd client add"), &at_port));
    let more = "grantd client add --id other-scope --scope other --audience http://127.0.0.1:8000/mcp\n\
                grantd client add --id other-audience --scope notes.read --audience urn:other";
    let others = registered(&home, &moved(more, &at_port));
    // The MCP server itself compares the audience, since introspection may tell it of others.
    let both = "grantd client update --id notes-server --introspects http://127.0.0.1:8000/mcp \
                --introspects urn:other";
    run(&home, &moved(both, &at_port));
    home.write("jwks.py", recipe.file("jwks.py"));
    run(&home, &moved(recipe.commands("openssl genpkey"), &at_port));
    // Without a record of uses, the server refuses assertions that are signed just after its start.
    home.write_uses();
    let server = Program::start(home, &["--config", "grantd.toml"]);
    let addresses = [at_port, addresses_of(&server)].concat();
    let write = |name: &str, text: &str| server.home.write(name, &moved(text, &addresses));
    let [program, client] = ["server.py", "client.py"].map(|name| recipe.file(name));
    write("server.py", program);
    write("client.py", client);

    let [agent, notes_server] = &clients[..] else { panic!("{clients:?}") };
    let secret = [("NOTES_SERVER_SECRET", notes_server.1.as_str())];
    let _mcp = Serving::start(&server.home, recipe.commands("python server.py"), &secret, port);
    let ask_for_notes = format!("AGENT_SECRET={} {}", agent.1, recipe.commands("python client.py"));
    assert_eq!(run(&server.home, &ask_for_notes), "the notes of agent\n");
    assert_eq!(server.issued(), 1);

    assert_describes_itself(local(port), &server.issuer);
    assert_accepts_valid_tokens_only(&server, &key, local(port), agent, &others);

    write("signing.py", recipe.file("signing.py"));
    write("client.py", &signing(client));
    assert_eq!(run(&server.home, "python client.py"), "the notes of signing-agent\n");

    write("client.py", &without_metadata(client));
    let failed = shell(&server.home, &ask_for_notes).output().unwrap();
    let said = String::from_utf8(failed.stderr).unwrap();
    assert!(said.contains("No authorization server metadata discovered"), "{said}");
    recipe.assert_all_run();
}

/// Returns the client with the change that the recipe describes: it has a key instead of a secret.
fn signing(client: &str) -> String {
    let (before, rest) = client.split_once("ClientCredentialsOAuthProvider(\n").unwrap();
    let (_, after) = rest.split_once("\n    )\n").unwrap();
    let provider = "signing.provider(RESOURCE, InMemory(), ISSUER)";
    format!("import signing\n{before}{provider}\n{after}")
}

/// Returns the client without the lines that the recipe's note explains.
fn without_metadata(client: &str) -> String {
    let (before, rest) = client.split_once("    # See the note below.\n").unwrap();
    let (_, after) = rest.split_once("    )\n").unwrap();
    format!("{before}{after}")
}

/// The challenge of a 401 leads to metadata that name grantd.
fn assert_describes_itself(mcp: SocketAddr, issuer: &str) {
    let refused = Request::new("POST", "/mcp").body("{}").send(mcp);
    assert_eq!(refused.status, 401);
    let challenge = refused.header("www-authenticate").unwrap();
    let metadata = format!("http://{mcp}/.well-known/oauth-protected-resource/mcp");
    assert!(challenge.contains(&format!("resource_metadata=\"{metadata}\"")), "{challenge}");
    let metadata = Request::get("/.well-known/oauth-protected-resource/mcp").send(mcp).json();
    assert_eq!(metadata["authorization_servers"], json!([issuer]));
    assert_eq!(metadata["resource"], format!("http://{mcp}/mcp"));
}

fn assert_accepts_valid_tokens_only(
    server: &Program,
    key: &Signer,
    mcp: SocketAddr,
    agent: &(String, String),
    others: &[(String, String)],
) {
    // The SDK answers a GET with a valid token, but without the headers of the protocol, with 406.
    let status = |token: &str| ask(mcp, "/mcp", token).status;
    let good = token_of(server, agent);
    assert_eq!(status(&good), 406);
    assert_eq!(
        others.iter().map(|other| status(&token_of(server, other))).collect::<Vec<_>>(),
        [403, 401]
    );
    let now = grantd::clock::Clock::unix_micros() / 1_000_000;
    let audience = format!("http://{mcp}/mcp");
    let signed = |exp: u64, more: Value| {
        let claims = json!({
            "iss": server.issuer, "exp": exp, "aud": audience, "sub": "agent",
            "client_id": "agent", "iat": now - 900, "jti": "a", "scope": "notes.read",
        });
        let header = json!({ "alg": "RS256", "kid": key.thumbprint(), "typ": "at+jwt" });
        key.sign(&header, &crate::support::registry::changed(claims, &more))
    };
    assert_eq!(status(&signed(now + 600, json!({}))), 406, "the test signs as the server does");
    for refused in [
        signed(now - 600, json!({})),
        signed(now + 600, json!({ "cnf": { "jkt": "a" } })),
        signed(now + 600, json!({ "iss": "https://other.example.com" })),
        "a.b.c".to_owned(),
    ] {
        assert_eq!(status(&refused), 401, "{refused}");
    }
    let (id, secret) = agent;
    let form = [("client_id", &**id), ("client_secret", secret), ("token", &good)];
    let revoke = Request::new("POST", "/connect/revocation");
    let revoke = revoke.form(crate::support::Encoding::Urlencoded, &form);
    assert_eq!(server.ask(&revoke).status, 200);
    assert_eq!(status(&good), 401);
}
