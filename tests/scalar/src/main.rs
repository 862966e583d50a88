//! Whether a branch or an address depends on the key when a batch is signed. `tests/constant-time`
//! runs this; it means something under valgrind's memcheck only.
//!
//! ```text
//! grantd-scalar generate KEY    writes a new RSA-2048 key
//! grantd-scalar sign KEY        prepares and signs with it, its secrets marked as undefined
//! grantd-scalar branch KEY      branches on such a secret: memcheck must complain
//! grantd-scalar index KEY       reads a table at such a secret: memcheck must complain
//! ```
//!
//! memcheck complains when a branch or an address depends on undefined bits and follows them
//! through everything else, so marking secrets as undefined makes it a check of constant time
//! (Langley, "ctgrind", 2010). It knows no AVX-512: the signer's source is compiled here with plain
//! code in place of the vectors. `build.rs` says what else differs.

use std::error::Error;
use std::fs;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};

mod memcheck;
mod scalar;

/// Plain code runs everywhere, so the signer's question to the CPU is answered with yes.
macro_rules! is_x86_feature_detected {
    ($feature:literal) => {
        !$feature.is_empty()
    };
}

#[cfg_attr(not(test), expect(dead_code, reason = "the signer's tests use the rest"))]
#[expect(unused_unsafe, unreachable_pub, reason = "neither is so where the source belongs")]
mod signing {
    include!(concat!(env!("OUT_DIR"), "/signing/modules.rs"));

    pub(crate) mod marked;

    /// What the batch signer takes from its neighbour.
    mod single {
        pub(super) const MAX_SIGNATURE_BYTES: usize = 512;
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [task, file] = &arguments[..] else {
        return Err("usage: grantd-scalar generate|sign|branch|index KEY".into());
    };
    if task == "generate" {
        let document = KeyPair::generate(KeySize::Rsa2048)?.as_der()?;
        return Ok(fs::write(file, document.as_ref())?);
    }
    if !memcheck::is_running() {
        return Err("nothing is checked outside memcheck: run tests/constant-time".into());
    }
    let document = fs::read(file)?;
    match &**task {
        "sign" => signing::marked::sign(&document),
        "branch" => signing::marked::branch(&document),
        "index" => signing::marked::index(&document),
        _ => Err(format!("{task}: no such task").into()),
    }
}
