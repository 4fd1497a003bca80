//! A server that is started again with the data and the port it had, and applications around it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::SystemTime;

use session_store_core::{
    BoxFuture, Clock, Host, Layered, LayeredConfig, Login, Policy, PrimaryStore, Runtime, Sessions,
    Source, Timestamp, Token, User, UserId,
};

use super::private::free_port;
use super::*;

#[derive(Debug)]
struct Now(Instant);

impl Clock for Now {
    fn now(&self) -> Timestamp {
        Timestamp::from_epoch(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap())
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

impl Runtime for Now {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn sleep(&self, length: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(length))
    }
}

/// The clock of this machine, and tokio.
pub(crate) fn host() -> Host {
    let now = Arc::new(Now(Instant::now()));
    Host::new(Arc::clone(&now) as Arc<dyn Clock>, now)
}

/// One node of an application.
pub(crate) type App = Sessions<Arc<dyn PrimaryStore>, Arc<RedisCache>>;

/// A node over `truth` and the servers of `config`, whose entries live so long.
pub(crate) fn app(truth: &Arc<dyn PrimaryStore>, config: &RedisConfig, cache_ttl: Duration) -> App {
    let cache = Arc::new(RedisCache::new(config).unwrap());
    let mut config = LayeredConfig::default();
    config.cache_ttl = Ttl::new(cache_ttl);
    config.lease_ttl = ttl(1000);
    config.cache_deadline = Duration::from_secs(10);
    let store = Layered::new(Arc::clone(truth), cache, config, host()).unwrap();
    Sessions::new(store, Policy::default()).unwrap()
}

/// Logs somebody in whose session is then in the cache.
pub(crate) async fn log_in_warm<P, S>(app: &Sessions<P, S>) -> Token
where
    P: PrimaryStore + 'static,
    S: SecondaryStore + 'static,
{
    let ada = UserId::new("ada").unwrap();
    if app.find_user(&ada).await.unwrap().is_none() {
        app.register_user(&User::new(ada.clone(), app.now())).await.unwrap();
    }
    let account = app.find_user(&ada).await.unwrap().unwrap();
    let token = app.create(Login::of(&account)).await.unwrap().token;
    until("the cache has it", async || {
        let live = app.authenticate(&token).await.live();
        live.is_some_and(|live| live.source == Source::Secondary)
    })
    .await;
    token
}

/// A `redis-server` that can be killed and started again.
#[derive(Debug)]
pub(crate) struct Phoenix {
    process: Option<Child>,
    pub(crate) port: u16,
    settings: Vec<String>,
    folder: PathBuf,
}

impl Phoenix {
    pub(crate) async fn start(settings: &[&str]) -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(unique(&format!("session-store-again-{port}")));
        std::fs::create_dir_all(&folder).unwrap();
        let settings = settings.iter().map(|word| (*word).to_owned()).collect();
        let mut server = Self { process: None, port, settings, folder };
        server.again().await;
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// It is gone at once.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// It is there again, with what it had saved.
    pub(crate) async fn again(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--enable-debug-command", "yes"]).args(&self.settings);
        command.arg("--dir").arg(&self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().unwrap_or_else(|error| {
            panic!("redis-server: {error}; `cargo xtask servers up` installs it")
        }));
        let url = self.url();
        until("it is up", async || {
            let Ok(client) = redis::Client::open(url.as_str()) else { return false };
            let shell = client.get_multiplexed_async_connection_with_config(&patient()).await;
            let Ok(mut shell) = shell else { return false };
            redis::cmd("PING").query_async::<String>(&mut shell).await.is_ok()
        })
        .await;
    }
}

impl Drop for Phoenix {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
