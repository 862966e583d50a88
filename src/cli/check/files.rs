//! Whether the server can write what it writes, and whether its user can read what it reads.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;

use crate::config::Config;
use crate::fault::Fault;

/// The files and directories that this user cannot write, and the server has to.
pub(super) fn unwritable(config: &Config, has_no_key: bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut check = |path: &Path, attempt: io::Result<()>| {
        faults.extend(attempt.map_err(|error| Fault::cannot("written", path, &error)).err());
    };
    check(&config.state, can_create_in(&config.state));
    if has_no_key {
        check(&config.keys, can_create_in(&config.keys));
    }
    if let Some(audit) = &config.audit {
        check(audit, can_append(audit));
    }
    faults
}

/// Whether a file can be made in `directory`, or the directory itself. Nothing is left behind.
fn can_create_in(directory: &Path) -> io::Result<()> {
    match fs::metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match directory.parent() {
            Some(parent) if parent != Path::new("") => can_create_in(parent),
            _ => can_create_in(Path::new(".")),
        },
        Err(error) => Err(error),
        Ok(metadata) if !metadata.is_dir() => Err(io::ErrorKind::NotADirectory.into()),
        Ok(_) => tempfile::tempfile_in(directory).map(drop),
    }
}

fn can_append(file: &Path) -> io::Result<()> {
    match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = file.parent().filter(|parent| *parent != Path::new(""));
            let parent = parent.unwrap_or_else(|| Path::new("."));
            // The server makes the file, but not its directory.
            fs::metadata(parent)?;
            can_create_in(parent)
        }
        Err(error) => Err(error),
        // Opening a pipe waits for its reader.
        Ok(metadata) if is_pipe(&metadata) => Ok(()),
        Ok(_) => fs::OpenOptions::new().append(true).open(file).map(drop),
    }
}

fn is_pipe(metadata: &Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        metadata.file_type().is_fifo()
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        false
    }
}

/// The files that root can read, but not the user that the server runs as: the owner of the state
/// directory, which the server makes. Empty if this user is not root, or if the server is root's.
pub(super) fn unreadable(config: &Config, config_file: Option<&Path>) -> Vec<Fault> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt;
        if !rustix::process::geteuid().is_root() {
            return Vec::new();
        }
        let owner = [&config.state, &config.keys]
            .into_iter()
            .filter_map(|directory| fs::metadata(directory).ok())
            .map(|metadata| (metadata.uid(), metadata.gid()))
            .find(|(user, _)| *user != 0);
        let Some(owner) = owner else { return Vec::new() };
        let mut files: Vec<_> = config_file.into_iter().map(Path::to_owned).collect();
        files.push(config.clients.clone());
        files.extend(config.admin_token_file.clone());
        files.push(config.keys.clone());
        let keys = fs::read_dir(&config.keys).into_iter().flatten().flatten();
        let keys = keys.map(|entry| entry.path());
        files.extend(keys.filter(|file| file.extension().is_some_and(|it| it == "pem")));
        files.iter().filter_map(|file| barred(file, owner)).collect()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (config, config_file);
        Vec::new()
    }
}

/// What keeps this user, with this group, from `file`: its own mode, or that of a directory above it.
#[cfg(target_os = "linux")]
fn barred(file: &Path, (user, group): (u32, u32)) -> Option<Fault> {
    use std::os::unix::fs::MetadataExt;
    let path = fs::canonicalize(file).ok()?;
    path.ancestors().find_map(|part| {
        let metadata = fs::metadata(part).ok()?;
        // To read a file, and to find one in a directory.
        let right = if part == path && !metadata.is_dir() { 0o4 } else { 0o1 };
        let shift = if metadata.uid() == user {
            6
        } else if metadata.gid() == group
            || metadata.mode() >> 3 & right != 0 && metadata.gid() != 0
        {
            // It may be one of the user's other groups.
            3
        } else {
            0
        };
        (metadata.mode() >> shift & right == 0).then(|| {
            let what = if part == path {
                String::new()
            } else {
                format!(" because of {}", part.display())
            };
            let problem = format!(
                "cannot be read by the user {user}{what}, who owns the state or the keys, and so \
                 runs the server: change its owner, group or mode, or run this as that user"
            );
            Fault::new(file, problem)
        })
    })
}
