//! Connects to the database: to the first host in the URL that accepts writes.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, join, split};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use tokio_rustls::TlsConnector;

use crate::config::{StoreHost, StoreSettings, StoreUrl};
use crate::fault::Fault;
use crate::store::postgres::failure::{About, Failure, FailureKind, READ_ONLY};
use crate::store::postgres::framing::Guarded;
use crate::store::postgres::password;
use crate::store::postgres::timelines::{Timeline, Timelines};
use crate::store::postgres::tls;

/// The address, the role and the TLS settings of a connection.
pub(super) struct Target {
    pub(super) url: StoreUrl,
    /// The name of the store in faults.
    pub(super) name: Arc<Path>,
    pub(super) user: String,
    pub(super) database: String,
    /// `None` if no host is reached by TLS.
    pub(super) tls: Option<TlsConnector>,
    /// The timelines that a server has seen; `None` for a command.
    pub(super) timelines: Option<Arc<Timelines>>,
}

/// A connection.
pub(super) struct Connection {
    pub(super) client: Client,
    /// The task that moves the messages.
    pub(super) task: JoinHandle<()>,
    /// The error with which the task has ended.
    ended: Arc<Mutex<Option<tokio_postgres::Error>>>,
    /// The bytes that the answer to the current statement may still have.
    pub(super) allowance: Arc<AtomicU64>,
    /// The timeline at the login, if the target has timelines.
    timeline: Option<Timeline>,
}

impl Connection {
    /// Returns the failure that `error` of the client is. If the client only knows that the
    /// connection has ended, the task knows why.
    pub(super) fn failure(&self, error: &tokio_postgres::Error, about: &About<'_>) -> Failure {
        match &*self.ended.lock() {
            Some(cause) if error.is_closed() => Failure::of(cause, about),
            _ => Failure::of(error, about),
        }
    }
}

impl Target {
    /// Returns the database of `settings`.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if `settings` has no URL or no certificate authorities can be read.
    pub(super) fn of(settings: &StoreSettings) -> Result<Self, Fault> {
        let Some(url) = settings.url.clone() else {
            return Err(Fault::new(
                Path::new("store.url"),
                "is not set: pass the URL of a PostgreSQL database in GRANTD_STORE_URL, in the \
                 configuration file, or, without a password, with --store",
            ));
        };
        let name: Arc<Path> = PathBuf::from(url.to_string()).into();
        let needs_tls = url.hosts().iter().any(|host| url.is_encrypted(host));
        let tls = needs_tls.then(|| tls::connector(settings)).transpose()?;
        let problem =
            "names no role: write it before the host, as in postgres://role@host/database";
        let user = url.user().map(str::to_owned).or_else(whoami);
        let user = user.ok_or_else(|| Fault::new(&name, problem))?;
        let database = url.database().unwrap_or(&user).to_owned();
        Ok(Self { url, name, user, database, tls, timelines: None })
    }

    pub(super) fn about(&self) -> About<'_> {
        About { store: &self.name, host: None, user: &self.user, database: &self.database }
    }

    fn about_host(&self, host: &StoreHost) -> About<'_> {
        let has_several = self.url.hosts().len() > 1;
        About { host: has_several.then(|| host.to_string()), ..self.about() }
    }

    /// Whether `connection` can still be used: a higher timeline may have been seen since.
    pub(super) fn is_current(&self, connection: &Connection) -> bool {
        match (&self.timelines, &connection.timeline) {
            (Some(timelines), Some(timeline)) => timelines.is_highest(timeline),
            _ => true,
        }
    }

    /// Notes the timeline of a database.
    ///
    /// # Errors
    ///
    /// A [`Failure`] if a higher one of the same system was seen.
    pub(super) fn admit(&self, timeline: &Timeline, about: &About<'_>) -> Result<(), Failure> {
        let Some(timelines) = &self.timelines else { return Ok(()) };
        let host = about.host.clone().unwrap_or_else(|| self.name.display().to_string());
        timelines.admit(&host, timeline).map_err(|problem| about.away(&problem))
    }

    /// Connects to the first host that accepts writes, and is not an old primary.
    ///
    /// # Errors
    ///
    /// The failures of all hosts. If any host may answer later, the kind is [`FailureKind::Away`].
    pub(super) async fn connect(&self) -> Result<Connection, Failure> {
        let mut failures = Vec::new();
        let mut hosts = self.url.hosts().iter();
        while let Some(host) = hosts.next() {
            match self.connect_to(host).await {
                Ok(connection) => {
                    if self.timelines.is_some() {
                        self.look_at(hosts.as_slice()).await;
                    }
                    let Some(timeline) = &connection.timeline else { return Ok(connection) };
                    match self.admit(timeline, &self.about_host(host)) {
                        Ok(()) => return Ok(connection),
                        Err(failure) => failures.push(failure),
                    }
                }
                Err(failure) => failures.push(failure),
            }
        }
        let is_away = |failure: &&Failure| failure.kind == FailureKind::Away;
        let kind = failures.iter().find(is_away).or_else(|| failures.first()).map(|it| it.kind);
        let texts: Vec<_> = failures.iter().map(Failure::problem).collect();
        Err(Failure::new(kind.unwrap_or(FailureKind::Away), &self.name, texts.join("; ")))
    }

    /// Notes the timelines of the other hosts: a server that was not there at a failover does not
    /// know the new one.
    async fn look_at(&self, hosts: &[StoreHost]) {
        let looks = hosts.iter().map(|host| timeout(LOOK, self.connect_to(host)));
        for seen in join_all(looks).await.into_iter().flatten().flatten() {
            drop(seen.client);
            // Without its client, the task ends the connection and itself.
            let _ = timeout(LOOK, seen.task).await;
        }
    }

    async fn connect_to(&self, host: &StoreHost) -> Result<Connection, Failure> {
        let (about, name, shown) = (&self.about_host(host), &host.name, host.to_string());
        #[cfg(unix)]
        if host.is_unix() {
            let connected = self.within_limit(&shown, about, async {
                let stream = UnixStream::connect(&shown).await;
                let stream = stream.map_err(|error| unreachable(&shown, &error, about))?;
                self.log_in(stream, host, true, about).await
            });
            return connected.await;
        }
        let addresses = self.within_limit(&shown, about, async {
            tokio::net::lookup_host((&**name, host.port)).await.map_err(|error| {
                about.away(&format!("the host {name} has no address ({error}): check its name"))
            })
        });
        let addresses: Vec<_> = addresses.await?.collect();
        let mut failure = about.away(&format!("the host {name} has no address"));
        for address in addresses {
            let connected = self.within_limit(&shown, about, self.by_tcp(host, address, about));
            match connected.await {
                Ok(connection) => return Ok(connection),
                Err(other) => failure = other,
            }
        }
        Err(failure)
    }

    async fn by_tcp(
        &self,
        host: &StoreHost,
        address: SocketAddr,
        about: &About<'_>,
    ) -> Result<Connection, Failure> {
        let stream = TcpStream::connect(address).await;
        let stream = stream.and_then(|stream| prepare(&stream).map(|()| stream));
        let stream = stream.map_err(|error| unreachable(&host.to_string(), &error, about))?;
        match &self.tls {
            Some(tls) if self.url.is_encrypted(host) => {
                let stream = tls::encrypt(stream, tls, host, about).await?;
                self.log_in(stream, host, true, about).await
            }
            _ => self.log_in(stream, host, host.is_local(), about).await,
        }
    }

    /// Logs in. `is_private` says whether no other machine can read the stream.
    async fn log_in<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        &self,
        stream: S,
        host: &StoreHost,
        is_private: bool,
        about: &About<'_>,
    ) -> Result<Connection, Failure> {
        let mut config = tokio_postgres::Config::new();
        config
            .user(&self.user)
            .dbname(&self.database)
            .application_name(self.url.application())
            // The stream is already encrypted if it is to be.
            .ssl_mode(SslMode::Disable);
        let password = password::find(&self.url, host, &self.user, &self.database);
        let password = password.map_err(|fault| {
            about.refused(&format!("{}: {}", fault.file.display(), fault.problem))
        })?;
        if let Some(password) = password {
            config.password(password.as_str());
        }
        let allowance = Arc::new(AtomicU64::new(LOGIN_BYTES));
        let (from_server, to_server) = split(stream);
        let from_server = Guarded::new(from_server, Arc::clone(&allowance), is_private);
        let stream = join(from_server, to_server);
        let (client, messages) =
            config.connect_raw(stream, NoTls).await.map_err(|error| Failure::of(&error, about))?;
        let ended: Arc<Mutex<Option<_>>> = Arc::default();
        let noted = Arc::clone(&ended);
        let task = tokio::spawn(async move {
            let error = messages.await.err();
            *noted.lock() = error;
        });
        let mut connection = Connection { client, task, ended, allowance, timeline: None };
        if self.url.may_be_read_only() {
            return Ok(connection);
        }
        let state = if self.timelines.is_some() { STATE } else { "SHOW transaction_read_only" };
        let first = first_of(&connection, state).await;
        let first = first.map_err(|error| connection.failure(&error, about))?.unwrap_or_default();
        let (is_read_only, timeline) = first.split_once(' ').unwrap_or((&first, ""));
        if is_read_only != "off" {
            return Err(about.away(READ_ONLY));
        }
        if self.timelines.is_some() {
            let timeline = Timeline::of_epoch(timeline);
            let timeline = timeline.ok_or_else(|| about.malformed("its timeline"))?;
            self.admit(&timeline, about)?;
            connection.timeline = Some(timeline);
        }
        Ok(connection)
    }

    async fn within_limit<T>(
        &self,
        at: &str,
        about: &About<'_>,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let seconds = self.url.connect_seconds();
        match timeout(Duration::from_secs(seconds), work).await {
            Ok(done) => done,
            Err(_) => Err(about.away(&format!(
                "cannot be reached: no answer from {at} within {seconds} s: check that it runs, \
                 and the network between"
            ))),
        }
    }
}

/// The name of the user of the process.
fn whoami() -> Option<String> {
    let variables = ["USER", "LOGNAME"];
    variables.iter().find_map(|name| std::env::var(name).ok()).filter(|name| !name.is_empty())
}

/// Returns the first value of the answer to a statement.
async fn first_of(
    connection: &Connection,
    sql: &str,
) -> Result<Option<String>, tokio_postgres::Error> {
    connection.allowance.store(LOGIN_BYTES, Ordering::Relaxed);
    let answer = connection.client.simple_query(sql).await?;
    Ok(answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten().map(str::to_owned),
        _ => None,
    }))
}

/// Lets a dead peer be noticed: by keepalive while nothing is sent, else by the time for which sent
/// data is not acknowledged.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    socket.set_tcp_keepalive(&keepalive)
}

fn unreachable(at: &str, error: &io::Error, about: &About<'_>) -> Failure {
    about.away(&format!(
        "cannot be reached: {at}: {error}: check that PostgreSQL runs and listens there, and the \
         host and port in the URL"
    ))
}

/// The longest look at another host.
const LOOK: Duration = Duration::from_secs(1);
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);
/// Returns `off` if writes are accepted; and, of a primary, the system and the timeline as at the
/// beginning of an epoch.
const STATE: &str = "select concat_ws(' ', current_setting('transaction_read_only'), \
                     case when not pg_is_in_recovery() then concat_ws('/', s.system_identifier, \
                     substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)) end) \
                     from pg_control_system() s";
/// The most bytes that a server may send until a connection can be used.
const LOGIN_BYTES: u64 = 256 << 10;
