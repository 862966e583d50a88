//! Noticing that files have changed, by looking: what works on every file system and mount.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How files looked at one moment; another look at the same ones is equal if none has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<(PathBuf, Option<Look>)>);

/// When it was written, how long it is, and which file it is in which state.
type Look = (Option<SystemTime>, u64, [i64; 3]);

impl Stamp {
    /// The one file at `path` as it looks now.
    pub fn of_file(path: PathBuf) -> Self {
        let seen = look(&path);
        Self(vec![(path, seen)])
    }

    /// Adds those of `others`.
    pub fn extend(&mut self, others: Option<Self>) {
        self.0.extend(others.into_iter().flat_map(|others| others.0));
    }

    /// The same files as they look now.
    pub fn again(&self) -> Self {
        Self(self.0.iter().map(|(path, _)| (path.clone(), look(path))).collect())
    }

    /// Each file once, in an order, and of very many the first: looking takes a microsecond or more
    /// for each. Says whether there were too many.
    pub fn settle(&mut self) -> bool {
        // Of two looks at one file the first says more: what was read may be as old as that.
        self.0.sort_by(|(path, _), (other, _)| path.cmp(other));
        self.0.dedup_by(|(path, _), (before, _)| path == before);
        let has_too_many = self.0.len() > MOST_FILES;
        self.0.truncate(MOST_FILES);
        has_too_many
    }

    /// Looks at each of `paths`, and into those that are directories.
    pub fn of(paths: &[&Path]) -> Self {
        let mut files = Vec::new();
        for path in paths {
            files.push((path.to_path_buf(), look(path)));
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            // Hidden ones are about to become others.
            let shown =
                entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
            let mut inside: Vec<_> = shown.map(|entry| entry.path()).collect();
            inside.sort_unstable();
            files.extend(inside.into_iter().map(|path| {
                let seen = look(&path);
                (path, seen)
            }));
        }
        Self(files)
    }
}

/// Files that are looked at each second for all clients together.
pub const MOST_FILES: usize = 10_000;

fn look(path: &Path) -> Option<Look> {
    let metadata = fs::metadata(path).ok()?;
    // A directory changes with each temporary file; what is in it is looked at anyway.
    let modified = metadata.is_file().then(|| metadata.modified().ok()).flatten();
    let length = if metadata.is_file() { metadata.len() } else { 0 };
    let identity = if metadata.is_file() { identity(&metadata) } else { [0; 3] };
    Some((modified, length, identity))
}

/// Replaced by another of the same length in the same instant, it has another number; and the time
/// of its last change of any kind tells when somebody was let read it.
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
