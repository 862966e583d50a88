//! Detects changed files by polling their metadata, which works on every file system and mount.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The metadata of some files at one time. Two stamps of the same files are equal if no file has
/// changed between the two times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<(PathBuf, Option<FileStamp>)>);

/// The modification time of a file, its length in bytes, and its [`identity`].
type FileStamp = (Option<SystemTime>, u64, [i64; 3]);

impl Stamp {
    /// Returns the stamp of one file.
    pub fn of_file(path: PathBuf) -> Self {
        Self(vec![stamped(path)])
    }

    /// Adds the files of the stamp `others`.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Returns a new stamp of the same files.
    pub fn again(&self) -> Self {
        Self(self.0.iter().map(|(path, _)| stamped(path.clone())).collect())
    }

    /// Sorts the files by path, removes duplicates, and keeps at most the first [`MOST_FILES`]
    /// files. The number of files is limited, because polling takes a microsecond or more per file.
    /// Returns whether files were dropped because of this limit.
    pub fn settle(&mut self) -> bool {
        // If a file has two stamps, keep the first stamp. The second stamp may have been taken
        // after the file was read. A change between the reading and the second stamp would not be
        // noticed.
        self.0.sort_by(|(path, _), (other, _)| path.cmp(other));
        self.0.dedup_by(|(path, _), (before, _)| path == before);
        let has_too_many = self.0.len() > MOST_FILES;
        self.0.truncate(MOST_FILES);
        has_too_many
    }

    /// Returns the stamp of the files `paths`. For a directory among `paths`, the stamp also covers
    /// the files in the directory.
    pub fn of(paths: &[&Path]) -> Self {
        let mut files = Vec::new();
        for path in paths {
            files.push(stamped(path.to_path_buf()));
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            // Skip hidden files, which are usually temporary.
            let shown =
                entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
            let mut inside: Vec<_> = shown.map(|entry| entry.path()).collect();
            inside.sort_unstable();
            files.extend(inside.into_iter().map(stamped));
        }
        Self(files)
    }
}

/// The maximum number of key files that are watched for changes. All of them are polled each
/// second.
pub const MOST_FILES: usize = 10_000;

fn stamped(path: PathBuf) -> (PathBuf, Option<FileStamp>) {
    let stamp = fs::metadata(&path).ok().map(|metadata| match metadata.is_file() {
        true => (metadata.modified().ok(), metadata.len(), identity(&metadata)),
        // Ignore the metadata of a directory, which changes with each temporary file in it. Each
        // file in the directory has its own stamp.
        false => FileStamp::default(),
    });
    (path, stamp)
}

/// Returns the inode number and the ctime of a file. The inode number detects that the file was
/// replaced by another file with the same length and modification time. The ctime detects a change
/// of permissions.
fn identity(metadata: &Metadata) -> [i64; 3] {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let number = i64::from_ne_bytes(metadata.ino().to_ne_bytes());
        [number, metadata.ctime(), metadata.ctime_nsec()]
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        [0; 3]
    }
}
