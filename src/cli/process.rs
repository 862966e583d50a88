//! Resource limits and attributes of the process. The program sets them; the library does not,
//! because they belong to the program that embeds it.

/// Keeps keys and secrets in this process's memory: the kernel writes no core dump, and other
/// processes of the same user cannot read the memory or attach a debugger. root still can.
#[cfg(unix)]
pub(super) fn protect_memory() -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // The limit alone does not prevent a dump if the kernel pipes core dumps to a program.
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    Ok(())
}
