//! Servers of one test alone, which may be changed and killed.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// A `redis-server` that ends with its test and saves nothing.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::of("redis-server", settings)
    }

    /// Any server of the family.
    pub(crate) fn of(program: &str, settings: &[&str]) -> Self {
        let mut tries = 0;
        loop {
            let port = free_port();
            let folder = folder(port);
            std::fs::create_dir_all(&folder).unwrap();
            let mut command = Command::new(program);
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
            command.args(["--enable-debug-command", "yes"]).args(settings).arg("--dir").arg(folder);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let process = command.spawn().unwrap_or_else(|error| {
                panic!("{program}: {error}; `cargo xtask servers up` installs it")
            });
            let mut server = Self { process, port };
            if server.listens() {
                return server;
            }
            tries += 1;
            assert!(tries < 3, "{program} does not start");
        }
    }

    /// It answers nobody any more.
    pub(crate) fn stop(&self) {
        let line = format!("kill -STOP {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn listens(&mut self) -> bool {
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(folder(self.port));
    }
}

/// Where the server on `port` keeps what it needs: what another one left would be loaded.
fn folder(port: u16) -> PathBuf {
    std::env::temp_dir().join(format!("session-store-redis-{}-{port}", std::process::id()))
}

/// A port that nobody has just now, nor that of the Cluster bus 10 000 above. Both lie below those that
/// a kernel gives to clients: of the latter, any may have one before the server does, also whoever asks
/// whether the server is up, who then speaks with itself.
pub(crate) fn free_port() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        // Each process begins somewhere else.
        let number = std::process::id().wrapping_mul(101);
        let number = number.wrapping_add(u32::from(GIVEN.fetch_add(1, Ordering::Relaxed)));
        let port = 12_000 + u16::try_from(number % 10_000).unwrap();
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
}
