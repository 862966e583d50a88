//! Counts the heap allocations of a token request.
//!
//! The figures are counts instead of times, so they are exact and the same on every machine.
//! Logging is on during the count. `tests/allocations.rs` compares the result with the goal.

#![expect(clippy::unwrap_used, reason = "a failing bench may panic")]

use allocations::{GOAL, measure};

#[path = "support/allocations.rs"]
mod allocations;

fn main() {
    println!("Heap allocations for each request, on average:\n");
    println!("encoding     token  empty service  multer's own  ring's own  ours");
    for counted in measure() {
        println!(
            "{:<10} {:>7.2} {:>14.2} {:>13.2} {:>11.2} {:>5.2}",
            counted.encoding,
            counted.token,
            counted.empty,
            counted.multer,
            counted.ring,
            counted.own(),
        );
    }
    println!("\nGoal: at most {GOAL} of ours.");
}
