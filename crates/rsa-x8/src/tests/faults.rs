//! An injected fault makes the check fail in its own lane and in no other lane.

use super::*;
use crate::fault::Place;
use crate::fault::armed::{FAULT, Fault};

/// Tests the limbs 0, `every`, 2 × `every` and so on, below `limbs`. For each of them, flips one
/// bit in one lane. Asserts that the check fails in this lane, and that the other lanes have the
/// right signatures. The lane and the bit change from limb to limb.
fn inject(place: Place, passes: usize, limbs: usize, every: usize) {
    let pair = generate(KeySize::Rsa2048);
    let Some(key) = batch_key(&pair) else { return };
    let messages: [[u8; 1]; BATCH] = std::array::from_fn(|lane| [lane as u8]);
    let expected = messages.map(|message| by_ring(&pair, &message));
    for pass in 0..passes {
        for limb in (0..limbs).step_by(every) {
            let (lane, bit) = ((limb + pass) % BATCH, (limb * 11 + pass * 5) as u32 % 52);
            FAULT.set(Some(Fault { place, pass, limb, lane, bit }));
            let mut signatures = [[1; MAX_SIGNATURE_BYTES]; BATCH];
            let passed =
                key.sign(&messages.each_ref().map(|message| &message[..]), &mut signatures);
            assert!(FAULT.get().is_none(), "the batch did not pass {place:?}");
            for other in 0..BATCH {
                assert_eq!(passed[other], other != lane, "{place:?} {pass} {limb} {bit}");
                let expected =
                    if other == lane { [0; MAX_SIGNATURE_BYTES] } else { expected[other] };
                assert_eq!(signatures[other], expected);
            }
        }
    }
}

// A batch reaches `Residue`, `Table` and `Half` twice (for p and for q). It reaches `Quotient` and
// `Signature` once.

#[test]
fn in_a_residue() {
    inject(Place::Residue, 2, 20, 1);
}

#[test]
fn in_a_table() {
    // The check can notice only faults in entries that are used. Nearly every key uses all 16
    // entries. But for about one key in a million, one of the 16 values does not occur among the
    // 256 digits of an exponent, and this test may fail.
    inject(Place::Table, 2, 16 * 20, setting("RSA_X8_TABLE_STEP", 31));
}

#[test]
fn in_a_half() {
    inject(Place::Half, 2, 20, 1);
}

#[test]
fn in_the_recombination() {
    inject(Place::Quotient, 1, 20, 1);
}

#[test]
fn in_the_signature() {
    inject(Place::Signature, 1, 40, 1);
}
