//! Shows registered clients, without the hashes of their secrets.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::client::file::{self, ClientArg, RegistryArgs, entry_of};
use crate::cli::error::CliError;
use crate::cli::live::{AdminArgs, add_figures};
use crate::cli::no_token::SecretState;
use crate::cli::output::print;
use crate::cli::times::{add_dates, parse_duration};
use crate::clock::Clock;
use crate::form::urlencoded;
use crate::oauth::client::Client;
use crate::registry::client_file::{self, edit};
use crate::registry::clients::Registry;
use crate::registry::derived::last_end;
use crate::time::UnixTime;

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    registry: RegistryArgs,
    /// Show only clients that have a secret that expires within this duration (seconds, or as in
    /// 24h, 30d), and clients whose last secret has expired.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expiring: Option<u64>,
}

pub(super) fn list(args: &ListArgs) -> Result<(), CliError> {
    let now = Clock::system().now();
    let (text, registry) = read(&mut args.registry.open()?, None)?;
    let ids = edit::entries(&text)?.filter_map(edit::id_of);
    for client in ids.filter_map(|id| registry.get(&id)) {
        if let Some(within) = args.expiring
            && last_end(client).is_none_or(|end| now < end)
            && !client.secrets.iter().any(|secret| {
                let until = now + within;
                secret.expires_at.is_some_and(|end| now < end && end <= until)
            })
        {
            continue;
        }
        print(in_force(client, now))?;
    }
    Ok(())
}

/// Returns one line of the list. The line lists the client's secrets by label, in one list for each
/// state. The list of valid secrets is always present. Lists of other states are left out if empty.
fn in_force(client: &Client, now: UnixTime) -> Value {
    let mut shown = json!({
        "client_id": &*client.id,
        "enabled": client.enabled,
        "scopes": client.scopes.as_str().split_ascii_whitespace().collect::<Vec<_>>(),
        "token_lifetime": client.token_lifetime,
    });
    for state in [SecretState::Valid, SecretState::NotBegun, SecretState::Ended] {
        let secrets = client.secrets.iter().filter(|secret| SecretState::of(secret, now) == state);
        let secrets: Vec<_> = secrets
            .map(|secret| {
                let mut shown = json!({ "label": secret.label });
                match (state, secret.expires_at, secret.not_before) {
                    (SecretState::NotBegun, _, Some(begin)) => shown["not_before"] = json!(begin),
                    (_, Some(end), _) => shown["expires_at"] = json!(end),
                    _ => {}
                }
                add_dates(&mut shown);
                shown
            })
            .collect();
        if state == SecretState::Valid || !secrets.is_empty() {
            shown[format!("{}_secrets", state.as_str())] = secrets.into();
        }
    }
    shown
}

pub(super) fn show(client: &ClientArg, server: &AdminArgs) -> Result<(), CliError> {
    let ClientArg { registry, id } = client;
    let now = Clock::system().now();
    let mut registry = registry.open()?;
    let (text, clients) = read(&mut registry, Some(&[id]))?;
    let (Some(mut entry), Some(client)) = (entry_of(&text, id), clients.get(id)) else {
        return Err(edit::no_such_client(registry.name()).into());
    };
    let path = format!("/clients/{}", urlencoded::encode(id));
    let live = server.ask(&path, "has not read this client yet")?;
    let secrets = entry.get_mut("secrets").and_then(Value::as_array_mut).into_iter().flatten();
    for (shown, secret) in secrets.zip(&client.secrets) {
        // shift_remove keeps the order of the other members.
        shown.as_object_mut().and_then(|members| members.shift_remove("hash"));
        shown["state"] = SecretState::of(secret, now).as_str().into();
        if let Some(live) = &live {
            add_figures(shown, &live["secrets"], "label", &["uses", "last_used"]);
        }
        add_dates(shown);
    }
    add_dates(&mut entry);
    print(format_args!("{entry:#}"))
}

/// Returns the text of the registry, and the clients in it. Of a database, they are those with these
/// `ids`.
fn read(
    registry: &mut file::Registry,
    ids: Option<&[&str]>,
) -> Result<(String, Registry), CliError> {
    let text = registry.read(ids)?;
    let clients = client_file::parse(registry.name(), &text)?;
    Ok((text, clients))
}
