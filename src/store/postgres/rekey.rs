//! Seals what is sealed with another master key anew.

use crate::fault::Fault;
use crate::store::postgres::database::{BULK_LIMIT, Database, Transaction, Type};
use crate::store::postgres::failure::Failure;
use crate::store::postgres::keys;
use crate::store::postgres::seal::{MasterKeys, Purpose};

/// The result of [`rekey`].
#[derive(Debug, Default)]
pub struct Rekeyed {
    /// The number of values that were sealed anew.
    pub sealed_anew: usize,
    /// The number of values that were sealed with the first master key already.
    pub unchanged: usize,
}

/// Seals all values in the store with the first master key: all of them or none. Retired keys, too.
///
/// # Errors
///
/// All [`Fault`]s, one for each value that cannot be opened, and one that says that nothing was done.
pub fn rekey(database: &mut Database, master_keys: &MasterKeys) -> Result<Rekeyed, Vec<Fault>> {
    database.transaction(BULK_LIMIT, |transaction| {
        let mut done = Rekeyed::default();
        let mut faults = Vec::new();
        for (purpose, select, update) in [
            (Purpose::SigningKey, SELECT_KEYS, UPDATE_KEY),
            (Purpose::Secret, SELECT_SECRETS, UPDATE_SECRET),
        ] {
            for (name, sealed) in read(transaction, select)? {
                if master_keys.is_of_first(&sealed) {
                    done.unchanged += 1;
                    continue;
                }
                match anew(transaction, master_keys, purpose, &name, &sealed) {
                    Ok(sealed) => {
                        transaction
                            .query(update, &[(&name, Type::TEXT), (&sealed, Type::BYTEA)])?;
                        done.sealed_anew += 1;
                    }
                    Err(fault) => faults.push(fault),
                }
            }
        }
        if faults.is_empty() {
            return Ok(done);
        }
        let problem = "no value was sealed anew: see to the rows above, and run `grantd store rekey` \
                       again";
        faults.push(Fault::new(transaction.store(), problem));
        Err(faults)
    })
}

fn read(transaction: &mut Transaction<'_>, sql: &str) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let rows = transaction.query(sql, &[])?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

fn anew(
    transaction: &Transaction<'_>,
    master_keys: &MasterKeys,
    purpose: Purpose,
    name: &str,
    sealed: &[u8],
) -> Result<Vec<u8>, Fault> {
    let opened = master_keys.open(transaction.store(), purpose, name, sealed);
    let plain = opened.map_err(|fault| match purpose {
        Purpose::SigningKey => keys::with_remedy(fault, name),
        _ => fault,
    })?;
    master_keys.seal(purpose, name, &plain).map_err(|_| {
        let problem = "the operating system has no random bytes to seal a key";
        Fault::new(transaction.store(), problem)
    })
}

const SELECT_KEYS: &str = "select key_id, document from grantd.signing_key for update";
const SELECT_SECRETS: &str = "select name, sealed from grantd.secret for update";
const UPDATE_KEY: &str = "update grantd.signing_key set document = $2 where key_id = $1";
const UPDATE_SECRET: &str = "update grantd.secret set sealed = $2 where name = $1";
