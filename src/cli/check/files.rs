//! Checks that the user who runs `check` can write the files that the server writes.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;

use crate::config::Config;
use crate::fault::Fault;
use crate::fs::whole_file::directory_of;

/// Returns a fault for each file and directory that the current user cannot write although the
/// server must write it.
pub(super) fn unwritable(config: &Config, has_no_key: bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut check = |path: &Path, attempt: io::Result<()>| {
        faults.extend(attempt.map_err(|error| Fault::cannot("written", path, &error)).err());
    };
    check(&config.startup.state, can_create_in(&config.startup.state));
    if has_no_key {
        check(&config.live.keys, can_create_in(&config.live.keys));
    }
    if let Some(audit) = &config.startup.audit {
        let unwritten = |error| Fault::cannot("written", audit, &error).of_setting("audit");
        faults.extend(can_append(audit).map_err(unwritten).err());
    }
    faults
}

/// Tries to create a temporary file in `directory` or, if `directory` does not exist, in its
/// nearest existing parent. Leaves no file behind.
pub(super) fn can_create_in(directory: &Path) -> io::Result<()> {
    match fs::metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            can_create_in(directory_of(directory))
        }
        Err(error) => Err(error),
        Ok(metadata) if !metadata.is_dir() => Err(io::ErrorKind::NotADirectory.into()),
        Ok(_) => tempfile::tempfile_in(directory).map(drop),
    }
}

fn can_append(file: &Path) -> io::Result<()> {
    match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = directory_of(file);
            // The server creates a missing file, but not a missing directory.
            fs::metadata(directory)?;
            can_create_in(directory)
        }
        Err(error) => Err(error),
        // Do not open a named pipe: opening it for writing blocks until another process reads from
        // it.
        Ok(metadata) if is_pipe(&metadata) => Ok(()),
        Ok(_) => fs::OpenOptions::new().append(true).open(file).map(drop),
    }
}

fn is_pipe(metadata: &Metadata) -> bool {
    #[cfg(unix)]
    return std::os::unix::fs::FileTypeExt::is_fifo(&metadata.file_type());
    #[cfg(not(unix))]
    {
        let _ = metadata;
        false
    }
}
