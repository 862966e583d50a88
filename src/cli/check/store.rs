//! Checks a store in PostgreSQL.

use crate::cli::addresses;
use crate::cli::check::files::unwritable;
use crate::cli::check::loaded::Loaded;
use crate::cli::check::rotation;
use crate::cli::error::CliError;
use crate::cli::settings::database;
use crate::clock::Clock;
use crate::config::Config;
use crate::fault::Fault;
use crate::keys::key_store::StoredKeys;
use crate::random::Random;
use crate::registry::client_file;
use crate::server::judge;
use crate::snapshot::files::admin_token;
use crate::snapshot::lifetimes::Recorded;
use crate::snapshot::retention;
use crate::store::postgres::client_document;
use crate::store::postgres::database::BULK_LIMIT;
use crate::store::postgres::keys::KeyRows;
use crate::store::postgres::lifetimes;
use crate::store::postgres::seal::MasterKeys;
use crate::store::postgres::start;

/// Says whether `serve` could start while the database is away.
pub(super) fn about_snapshot(config: &Config) -> Option<String> {
    let (random, now) = (Random::system(), Clock::system().now());
    let (is_warning, line) = start::about_snapshot(&config.startup, &random, now)?;
    Some(format!("{}: {line}", if is_warning { "warning" } else { "note" }))
}

/// Reads the store and determines the issuer's URL. The error lists every fault that would keep
/// `serve` from starting, and those of entries of clients, which `serve` would leave out.
pub(super) fn load(config: &Config) -> Result<Loaded, CliError> {
    let mut problems = addresses::check(config);
    let state = &config.startup.state;
    let faults = [
        Recorded::read(state).map(drop),
        Recorded::check_lock(state),
        admin_token(&config.live).map(drop),
    ];
    problems.extend(faults.into_iter().filter_map(Result::err).map(|fault| fault.to_string()));
    problems.extend(unwritable(config, false).iter().map(ToString::to_string));

    let contradiction = config.startup.store.contradiction();
    problems.extend(contradiction.map(|(setting, problem)| format!("{setting}: {problem}")));
    let master_keys = MasterKeys::load(&config.startup.store, &Random::system());
    let master_keys = master_keys.map_err(|fault| problems.push(fault.to_string()));
    let mut database = database(config).map_err(|error| {
        problems.push(error.0);
        problems.extend(about_snapshot(config));
    });
    let (Ok(database), Ok(master_keys)) = (&mut database, master_keys) else {
        return Err(CliError(problems.join("\n")));
    };
    let (text, keys) = database.reading(BULK_LIMIT, |transaction| {
        let text = client_document::read_all(transaction)?;
        let keys = StoredKeys::read(&mut KeyRows::new(transaction, &master_keys));
        Ok::<_, Vec<Fault>>((text, keys))
    })?;
    problems.extend(keys.faults.iter().map(ToString::to_string));
    let name = database.name().to_owned();
    let faults = client_document::faults_of_rows(database)?;
    problems.extend(faults.iter().map(ToString::to_string));
    let clients = client_file::parse(&name, &text).map_err(|of_text| {
        if faults.is_empty() {
            problems.extend(of_text.iter().map(ToString::to_string));
        }
    });
    let clients = clients.unwrap_or_default();
    let lifetimes = Recorded::read(state).unwrap_or_default();
    let now = Clock::system().now();
    let mut lifetimes = lifetimes.followed_by(&clients, now);
    lifetimes.learn(lifetimes::read(database)?, now);
    problems.extend(rotation::fault(config, &retention(config, &clients, &lifetimes)));
    let issuer = judge(config, &clients).map_err(|errors| {
        problems.extend(errors.into_iter().map(|error| CliError::from(error).0));
    });
    match issuer {
        Ok(issuer) if problems.is_empty() => {
            Ok(Loaded { name, text, clients, keys: keys.keys.len(), issuer })
        }
        _ => Err(CliError(problems.join("\n"))),
    }
}
