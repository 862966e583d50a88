//! Asserts that the number of heap allocations for each token is at most the goal.
//!
//! A separate test binary, because the counting allocator is the process's global allocator.

#![expect(clippy::unwrap_used, reason = "shared with the bench, where no test attribute allows it")]

#[path = "../benches/support/allocations.rs"]
mod allocations;

#[test]
fn a_token_allocates_little_more_than_an_empty_service() {
    for counted in allocations::measure() {
        let (own, goal) = (counted.own(), allocations::GOAL);
        assert!(own <= goal, "{}: {own} allocations, at most {goal} wanted", counted.encoding,);
    }
}
