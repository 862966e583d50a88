//! Each assertion and proof is accepted once by all servers together, through every fault.

mod attacks;
mod clocks;
mod crowd;
mod faults;
mod history;
mod load;
mod old_primary;
mod race;
mod restores;
