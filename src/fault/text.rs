//! Reads text files that operators write.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use crate::fault::Fault;

/// Reads a UTF-8 file. A leading byte order mark, which some editors write, is removed.
///
/// # Errors
///
/// A [`Fault`] if the file cannot be read, is not a regular file or is not UTF-8.
pub fn read(file: &Path) -> Result<String, Fault> {
    read_from(open(file)?, file)
}

/// Opens a file to read it. A file that is not a regular one is refused, because reading a FIFO may
/// block for ever. Files below `/dev` and `/proc` are not refused: `/dev/stdin`, and what a shell
/// substitutes for `<(command)`, are open descriptors of this process.
///
/// # Errors
///
/// A [`Fault`] if the file cannot be opened or is not a regular file.
pub fn open(file: &Path) -> Result<File, Fault> {
    regular(file, try_open(file))
}

/// Opens a file as [`open`] does. `None` if there is no such file.
///
/// # Errors
///
/// As [`open`].
pub fn open_if_exists(file: &Path) -> Result<Option<File>, Fault> {
    match try_open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => regular(file, opened).map(Some),
    }
}

fn try_open(file: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    // Without this flag, opening a FIFO would block until a process writes to it.
    #[cfg(unix)]
    if !is_of_the_system(file) {
        std::os::unix::fs::OpenOptionsExt::custom_flags(
            &mut options,
            rustix::fs::OFlags::NONBLOCK.bits().cast_signed(),
        );
    }
    options.open(file)
}

fn is_of_the_system(file: &Path) -> bool {
    file.starts_with("/dev") || file.starts_with("/proc")
}

fn regular(file: &Path, opened: io::Result<File>) -> Result<File, Fault> {
    let cannot = |error: io::Error| Fault::cannot("read", file, &error);
    let is_regular = match &opened {
        _ if is_of_the_system(file) => true,
        Ok(opened) => opened.metadata().map_err(cannot)?.is_file(),
        // A socket cannot be opened.
        Err(_) => fs::metadata(file).map_or(true, |found| found.is_file()),
    };
    if is_regular { opened.map_err(cannot) } else { Err(Fault::new(file, "is not a regular file")) }
}

/// Reads UTF-8 text from `source` and removes a leading byte order mark. A [`Fault`] shows `name`
/// as the file.
///
/// # Errors
///
/// A [`Fault`] if `source` cannot be read or is not UTF-8.
pub fn read_from(mut source: impl Read, name: &Path) -> Result<String, Fault> {
    let mut bytes = Vec::new();
    source.read_to_end(&mut bytes).map_err(|error| Fault::cannot("read", name, &error))?;
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(Fault::new(name, "is in UTF-16: save it in UTF-8"));
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let error = error.utf8_error();
        let problem =
            format!("is not in UTF-8 from byte {} on: save it in UTF-8", error.valid_up_to() + 1);
        Fault::new(name, problem)
    })?;
    if text.starts_with(BOM) {
        text.drain(..BOM.len_utf8());
    }
    Ok(text)
}

/// Returns `text` without a leading byte order mark.
pub fn without_bom(text: &str) -> &str {
    text.strip_prefix(BOM).unwrap_or(text)
}

const BOM: char = '\u{feff}';

/// Returns serde_json's message for a syntax error, without the position. Must not be called for
/// type errors, because their messages quote a value of the file.
pub fn json_problem(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(&*message, |(message, _)| message);
    format!("is not valid JSON here: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_removed() {
        let file = Path::new("a");
        let read = |bytes: &[u8]| read_from(bytes, file).map_err(|fault| fault.problem);
        assert_eq!(read(b"\xef\xbb\xbf{}").as_deref(), Ok("{}"));
        assert!(read(b"\xff\xfe{\0").is_err_and(|problem| problem.contains("UTF-16")));
        assert!(read(b"{\xff").is_err_and(|problem| problem.contains("from byte 2 on")));
    }
}
