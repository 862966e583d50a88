//! Detects changed files by polling their metadata, which works on every file system and mount.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The metadata of some files at one moment. Equal to a later stamp of the same files if none has
/// changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<(PathBuf, Option<FileStamp>)>);

/// The time of modification, the length, and [`identity`].
type FileStamp = (Option<SystemTime>, u64, [i64; 3]);

impl Stamp {
    /// Returns the stamp of one file.
    pub fn of_file(path: PathBuf) -> Self {
        let stamp = stamp_of(&path);
        Self(vec![(path, stamp)])
    }

    /// Adds the files of `others`.
    pub fn extend(&mut self, others: Option<Self>) {
        self.0.extend(others.into_iter().flat_map(|others| others.0));
    }

    /// Returns a new stamp of the same files.
    pub fn again(&self) -> Self {
        Self(self.0.iter().map(|(path, _)| (path.clone(), stamp_of(path))).collect())
    }

    /// Sorts, removes duplicates, and keeps at most [`MOST_FILES`], since polling takes a
    /// microsecond or more per file. Returns whether there were more.
    pub fn settle(&mut self) -> bool {
        // Keep the first of two stamps of one file: the contents may have been read right after it.
        self.0.sort_by(|(path, _), (other, _)| path.cmp(other));
        self.0.dedup_by(|(path, _), (before, _)| path == before);
        let has_too_many = self.0.len() > MOST_FILES;
        self.0.truncate(MOST_FILES);
        has_too_many
    }

    /// Returns the stamp of each of `paths` and of the files in those that are directories.
    pub fn of(paths: &[&Path]) -> Self {
        let mut files = Vec::new();
        for path in paths {
            files.push((path.to_path_buf(), stamp_of(path)));
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            // Skip hidden files: they are temporary.
            let shown =
                entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
            let mut inside: Vec<_> = shown.map(|entry| entry.path()).collect();
            inside.sort_unstable();
            files.extend(inside.into_iter().map(|path| {
                let stamp = stamp_of(&path);
                (path, stamp)
            }));
        }
        Self(files)
    }
}

/// The most key files, of all clients together, that are polled each second.
pub const MOST_FILES: usize = 10_000;

fn stamp_of(path: &Path) -> Option<FileStamp> {
    let metadata = fs::metadata(path).ok()?;
    // Ignore a directory's own metadata: each temporary file changes it, and its files are stamped.
    let modified = metadata.is_file().then(|| metadata.modified().ok()).flatten();
    let length = if metadata.is_file() { metadata.len() } else { 0 };
    let identity = if metadata.is_file() { identity(&metadata) } else { [0; 3] };
    Some((modified, length, identity))
}

/// The inode and ctime of a file: the inode differs if the file was replaced by one of the same
/// length at the same time, the ctime if its permissions changed.
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
