//! Copies the batch signer's source without what makes it AVX-512: the vectors come from
//! `crate::scalar`, no function may use more than the target has, and what is unrolled becomes loops:
//! unrolled, plain code takes the compiler a quarter of an hour. Nothing else changes, and a line
//! keeps its number.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Not of the batch signer: they queue what is to be signed, and sign it by a library.
const OTHERS: [&str; 5] = ["delivery", "engine", "queue", "room", "single"];

/// What must not be left: it would run the machine's vectors after all.
const REMNANTS: [&str; 4] = ["target_feature", "std::arch", "core::arch", "asm!"];

/// The body of the macro that unrolls, and the same as a loop.
const UNROLLED: &str = "$( { const $row: usize = $number; $body } )*";
const LOOP: &str =
    "#[expect(non_snake_case, reason = \"a constant, unrolled\")] for $row in [$($number),*] $body";

fn main() -> io::Result<()> {
    let source = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("../../src/signing");
    println!("cargo::rerun-if-changed={}", source.display());
    let copy = PathBuf::from(variable("OUT_DIR")?).join("signing");
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    copy_all(&source, &copy)?;
    let mut modules = String::new();
    for entry in fs::read_dir(&copy)? {
        let path = entry?.path();
        if let (Some(name), true) =
            (path.file_stem().and_then(|name| name.to_str()), path.is_file())
        {
            modules.push_str(&format!("mod {name};\n"));
        }
    }
    fs::write(copy.join("modules.rs"), modules)
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")))
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let (Some(name), Some(stem)) = (path.file_name(), path.file_stem()) else { continue };
        if OTHERS.iter().any(|other| stem == *other) {
            continue;
        }
        if path.is_dir() {
            copy_all(&path, &to.join(name))?;
        } else {
            fs::write(to.join(name), scalar(&path, &fs::read_to_string(&path)?)?)?;
        }
    }
    Ok(())
}

fn scalar(path: &Path, text: &str) -> io::Result<String> {
    let mut scalar = String::new();
    if text.contains("macro_rules! each") && !text.contains(UNROLLED) {
        let place = path.display();
        return Err(io::Error::other(format!(
            "{place}: `each!` unrolls in a way that is new here"
        )));
    }
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.replace("std::arch::x86_64", "crate::scalar").replace(UNROLLED, LOOP);
        let code = line.trim_start();
        if code.starts_with("#[target_feature(enable = ") {
            scalar.push_str("// ");
        } else if !code.starts_with("//")
            && let Some(remnant) = REMNANTS.iter().find(|remnant| code.contains(*remnant))
        {
            let place = path.display();
            return Err(io::Error::other(format!(
                "{place}:{number}: `{remnant}` has no plain form; teach this file one"
            )));
        }
        scalar.push_str(&line);
        scalar.push('\n');
    }
    Ok(scalar)
}
