//! Fault injection: tests flip a bit while a batch is computed.

use crate::lanes::Lanes;

/// The numbers in which a test can flip a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The message modulo a prime.
    Residue,
    /// The table of the message's powers modulo a prime.
    Table,
    /// The signature modulo a prime.
    Half,
    /// The quotient of Garner's recombination.
    Quotient,
    /// The recombined signature.
    Signature,
}

/// Does nothing outside tests.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn inject(_place: Place, _number: &mut [Lanes]) {}

#[cfg(test)]
pub(crate) use armed::inject;

#[cfg(test)]
pub(crate) mod armed {
    use std::cell::Cell;

    use super::{Lanes, Place};
    use crate::{BATCH, lanes};

    /// Flips bit `bit` of limb `limb` in lane `lane` once, when the computation reaches `place`. If
    /// the computation reaches `place` several times, the first `pass` times are skipped.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Fault {
        pub(crate) place: Place,
        pub(crate) pass: usize,
        pub(crate) limb: usize,
        pub(crate) lane: usize,
        pub(crate) bit: u32,
    }

    thread_local! {
        pub(crate) static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
    pub(crate) fn inject(place: Place, number: &mut [Lanes]) {
        let Some(fault) = FAULT.get().filter(|fault| fault.place == place) else { return };
        if fault.pass > 0 {
            FAULT.set(Some(Fault { pass: fault.pass - 1, ..fault }));
            return;
        }
        FAULT.set(None);
        let mut flip = [0; BATCH];
        flip[fault.lane] = 1 << fault.bit;
        let limb = &mut number[fault.limb];
        *limb = lanes::xor(*limb, lanes::from_array(flip));
    }
}
