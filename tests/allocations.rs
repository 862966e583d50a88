//! Asserts that grantd's own code makes at most the allowed number of heap allocations for each
//! token.
//!
//! This test has a binary of its own, because its counting allocator replaces the global allocator
//! of the whole process.

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
