//! `workerd-bindgen IN.wasm FOLDER`: the modules that workerd runs, as `worker-build` makes them, but
//! without a download.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use wasm_bindgen_cli_support::Bindgen;

/// What a Worker exports: the functions that `#[event]` has made.
const ENTRY: &str = "import * as worker from './index.js';
export default {
  fetch: (request, env, context) => worker.fetch(request, env, context),
  scheduled: (event, env, context) => worker.scheduled?.(event, env, context),
};
";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(input), Some(folder), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: workerd-bindgen IN.wasm FOLDER".into());
    };
    make(&input, &folder)
}

fn make(input: &Path, folder: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    let mut bindgen = Bindgen::new();
    bindgen.input_path(input).out_name("index").typescript(false);
    bindgen.module(true).map_err(|error| error.to_string())?;
    bindgen.generate(folder).map_err(|error| format!("{}: {error:#}", input.display()))?;
    let index = folder.join("index.js");
    let text = fs::read_to_string(&index)?;
    // The runtime of the tests knows modules of wasm, and not yet imports of their source.
    fs::write(&index, text.replace("import source ", "import "))?;
    fs::write(folder.join("entry.mjs"), ENTRY)?;
    Ok(())
}
