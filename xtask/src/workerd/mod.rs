//! The runtime of Cloudflare Workers: builds Workers of this workspace and runs them in it.
//!
//! Nothing leaves this machine while they run; packages come from the registries of cargo and npm.

mod answer;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use session_store_core::conformance::AdapterReport;

use crate::cli::{Failure, Verdict, say};
use crate::command::Program;
use crate::servers::install::{Wanted, find};
use crate::test::Tally;

const SCRIPTS: [&str; 11] = [
    "package.json",
    "package-lock.json",
    "modules.mjs",
    "suite.mjs",
    "refusals.mjs",
    "faulty.mjs",
    "checks.mjs",
    "example.mjs",
    "operation.mjs",
    "places.mjs",
    "deploy.mjs",
];

/// What drives the runtime.
const NODE: Wanted = Wanted { program: "node", package: "nodejs", elsewhere: "" };
const NPM: Wanted = Wanted { program: "npm", package: "npm", elsewhere: "" };

/// What Workers are compiled for.
const TARGET: &str = "wasm32-unknown-unknown";

/// Whether an adapter is tested inside the runtime.
pub(crate) fn runs(adapter: &str) -> bool {
    let mut stores = adapter.strip_prefix("layered:").unwrap_or(adapter).split('+');
    stores.any(|store| store == "d1" || store.starts_with("workers-kv"))
}

/// How time passes for a Worker's namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Time {
    /// Their clock is moved.
    #[default]
    Moved,
    /// It is waited for.
    Real,
}

/// Runs these suites inside the runtime, a request per case. `filter` is part of a case's name or id.
pub(crate) fn reports(
    root: &Path,
    suites: &[&str],
    filter: Option<&str>,
    time: Time,
) -> Result<Vec<AdapterReport>, Failure> {
    let runtime = Runtime::prepare(root)?;
    let modules = runtime.build(root, "workerd-suite")?;
    let mut arguments = vec!["suite.mjs".to_owned(), modules.display().to_string()];
    for suite in suites {
        arguments.extend(["--suite".to_owned(), (*suite).to_owned()]);
    }
    if let Some(filter) = filter {
        arguments.extend(["--case".to_owned(), filter.to_owned()]);
    }
    if time == Time::Real {
        arguments.push("--real-time".to_owned());
    }
    let mut reports = Vec::new();
    runtime.node(&arguments, |line| answer::add(&mut reports, line))?;
    Ok(reports)
}

/// Runs the Worker of `examples/workers` and what is said to bad input, and shows and counts what is
/// checked of them.
pub(crate) fn example(root: &Path) -> Result<Tally, Failure> {
    let runtime = Runtime::prepare(root)?;
    let suite = runtime.build(root, "workerd-suite")?.display().to_string();
    let refusals = checks(&runtime, &["refusals.mjs".to_owned(), suite])?;
    let mut tally = refusals;
    for script in ["example.mjs", "operation.mjs"] {
        let migration = "migrations/0001_session_store.sql";
        tally = tally.plus(about_example(root, &runtime, script, migration)?);
    }
    Ok(tally)
}

/// Runs a script about the example, which reads one of its files.
fn about_example(
    root: &Path,
    runtime: &Runtime,
    script: &str,
    file: &str,
) -> Result<Tally, Failure> {
    let modules = runtime.build(root, "session-store-worker")?.display().to_string();
    let file = root.join("examples/workers").join(file).display().to_string();
    checks(runtime, &[script.to_owned(), modules, file])
}

/// Runs a script that prints a line per check.
fn checks(runtime: &Runtime, arguments: &[String]) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let run = runtime.node(arguments, |line| {
        let Some(name) = line["check"].as_str() else { return Ok(()) };
        let passed = line["passed"].as_bool() == Some(true);
        let one = Tally { passed: passed.into(), failed: (!passed).into() };
        tally = tally.plus(one);
        let verdict = if passed { "ok" } else { "FAILED" };
        say(&format!("{verdict:<6} {name} {}", line["detail"].as_str().unwrap_or_default()));
        Ok(())
    });
    match run {
        // Which check it was stands above.
        Err(_) if tally.failed > 0 => Ok(tally),
        run => run.map(|()| tally),
    }
}

/// `cargo xtask workers`: the same, and a deployment that stops before it sends anything, for which
/// wrangler wants Node.js 20.
pub(crate) fn run(root: &Path) -> Result<Verdict, Failure> {
    let story = example(root)?;
    let runtime = Runtime::prepare(root)?;
    let tally = story.plus(about_example(root, &runtime, "deploy.mjs", "wrangler.jsonc")?);
    say(&format!("{} passed, {} failed", tally.passed, tally.failed));
    Ok(tally.verdict())
}

/// Where the runtime is installed and Workers are built: inside the target folder.
struct Runtime {
    folder: PathBuf,
    target: PathBuf,
}

impl Runtime {
    /// Installs what the lock file names, unless that was done before.
    fn prepare(root: &Path) -> Result<Self, Failure> {
        find(&NODE)?;
        find(&NPM)?;
        provide_target(root, TARGET)?;
        let target = target(root)?;
        let folder = target.join("workerd/runtime");
        let failed =
            |about: &Path, error: &std::io::Error| Failure::io(&about.display().to_string(), error);
        fs::create_dir_all(&folder).map_err(|error| failed(&folder, &error))?;
        let lock = "package-lock.json";
        let read = |folder: &Path| fs::read(folder.join(lock)).ok();
        let source = root.join("xtask/workerd");
        let is_installed =
            folder.join("node_modules/.session-store").exists() && read(&folder) == read(&source);
        for script in SCRIPTS {
            let (from, to) = (source.join(script), folder.join(script));
            fs::copy(&from, &to).map_err(|error| failed(&from, &error))?;
        }
        if !is_installed {
            install(&folder)?;
        }
        Ok(Self { folder, target })
    }

    /// Builds a package of the workspace for workerd and returns the folder of its modules.
    fn build(&self, root: &Path, package: &str) -> Result<PathBuf, Failure> {
        let build = Program::cargo(&format!("build --quiet --package {package} --target {TARGET}"));
        if !build.succeeds(root)? {
            return Err(Failure::new(format!("`{build}` failed")));
        }
        let file = format!("{}.wasm", package.replace('-', "_"));
        let input = self.target.join(TARGET).join("debug").join(file);
        let output = self.target.join("workerd").join(package);
        // Relative to nothing: the child runs in another folder.
        let mut bindgen = Command::new("cargo");
        bindgen.args(["run", "--quiet", "--package", "workerd-bindgen", "--"]);
        bindgen.arg(&input).arg(&output).current_dir(root);
        execute(&mut bindgen)?;
        Ok(output)
    }

    /// Runs a script and shows every line that it prints to `see`.
    fn node(
        &self,
        arguments: &[String],
        mut see: impl FnMut(&Value) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::io("node", &error);
        let mut node = Command::new("node");
        node.args(arguments).current_dir(&self.folder).stdin(Stdio::null());
        let mut child = node.stdout(Stdio::piped()).spawn().map_err(failed)?;
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).lines() {
                // What a Worker prints to its console comes out here too.
                if let Ok(answer) = serde_json::from_str(&line.map_err(failed)?) {
                    see(&answer)?;
                }
            }
        }
        let script = arguments.first().map_or("node", String::as_str);
        let status = child.wait().map_err(failed)?;
        if status.success() { Ok(()) } else { Err(Failure::new(format!("{script}: {status}"))) }
    }
}

fn install(folder: &Path) -> Result<(), Failure> {
    let mut npm = Command::new("npm");
    // The install scripts of the packages only fetch what the packages hold already.
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
    execute(npm.current_dir(folder).stdout(Stdio::null()))?;
    let stamp = folder.join("node_modules/.session-store");
    fs::write(&stamp, "").map_err(|error| Failure::io(&stamp.display().to_string(), &error))
}

/// Adds a target to the compiler unless it is there.
fn provide_target(root: &Path, target: &str) -> Result<(), Failure> {
    let mut ask = Command::new("rustc");
    ask.args(["--print", "target-libdir", "--target", target]).current_dir(root);
    let said = ask.output().map_err(|error| Failure::io("rustc", &error))?;
    let library = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    if said.status.success() && Path::new(&library).is_dir() {
        return Ok(());
    }
    say(&format!("workers: the target {target} is missing; rustup target add {target}"));
    let mut add = Command::new("rustup");
    add.args(["target", "add", target]).current_dir(root).stdout(Stdio::null());
    execute(&mut add).map_err(|failure| {
        Failure::new(format!(
            "the target {target} is missing: rustup target add {target}, or the package of it that \
             your system has ({failure})"
        ))
    })
}

fn execute(command: &mut Command) -> Result<(), Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).status();
    let status = status.map_err(|error| Failure::io(&name, &error))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{command:?}: {status}"))) }
}

fn target(root: &Path) -> Result<PathBuf, Failure> {
    let json = Program::cargo("metadata --no-deps --format-version 1").output(root)?;
    let metadata: Value = serde_json::from_slice(&json)
        .map_err(|error| Failure::new(format!("cargo metadata: {error}")))?;
    let folder = metadata["target_directory"].as_str().map(PathBuf::from);
    folder.ok_or_else(|| Failure::new("cargo metadata names no target folder"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_cannot_be_added_is_named_with_the_command() {
        let failure = provide_target(Path::new("."), "no-such-target").unwrap_err().to_string();
        assert!(failure.contains("rustup target add no-such-target"), "{failure}");
    }
}
