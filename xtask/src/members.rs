//! The packages of the workspace and their features, as cargo knows them.

use std::path::Path;

use serde_json::Value;

use crate::cli::Failure;
use crate::command::Program;

/// The package that re-exports all others.
pub(crate) const FACADE: &str = "session-store";

/// One package of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// The package's name.
    pub(crate) name: String,
    /// Relative to the root of the workspace.
    pub(crate) manifest: String,
    /// All features but `default`.
    pub(crate) features: Vec<String>,
    /// Whether others may build it.
    pub(crate) is_published: bool,
}

/// Asks cargo for the members of the workspace.
pub(crate) fn all(root: &Path) -> Result<Vec<Member>, Failure> {
    let json = Program::cargo("metadata --no-deps --format-version 1").output(root)?;
    let metadata = serde_json::from_slice(&json)
        .map_err(|error| Failure::new(format!("cargo metadata: {error}")))?;
    let members = parse(&metadata);
    if members.is_empty() {
        Err(Failure::new("cargo metadata names no package"))
    } else {
        Ok(members)
    }
}

fn parse(metadata: &Value) -> Vec<Member> {
    let root = metadata["workspace_root"].as_str().unwrap_or_default();
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    packages.iter().filter_map(|package| member(package, root)).collect()
}

fn member(package: &Value, root: &str) -> Option<Member> {
    let features = package["features"].as_object()?;
    let manifest = package["manifest_path"].as_str()?;
    Some(Member {
        name: package["name"].as_str()?.to_owned(),
        manifest: manifest.strip_prefix(root)?.trim_start_matches(['/', '\\']).replace('\\', "/"),
        features: features.keys().filter(|feature| *feature != "default").cloned().collect(),
        is_published: package["publish"].as_array().is_none_or(|registries| !registries.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_carry_their_relative_manifest_and_all_features_but_default() {
        let metadata = serde_json::json!({
            "workspace_root": "/w",
            "packages": [{
                "name": "a",
                "manifest_path": "/w/a/Cargo.toml",
                "features": { "default": ["x"], "x": [] },
                "publish": null,
            }, {
                "name": "b",
                "manifest_path": "/w/b/Cargo.toml",
                "features": {},
                "publish": [],
            }],
        });
        let member = |name: &str, features: &[&str], is_published| Member {
            name: name.into(),
            manifest: format!("{name}/Cargo.toml"),
            features: features.iter().map(ToString::to_string).collect(),
            is_published,
        };
        assert_eq!(parse(&metadata), [member("a", &["x"], true), member("b", &[], false)]);
    }
}
