use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};

use super::*;
use crate::key::Key;
use crate::radix52::{double, product};

/// `x + y mod n`, for `x, y < n`.
fn add<const L: usize>(x: &[u64; L], y: &[u64; L], n: &[u64; L]) -> [u64; L] {
    let (mut sum, mut carry) = ([0; L], 0);
    for i in 0..L {
        let limb = x[i] + y[i] + carry;
        sum[i] = limb & LIMB_MASK;
        carry = limb >> 52;
    }
    assert_eq!(carry, 0);
    if below(&sum, n) { sum } else { subtract(&sum, n) }
}

fn below<const L: usize>(x: &[u64; L], y: &[u64; L]) -> bool {
    x.iter().rev().lt(y.iter().rev())
}

fn subtract<const L: usize>(x: &[u64; L], y: &[u64; L]) -> [u64; L] {
    let (mut difference, mut borrow) = ([0; L], 0);
    for i in 0..L {
        let limb = x[i].wrapping_sub(y[i]).wrapping_sub(borrow);
        difference[i] = limb & LIMB_MASK;
        borrow = limb >> 63;
    }
    assert_eq!(borrow, 0);
    difference
}

/// `x y mod n`, bit by bit.
fn multiply<const L: usize>(x: &[u64; L], y: &[u64; L], n: &[u64; L]) -> [u64; L] {
    let mut result = [0; L];
    for bit in (0..52 * L).rev() {
        double(&mut result, n);
        if x[bit / 52] >> (bit % 52) & 1 == 1 {
            result = add(&result, y, n);
        }
    }
    result
}

/// Whether this CPU lacks AVX-512 IFMA. Without AVX-512 IFMA the arithmetic cannot be tested, and
/// `batch_key` in the crate's tests asserts that no batch key can be created.
fn is_unsupported() -> bool {
    let is_unsupported = Supported::detect().is_none();
    if is_unsupported {
        eprintln!("skipped: this CPU has no AVX-512 IFMA");
    }
    is_unsupported
}

fn number<const L: usize>(small: u64) -> [u64; L] {
    let mut number = [0; L];
    number[0] = small;
    number
}

/// Returns numbers below `n` that produce long carry chains, or hardly any carries.
fn edges<const L: usize>(n: &[u64; L]) -> Vec<[u64; L]> {
    let mut ones = [LIMB_MASK; L];
    // 2^(bits - 1) - 1, which is all ones and below n.
    let highest = n.iter().rposition(|limb| *limb != 0).unwrap();
    ones[highest..].fill(0);
    ones[highest] = (1 << n[highest].ilog2()) - 1;
    let mut top = ones;
    top[..L / 2].fill(0);
    let mut low = ones;
    low[L / 2..].fill(0);
    let minus = |small| subtract(n, &number(small));
    vec![number(0), number(1), number(2), minus(1), minus(2), ones, top, low]
}

#[test]
fn arithmetic_matches_plain_arithmetic_at_the_edges() {
    fn run<const L: usize>(n: [u64; L]) {
        // A Montgomery product has the factor R^-1, so the test multiplies it by R.
        let limbs = ModulusLimbs::new(n);
        let mut r = number(1);
        for _ in 0..52 * L {
            double(&mut r, &n);
        }
        let edges = edges(&n);
        for x in &edges {
            let ys: [[u64; L]; BATCH] = edges.clone().try_into().unwrap();
            #[expect(unsafe_code, reason = "code for a CPU that has more than the target")]
            #[cfg_attr(feature = "portable", expect(unused_unsafe, reason = "plain code"))]
            // SAFETY: `Supported::detect` found the instructions that `vectors` needs.
            let [products, squares, entered] = unsafe { vectors(&limbs, x, &ys) };
            for lane in 0..BATCH {
                assert_eq!(multiply(&products[lane], &r, &n), multiply(x, &ys[lane], &n));
                let y = &ys[lane];
                assert_eq!(multiply(&squares[lane], &r, &n), multiply(y, y, &n));
                assert_eq!(entered[lane], multiply(y, &r, &n));
            }
        }
    }

    #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
    fn vectors<const L: usize>(
        n: &ModulusLimbs<L>,
        x: &[u64; L],
        ys: &[[u64; L]; BATCH],
    ) -> [[[u64; L]; BATCH]; 3] {
        let modulus = Modulus::new(n);
        let (x, y) = (broadcast(x), gather(ys));
        let mut square = y;
        modulus.square(&mut square);
        [
            scatter(&modulus.canonical(&modulus.product(&x, &y))),
            scatter(&modulus.canonical(&square)),
            scatter(&modulus.canonical(&modulus.enter(&y))),
        ]
    }

    if is_unsupported() {
        return;
    }
    // Moduli of full length: with all bits set, with only two bits set, and mixed.
    fn moduli<const L: usize>(bits: usize) {
        let mut ones = [LIMB_MASK; L];
        ones[L - 1] >>= 52 * L - bits;
        let mut few = number::<L>(1);
        few[L - 1] = 1 << ((bits - 1) % 52);
        let mut mixed = ones;
        for (i, limb) in mixed[..L - 1].iter_mut().enumerate() {
            *limb &= (i as u64 + 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        }
        [ones, few, mixed].into_iter().for_each(run);
    }
    moduli::<20>(1024);
    moduli::<30>(1536);
    moduli::<40>(2048);
}

#[test]
fn edge_messages_are_signed() {
    fn run<const L: usize, const D: usize>(key: &PrivateKey<L>) {
        let n: &[u64; D] = &product(&key.p.modulus.n, &key.q.modulus.n);
        let mut small = number::<L>(3);
        small[L - 1] = 1;
        let p_multiple = product(&key.p.modulus.n, &small);
        let q_multiple = product(&key.q.modulus.n, &number(77));
        let mut messages = edges(n);
        messages.extend([p_multiple, q_multiple]);
        messages.extend(std::array::from_fn::<_, 6, _>(|i| subtract(n, &number(1 << (8 * i)))));
        for messages in messages.as_chunks::<BATCH>().0 {
            let (signatures, passed) = key.sign(messages);
            assert_eq!(passed, u8::MAX);
            for (message, signature) in messages.iter().zip(&signatures) {
                assert!(below(signature, n));
                let mut power = *signature;
                assert_eq!(key.e, 65537);
                for _ in 0..16 {
                    power = multiply(&power, &power, n);
                }
                assert_eq!(multiply(&power, signature, n), *message);
            }
        }
    }
    if is_unsupported() {
        return;
    }
    for size in [KeySize::Rsa2048, KeySize::Rsa3072, KeySize::Rsa4096] {
        let pair = KeyPair::generate(size).unwrap();
        match Key::from_pkcs8(pair.as_der().unwrap().as_ref()).unwrap() {
            Key::Rsa2048(key) => run::<20, 40>(&key),
            Key::Rsa3072(key) => run::<30, 60>(&key),
            Key::Rsa4096(key) => run::<40, 80>(&key),
        }
    }
}

/// For each limb of the key, flips one bit of this limb only, and asserts that no signature passes
/// the check. The limbs include those that only the check uses.
#[test]
fn no_lane_passes_with_a_flipped_bit_in_the_key() {
    fn of_key(key: &mut PrivateKey<20>) -> Vec<&mut u64> {
        let numbers = [&mut key.p, &mut key.q].map(|prime| {
            let moduli = [&mut prime.modulus, &mut prime.check].into_iter();
            let moduli = moduli.flat_map(|it| {
                it.n.iter_mut().chain(&mut it.r2).chain(&mut it.r3).chain([&mut it.k0])
            });
            moduli.chain(&mut prime.exponent)
        });
        numbers.into_iter().flatten().chain(&mut key.q_inverse).collect()
    }

    if is_unsupported() {
        return;
    }
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let document = pair.as_der().unwrap();
    let Some(Key::Rsa2048(mut key)) = Key::from_pkcs8(document.as_ref()) else { panic!() };
    let messages: [[u64; 40]; BATCH] = std::array::from_fn(|lane| {
        let limb = |limb| (2 * lane as u64 + 3).wrapping_pow(limb as u32 + 1) & LIMB_MASK;
        std::array::from_fn(|i| if i < 39 { limb(i) } else { 0 })
    });
    let passed = |key: &PrivateKey<20>| key.sign(&messages).1;
    assert_eq!(passed(&key), u8::MAX);
    let count = of_key(&mut key).len();
    assert_eq!(count, 2 * (2 * 61 + 20) + 20);
    for number in 0..count {
        // The highest limb of a prime or an exponent has only 36 bits. So only one of the low 36
        // bits is flipped.
        let bit = 1 << (number * 7 % 36);
        *of_key(&mut key)[number] ^= bit;
        assert_eq!(passed(&key), 0, "bit {bit:x} of number {number}");
        *of_key(&mut key)[number] ^= bit;
    }
    assert_eq!(passed(&key), u8::MAX);
}
