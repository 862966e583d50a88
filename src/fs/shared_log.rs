//! A text file to which several processes append lines in turn.
//!
//! A process that appends holds the lock of the file (`whole_file::LockFile`) and has read the
//! lines of the others before. Lines are appended by one write, and a whole line is never taken
//! back: if a write fails in the middle, its whole lines count, and only the rest is cut off. So a
//! process may also read without the lock. The file is rewritten by replacing it, which the others
//! notice by its inode number. A symbolic link in place of the file or of its lock file is refused;
//! the directory may be a link.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::warn;

use crate::fs::identity::{Identity, identity};
use crate::fs::whole_file::{self, Lock, LockFile, directory_of, open_regular};

/// The file, and how far this process has read it.
#[derive(Debug)]
pub struct SharedLog {
    path: PathBuf,
    lock_file: LockFile,
    /// The file that was read last; `None` if there was none. It stays open, so that its inode
    /// number is not given to another file.
    file: Option<(File, Identity)>,
    /// The number of bytes that were read, up to the end of the last whole line.
    end: u64,
    /// Whether a part of a line followed when the file was read last.
    is_torn: bool,
    lines: usize,
    #[cfg(test)]
    writes: u64,
}

/// The lines that were added since the last look.
#[derive(Debug, Default)]
pub struct News {
    /// Whether the file is another one than before, or is new or gone. Then `text` is all of it.
    pub is_other_file: bool,
    /// The number of lines before `text`.
    pub lines_before: usize,
    text: Vec<u8>,
}

impl News {
    /// The lines without their line breaks.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.text.split_inclusive(|&byte| byte == b'\n');
        lines.map(|line| &line[..line.len() - 1])
    }
}

impl SharedLog {
    /// Names the file, and the file whose lock its processes take. Reads and creates nothing.
    pub fn new(path: PathBuf, locked: PathBuf) -> Self {
        Self {
            path,
            lock_file: LockFile::new(locked),
            file: None,
            end: 0,
            is_torn: false,
            lines: 0,
            #[cfg(test)]
            writes: 0,
        }
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there was a file when this process looked last.
    pub fn exists(&self) -> bool {
        self.file.is_some()
    }

    /// The number of lines that this process has read or written.
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// The number of writes by this process.
    #[cfg(test)]
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// Locks the file. Creates its directory if necessary. Waits at most about `wait`. The lock of
    /// the last call must have been dropped.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if another process holds the lock; otherwise an error of the operating system.
    pub fn lock(&mut self, wait: Duration) -> io::Result<Lock> {
        match self.lock_file.lock(wait) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                whole_file::create_directory(directory_of(&self.path))?;
                self.lock_file.lock(wait)
            }
            locked => locked,
        }
    }

    /// Reads the whole lines that were added since the last call. The caller need not hold the
    /// lock.
    ///
    /// # Errors
    ///
    /// An error of the operating system.
    pub fn read(&mut self) -> io::Result<News> {
        let found = match fs::symlink_metadata(&self.path) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let is_other_file = self.file.is_some();
                self.forget();
                return Ok(News { is_other_file, ..News::default() });
            }
            Err(error) => return Err(error),
        };
        let named = identity(&found);
        let is_same = |open: &mut (File, Identity)| named.is_some() && open.1 == named;
        let same = self.file.take_if(|open| is_same(open) && found.len() >= self.end);
        let is_other_file = same.is_none();
        let (mut file, identity) = match same {
            Some(same) => same,
            None => {
                self.forget();
                open(&self.path)?
            }
        };
        let (mut text, mut is_torn) = (Vec::new(), false);
        if found.len() > self.end {
            file.seek(SeekFrom::Start(self.end))?;
            (text, is_torn) = read_whole_lines(&mut file)?;
        }
        let lines_before = self.lines;
        self.end += text.len() as u64;
        self.lines += text.iter().filter(|&&byte| byte == b'\n').count();
        self.is_torn = is_torn;
        self.file = Some((file, identity));
        Ok(News { is_other_file, lines_before, text })
    }

    /// Checks that this user may read the file, which this process may have open since before its
    /// permissions were changed. A missing file is no error.
    ///
    /// # Errors
    ///
    /// An error of the operating system.
    pub fn try_read(&self) -> io::Result<()> {
        whole_file::require_readable(&self.path)
    }

    /// Checks that a process that starts now could open the file to read and append, or make it if it
    /// is missing, and open its lock file.
    ///
    /// # Errors
    ///
    /// An error of the operating system.
    pub fn try_open(&self) -> io::Result<()> {
        self.lock_file.check()?;
        match open_regular(&self.path, OpenOptions::new().read(true).append(true)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                whole_file::require_writable_directory(directory_of(&self.path))
            }
            opened => opened.map(drop),
        }
    }

    /// Checks after an error that the file can be written again, by writing a temporary file. The
    /// caller must hold the lock. The next [`SharedLog::read`] reads the whole file, because it may
    /// have been opened before it became writable.
    ///
    /// # Errors
    ///
    /// An error of the operating system.
    pub fn try_write(&mut self) -> io::Result<()> {
        self.try_open()?;
        whole_file::try_beside(&self.path)?;
        self.forget();
        Ok(())
    }

    /// Makes the next [`SharedLog::read`] read the whole file.
    pub fn forget(&mut self) {
        (self.file, self.end, self.lines, self.is_torn) = (None, 0, 0, false);
    }

    /// Cuts off what follows the last whole line: a process or the machine ended while the line was
    /// written. The caller must hold the lock and have read the file.
    ///
    /// # Errors
    ///
    /// An error of the operating system.
    pub fn cut_torn_line(&mut self) -> io::Result<()> {
        if let Some((file, _)) = &self.file
            && self.is_torn
        {
            let (path, line) = (self.path.display(), self.lines + 1);
            warn!(file = %path, line, "the last line is incomplete and is cut off: it was never acknowledged");
            if let Err(error) = file.set_len(self.end) {
                // Of a file that could only be opened to read, the error does not say why, and the
                // file may be writable when it is opened anew.
                self.forget();
                return Err(self.try_open().err().unwrap_or(error));
            }
            self.is_torn = false;
        }
        Ok(())
    }

    /// Appends `text`, which consists of whole lines. The caller must hold the lock, and must have
    /// read the file and cut off a torn line. Returns the number of lines that are in the file now,
    /// and the error if these are not all. After an error, the caller must call
    /// [`SharedLog::forget`], because the file may have been opened before it became writable.
    pub fn append(&mut self, text: &str) -> (usize, io::Result<()>) {
        let Some((file, _)) = &mut self.file else { return (0, Err(ErrorKind::NotFound.into())) };
        #[cfg(test)]
        {
            self.writes += 1;
        }
        let (mut written, mut result) = (0, Ok(()));
        while written < text.len() && result.is_ok() {
            match file.write(&text.as_bytes()[written..]) {
                Ok(0) => result = Err(ErrorKind::WriteZero.into()),
                Ok(length) => written += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => result = Err(error),
            }
        }
        let whole = text.as_bytes()[..written].iter().rposition(|&byte| byte == b'\n');
        let whole = &text.as_bytes()[..whole.map_or(0, |last| last + 1)];
        let lines = whole.iter().filter(|&&byte| byte == b'\n').count();
        self.end += whole.len() as u64;
        self.lines += lines;
        if result.is_err() {
            // If this fails too, the next process that holds the lock cuts the rest off.
            let _ = file.set_len(self.end);
        }
        // Of a file that could only be opened to read, the error of the write does not say why.
        (lines, result.map_err(|error| self.try_open().err().unwrap_or(error)))
    }

    /// Syncs the file to disk.
    ///
    /// # Errors
    ///
    /// An error of the operating system.
    pub fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |(file, _)| file.sync_data())
    }

    /// Replaces the file by one with the lines of `text`, and syncs it to disk. The caller must
    /// hold the lock.
    ///
    /// # Errors
    ///
    /// An error of the operating system.
    pub fn replace(&mut self, text: &str) -> io::Result<()> {
        #[cfg(test)]
        {
            self.writes += 1;
        }
        self.forget();
        whole_file::replace_unresolved(&self.path, text.as_bytes())?;
        self.file = Some(open(&self.path)?);
        self.end = text.len() as u64;
        self.lines = text.bytes().filter(|&byte| byte == b'\n').count();
        Ok(())
    }
}

/// Reads the lines of the file `path` without changing anything; no lines if there is no file. A
/// process that holds the lock of `locked` to append is waited for about `wait`.
///
/// # Errors
///
/// An error of the operating system.
pub fn read_only(path: &Path, locked: &Path, wait: Duration) -> io::Result<News> {
    // Without the lock, a line that is being written may be missing.
    let _lock = whole_file::lock_if_used(locked, wait);
    SharedLog::new(path.to_owned(), locked.to_owned()).read()
}

/// Opens the file to read and append, or, if it is not writable, to read.
fn open(path: &Path) -> io::Result<(File, Identity)> {
    let file = open_regular(path, OpenOptions::new().read(true).append(true))
        .or_else(|_| open_regular(path, OpenOptions::new().read(true)))?;
    let identity = identity(&file.metadata()?);
    Ok((file, identity))
}

/// Reads to the end of the last whole line, and says whether a part of a line follows. Of a file
/// that is no text, such as a sparse one of many gigabytes, it reads no more than the longest line
/// that is allowed.
fn read_whole_lines(file: &mut File) -> io::Result<(Vec<u8>, bool)> {
    let (mut text, mut end) = (Vec::new(), 0);
    loop {
        let before = text.len();
        let read = file.take(LONGEST_LINE).read_to_end(&mut text)?;
        match text[before..].iter().rposition(|&byte| byte == b'\n') {
            Some(last) => end = before + last + 1,
            None if read as u64 == LONGEST_LINE => {
                let problem = format!("it has a line of more than {LONGEST_LINE} bytes");
                return Err(io::Error::new(ErrorKind::InvalidData, problem));
            }
            None => {}
        }
        if (read as u64) < LONGEST_LINE {
            let is_torn = text.len() > end;
            text.truncate(end);
            return Ok((text, is_torn));
        }
    }
}

/// Far more than a line of such a file has, and than a crash of the machine leaves of NUL bytes.
const LONGEST_LINE: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_line_without_an_end_is_not_read_into_memory() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("log");
        let mut log = SharedLog::new(path.clone(), path.clone());
        fs::write(&path, "a\nb\n").unwrap();
        assert_eq!(lines(&log.read().unwrap()), ["a", "b"]);
        // The last line begins in one part that is read and ends in the next.
        let long = "c".repeat(usize::try_from(LONGEST_LINE).unwrap() - 1);
        fs::write(&path, format!("a\nb\n{long}\n{long}\nd")).unwrap();
        assert_eq!(lines(&log.read().unwrap()), [&*long, &*long]);
        let sparse = OpenOptions::new().append(true).open(&path).unwrap();
        sparse.set_len(1 << 40).unwrap();
        assert_eq!(log.read().unwrap_err().kind(), ErrorKind::InvalidData);
    }

    const SHORT: Duration = Duration::from_millis(20);

    fn lines(news: &News) -> Vec<String> {
        news.lines().map(|line| String::from_utf8(line.to_vec()).unwrap()).collect()
    }

    #[test]
    fn each_process_reads_what_the_others_append_once() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("state/log");
        let [mut one, mut two] = [(); 2].map(|()| SharedLog::new(path.clone(), path.clone()));
        let lock = one.lock(SHORT).unwrap();
        assert_eq!(two.lock(SHORT).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(!one.read().unwrap().is_other_file);
        one.replace("a\nb\n").unwrap();
        assert!(one.append("c\n").1.is_ok());
        drop(lock);

        let news = two.read().unwrap();
        assert_eq!((news.is_other_file, lines(&news).join(" ").as_str()), (true, "a b c"));
        let _lock = two.lock(SHORT).unwrap();
        assert_eq!(two.append("d\ne\n").0, 2);
        let news = one.read().unwrap();
        assert_eq!((news.is_other_file, news.lines_before), (false, 3));
        assert_eq!(lines(&news), ["d", "e"]);
        assert_eq!(lines(&one.read().unwrap()), [] as [&str; 0]);
        assert_eq!((one.lines(), one.writes(), two.writes()), (5, 2, 1));
    }

    #[cfg(unix)]
    #[test]
    fn a_lock_file_that_stays_open_is_opened_anew_when_it_has_changed() {
        use std::os::unix::fs::PermissionsExt as _;

        let directory = TempDir::new().unwrap();
        let path = directory.path().join("log");
        let lock_file = directory.path().join("log.lock");
        let [mut one, mut two] = [(); 2].map(|()| SharedLog::new(path.clone(), path.clone()));
        one.replace("a\n").unwrap();
        let mode_of = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let set_mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let changes: [&dyn Fn(); 4] = [
            &|| fs::remove_file(&lock_file).unwrap(),
            &|| {
                fs::rename(&lock_file, directory.path().join("old")).unwrap();
                fs::write(&lock_file, "").unwrap();
            },
            &|| set_mode(&lock_file, 0o644),
            &|| set_mode(&path, 0o660),
        ];
        for change in changes {
            for log in [&mut one, &mut two] {
                drop(log.lock(SHORT).unwrap());
            }
            change();
            let lock = one.lock(SHORT).unwrap();
            assert_eq!(two.lock(SHORT).unwrap_err().kind(), ErrorKind::WouldBlock);
            assert_eq!(mode_of(&lock_file), if mode_of(&path) == 0o660 { 0o660 } else { 0o600 });
            drop(lock);
            assert!(two.lock(SHORT).is_ok());
        }
        fs::remove_dir_all(directory.path()).unwrap();
        assert!(one.lock(SHORT).is_ok() && lock_file.exists());
    }

    #[test]
    fn a_replaced_removed_or_shortened_file_is_read_again() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("log");
        let [mut one, mut two] = [(); 2].map(|()| SharedLog::new(path.clone(), path.clone()));
        one.replace("a\nb\n").unwrap();
        assert_eq!(lines(&two.read().unwrap()), ["a", "b"]);
        // Two replacements between two looks: the inode number of the first file is not used again
        // while it is open.
        one.replace("c\nd\n").unwrap();
        one.replace("e\nf\n").unwrap();
        let news = two.read().unwrap();
        assert_eq!((news.is_other_file, lines(&news).join(" ").as_str()), (true, "e f"));
        fs::write(&path, "e\n").unwrap();
        assert_eq!(lines(&two.read().unwrap()), ["e"]);
        fs::remove_file(&path).unwrap();
        let news = two.read().unwrap();
        assert!(news.is_other_file && lines(&news).is_empty());
        assert!(!two.read().unwrap().is_other_file);
        assert!(two.append("x\n").1.is_err());
    }

    #[test]
    fn a_torn_line_is_left_out_and_cut_off() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("log");
        for torn in ["b", "b c", "\0", "\0\0\0\0"] {
            fs::write(&path, format!("a\n{torn}")).unwrap();
            let mut log = SharedLog::new(path.clone(), path.clone());
            assert_eq!(lines(&read_only(&path, &path, SHORT).unwrap()), ["a"]);
            assert_eq!(lines(&log.read().unwrap()), ["a"]);
            log.cut_torn_line().unwrap();
            assert!(log.append("d\n").1.is_ok());
            assert_eq!(fs::read_to_string(&path).unwrap(), "a\nd\n");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "it only reads");

        // As of a file that was not writable when it was opened.
        fs::write(&path, "a\nb").unwrap();
        let mut log = SharedLog::new(path.clone(), path.clone());
        let file = File::open(&path).unwrap();
        let identity = identity(&file.metadata().unwrap());
        log.file = Some((file, identity));
        log.read().unwrap();
        assert!(log.cut_torn_line().is_err());
        log.read().unwrap();
        log.cut_torn_line().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a\n");
    }
}
