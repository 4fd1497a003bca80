//! Containers: the last way to a server, for machines that have Docker and nothing else.
//!
//! Ports are mapped to the loopback address alone. Only containers that were created here are
//! removed, by their id.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::cli::{Failure, say};

/// What is run in a container.
#[derive(Clone, Debug, Default)]
pub(super) struct Wish<'a> {
    pub(super) image: &'a str,
    /// Ports of this machine, and what they lead to inside.
    pub(super) ports: Vec<(u16, u16)>,
    /// `Some`: the network of that container, whose ports are its own, or `host`.
    pub(super) network: Option<String>,
    /// Further words for `docker create`.
    pub(super) options: Vec<String>,
    /// What runs in it.
    pub(super) command: Vec<String>,
}

impl Wish<'_> {
    /// The words behind `docker`.
    fn words(&self) -> Vec<String> {
        let mut words: Vec<String> =
            ["create", "--rm", "--pull=never", "--label=session-store"].map(str::to_owned).into();
        words.extend(self.ports.iter().map(|(here, there)| format!("-p=127.0.0.1:{here}:{there}")));
        words.extend(self.network.iter().map(|network| format!("--network={network}")));
        words.extend(self.options.iter().cloned());
        words.push(self.image.to_owned());
        words.extend(self.command.iter().cloned());
        words
    }
}

/// A container of ours: its id, and the daemon that was named when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Container {
    id: String,
    daemon: Option<String>,
}

impl Container {
    /// Makes it; it does not run yet.
    pub(super) fn create(wish: &Wish<'_>) -> Result<Self, Failure> {
        let daemon = std::env::var("DOCKER_HOST").ok().filter(|daemon| !daemon.is_empty());
        let id = said(None, &wish.words())?;
        if id.len() < 12 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Failure::new(format!("docker create said {id:?} and no id")));
        }
        Ok(Self { id, daemon })
    }

    pub(super) fn start(&self) -> Result<(), Failure> {
        self.said(&["start"], &[]).map(drop)
    }

    /// The network of this container, for others.
    pub(super) fn network(&self) -> String {
        format!("container:{}", self.id)
    }

    /// What a command that runs in it says.
    pub(super) fn run(&self, command: &[&str]) -> Result<String, Failure> {
        self.said(&["exec"], command)
    }

    /// The last that the program in it has said; none when it is gone.
    pub(super) fn log(&self) -> Option<String> {
        let output = output(self.daemon.as_deref(), &["logs", "--tail=20", &self.id]).ok()?;
        let texts = [output.stdout, output.stderr];
        output
            .status
            .success()
            .then(|| texts.map(|text| String::from_utf8_lossy(&text).into_owned()).concat())
    }

    /// Whether it may still run: a daemon that does not answer has not said that it is gone.
    pub(super) fn is_alive(&self) -> bool {
        match self.said(&["inspect", "--format={{.State.Status}}"], &[]) {
            // One that was made and not started yet is ours as well.
            Ok(status) => status != "exited" && status != "dead",
            Err(failure) => !failure.to_string().to_lowercase().contains("no such"),
        }
    }

    pub(super) fn signal(&self, name: &str) {
        // It may have ended, and so be gone already.
        let _ = if name == "-KILL" {
            self.said(&["rm", "--force", "--volumes"], &[])
        } else {
            self.said(&["kill", &format!("--signal={}", name.trim_start_matches('-'))], &[])
        };
    }

    fn said(&self, verb: &[&str], behind: &[&str]) -> Result<String, Failure> {
        let words = words(&[verb, &[&self.id], behind].concat());
        said(self.daemon.as_deref(), &words)
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "container": self.id, "daemon": self.daemon })
    }

    pub(super) fn from_json(value: &Value) -> Option<Self> {
        let id = value["container"].as_str()?.to_owned();
        Some(Self { id, daemon: value["daemon"].as_str().map(str::to_owned) })
    }
}

/// Fetches an image unless it is there; the error says why there can be no container of it.
pub(super) fn fetch(image: &str) -> Result<(), Failure> {
    said(None, &words(&["version", "--format={{.Server.Version}}"]))?;
    if said(None, &words(&["image", "inspect", "--format={{.Id}}", image])).is_ok() {
        return Ok(());
    }
    say(&format!("servers: docker pull {image}"));
    said(None, &words(&["pull", "--quiet", image])).map(drop)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn output(daemon: Option<&str>, words: &[impl AsRef<str>]) -> std::io::Result<Output> {
    let mut command = Command::new("docker");
    command.args(daemon.map(|daemon| format!("--host={daemon}")));
    command.args(words.iter().map(AsRef::as_ref)).stdin(Stdio::null()).output()
}

fn said(daemon: Option<&str>, words: &[String]) -> Result<String, Failure> {
    let verb = words.first().map_or("", String::as_str);
    let output = match output(daemon, words) {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::new("there is no docker either"));
        }
        Err(error) => return Err(Failure::io("docker", &error)),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(Failure::new(trouble(verb, &String::from_utf8_lossy(&output.stderr))))
}

/// What the complaint of the command means to whoever reads it.
fn trouble(verb: &str, complaint: &str) -> String {
    let has = |part: &str| complaint.contains(part);
    if has("Cannot connect to the Docker daemon") || has("Is the docker daemon running") {
        return "docker is there, but no daemon answers it: start dockerd, or set DOCKER_HOST to one \
                that runs on this machine"
            .to_owned();
    }
    if has("permission denied") && has("docker daemon") {
        return "docker is there, but its daemon refuses this user: it takes root or the group docker"
            .to_owned();
    }
    let last =
        complaint.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no reason");
    format!("docker {verb}: {last}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_of_the_loopback_address_and_the_container_removes_itself() {
        let wish = Wish {
            image: "redis:8",
            ports: vec![(40_001, 6379)],
            options: words(&["--tmpfs=/data"]),
            command: words(&["redis-server", "--save", ""]),
            ..Wish::default()
        };
        let line = wish.words().join(" ");
        let wanted = "create --rm --pull=never --label=session-store -p=127.0.0.1:40001:6379 \
                      --tmpfs=/data redis:8 redis-server --save ";
        assert_eq!(line, wanted);
        let second =
            Wish { image: "redis:8", network: Some("container:1f".into()), ..Wish::default() };
        assert!(second.words().contains(&"--network=container:1f".to_owned()));
    }

    #[test]
    fn what_docker_complains_of_is_said_with_what_to_do() {
        let daemon = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the \
                      docker daemon running?";
        assert!(trouble("version", daemon).contains("start dockerd"));
        let newer =
            "failed to connect to the docker API at unix:///x; Is the docker daemon running?";
        assert!(trouble("version", newer).contains("start dockerd"));
        let right = "permission denied while trying to connect to the Docker daemon socket at \
                     unix:///var/run/docker.sock: Get: dial unix: connect: permission denied. docker \
                     daemon";
        assert!(trouble("version", right).contains("group docker"));
        let pull = "Using default tag\nError response from daemon: pull access denied for x\n";
        assert_eq!(
            trouble("pull", pull),
            "docker pull: Error response from daemon: pull access denied for x"
        );
        assert_eq!(trouble("start", ""), "docker start: no reason");
    }

    #[test]
    fn a_container_is_found_again_in_the_file() {
        for daemon in [None, Some("unix:///run/docker.sock".to_owned())] {
            let container = Container { id: "0123456789ab".to_owned(), daemon };
            assert_eq!(Container::from_json(&container.to_json()), Some(container));
        }
    }
}
