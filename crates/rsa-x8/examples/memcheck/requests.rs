//! Requests to valgrind's memcheck, by the instructions that it recognizes: a stable ABI, from valgrind.h
//! and memcheck.h. Outside valgrind they do nothing.

use std::ptr;

const RUNNING_ON_VALGRIND: u64 = 0x1001;
const MEMCHECK: u64 = (b'M' as u64) << 24 | (b'C' as u64) << 16;
const MAKE_MEM_UNDEFINED: u64 = MEMCHECK + 1;
const MAKE_MEM_DEFINED: u64 = MEMCHECK + 2;
const GET_VBITS: u64 = MEMCHECK + 8;

/// Whether this runs under memcheck: not without valgrind, nor under another of its tools.
pub(crate) fn is_running() -> bool {
    request(RUNNING_ON_VALGRIND, [0; 3]) > 0 && !is_wholly_defined(&undefined())
}

/// A number that is undefined for memcheck.
fn undefined() -> u64 {
    let mut value = 0;
    mark(std::slice::from_mut(&mut value));
    value
}

/// Numbers without padding or pointers.
pub(crate) trait Number: Copy {}

impl Number for u8 {}
impl Number for u64 {}

/// Makes numbers undefined for memcheck: they are secret.
pub(crate) fn mark<N: Number>(numbers: &mut [N]) {
    request(MAKE_MEM_UNDEFINED, range(ptr::from_mut(numbers)));
}

/// Makes numbers defined for memcheck: they are public.
pub(crate) fn unmark<N: Number>(numbers: &mut [N]) {
    request(MAKE_MEM_DEFINED, range(ptr::from_mut(numbers)));
}

/// Whether no bit of the number depends on a marked one.
pub(crate) fn is_wholly_defined(number: &u64) -> bool {
    let mut undefined_bits = [0_u64];
    let [address, length, _] = range(ptr::from_ref(std::slice::from_ref(number)).cast_mut());
    let [target, ..] = range(&raw mut undefined_bits);
    request(GET_VBITS, [address, target, length]);
    undefined_bits == [0]
}

fn range<N: Number>(numbers: *mut [N]) -> [u64; 3] {
    let length = numbers.len() * size_of::<N>();
    [numbers.cast::<N>().expose_provenance() as u64, length as u64, 0]
}

/// Memcheck's answer to a request; 0 outside valgrind.
#[cfg(target_arch = "x86_64")]
fn request(request: u64, [a, b, c]: [u64; 3]) -> u64 {
    let arguments = [request, a, b, c, 0, 0];
    let mut answer = 0;
    #[expect(unsafe_code, reason = "no function emits these instructions")]
    // SAFETY: on a CPU nothing changes: the rotations are by 128 bits in all, and a register is exchanged
    // with itself. Under valgrind only `GET_VBITS` writes to the program's memory, to a local variable of
    // `is_wholly_defined`.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") arguments.as_ptr(),
            inout("rdx") answer,
            options(nostack),
        );
    }
    answer
}

/// This file has the instructions of x86-64 only.
#[cfg(not(target_arch = "x86_64"))]
fn request(_request: u64, _arguments: [u64; 3]) -> u64 {
    0
}
