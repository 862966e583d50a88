//! Resource limits and attributes of the process. The program sets them; the library does not,
//! because they belong to the program that embeds it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Keeps keys and secrets in this process's memory: the kernel writes no core dump, and other
/// processes of the same user cannot read the memory or attach a debugger. root still can.
pub(super) fn protect_memory() -> std::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // The limit alone does not prevent a dump if the kernel pipes core dumps to a program.
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    Ok(())
}

/// Raises the soft limit of open files to the hard limit: each connection needs a descriptor, and
/// the usual soft limit is 1024.
pub(super) fn raise_descriptor_limit() -> std::io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return Ok(());
    }
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
