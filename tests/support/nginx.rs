//! A real nginx with the shipped site files, in front of a server.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use grantd::clock::Clock;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::command::run_with_input;
use crate::support::command::succeed;
use crate::support::ports::free_port;
use crate::support::program::send_signal;
use crate::support::{GUARD, Request, Response};

/// A running nginx. It is stopped on drop.
pub(crate) struct Nginx {
    /// The port of the TLS listener, whose certificate is for [`NAMES`].
    pub(crate) port: u16,
    /// The address of the listener without TLS.
    pub(crate) plain: SocketAddr,
    directory: TempDir,
    child: Child,
}

/// The names in nginx's certificate: those of the token server, of the protected API and of this
/// machine.
const NAMES: &str = "subjectAltName=DNS:auth.example.com,DNS:api.example.com,DNS:localhost";

/// Each shipped file, with its directory below `/etc/nginx`.
pub(crate) const FILES: [(&str, &str); 5] = [
    ("grantd.conf", "conf.d"),
    ("grantd-words.conf", "conf.d"),
    ("protected-api.conf", "conf.d"),
    ("grantd-proxy.conf", "snippets"),
    ("grantd-errors.conf", "snippets"),
];

impl Nginx {
    /// Starts an nginx that forwards requests to the server on `socket`. The protected API answers
    /// with the method, the client and the scope that it received from nginx.
    pub(crate) fn before(socket: &Path) -> Self {
        Self::trusting(socket, &[])
    }

    /// Starts an nginx that trusts `client-ca` and these client certificates as authorities (see
    /// [`make_certificates`]).
    pub(crate) fn trusting(socket: &Path, clients: &[&str]) -> Self {
        Self::start(&Upstream::One(socket), clients, &[])
    }

    /// Starts an nginx with site files in which the first text of each pair is replaced by the
    /// second.
    pub(crate) fn edited(socket: &Path, edits: &[(&str, &str)]) -> Self {
        Self::start(&Upstream::One(socket), &[], edits)
    }

    /// Starts an nginx that forwards requests to three nodes. The listener without TLS is another one
    /// of the site itself, so that a client of a load test need not encrypt.
    pub(crate) fn over(nodes: [SocketAddr; 3], edits: &[(&str, &str)]) -> Self {
        Self::start(&Upstream::Nodes(nodes), &[], edits)
    }

    fn start(upstream: &Upstream<'_>, clients: &[&str], edits: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().unwrap();
        let root = directory.path();
        for name in ["conf.d", "snippets", "grantd", "log", "html"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        make_certificates(&root.join("grantd"));
        let file = |name: &str| root.join(format!("grantd/{name}.pem"));
        let authorities = ["client-ca"].iter().chain(clients);
        let authorities = authorities.map(|name| fs::read_to_string(file(name)).unwrap());
        fs::write(file("client-ca"), authorities.collect::<String>()).unwrap();
        let [port, plain] = [free_port(), free_port()];
        write_site(root, upstream, [port, plain], edits);
        let main = root.join("nginx.conf");
        fs::write(&main, MAIN.replace("{root}", root.to_str().unwrap())).unwrap();

        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(root).arg("-c").arg(&main).args(["-e", "stderr"]);
        let child = nginx.stdin(Stdio::null()).spawn().expect("nginx: tests/run installs it");
        let plain = (Ipv4Addr::LOCALHOST, plain).into();
        let mut nginx = Self { port, plain, directory, child };
        nginx.wait_until_it_serves();
        nginx
    }

    /// Waits for `nginx.pid`, which nginx writes when all its listeners are open.
    fn wait_until_it_serves(&mut self) {
        let started = Clock::system().instant();
        while !self.file("nginx.pid").exists() {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && started.elapsed() < GUARD,
                "nginx does not serve: {ended:?}"
            );
            sleep(Duration::from_millis(10));
        }
    }

    /// Returns the path of nginx's certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.file("grantd/certificate.pem")
    }

    /// Returns the path of a file in nginx's directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Stops nginx after its last request and returns the site's access log.
    pub(crate) fn into_log(mut self) -> String {
        self.end(Signal::QUIT);
        fs::read_to_string(self.file("log/grantd.log")).unwrap()
    }

    /// Ends nginx with `signal`. If the signal cannot be sent, SIGKILL is sent. SIGKILL is the
    /// second choice, because it ends the main process but not the workers of nginx.
    fn end(&mut self, signal: Signal) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        if send_signal(&self.child, signal).is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }

    /// Sends a request to the site through TLS.
    #[track_caller]
    pub(crate) fn ask(&self, request: &Request) -> Response {
        self.ask_host("auth.example.com", request, &[])
    }

    /// Sends a request to the site through TLS, with the client certificate `name` (see
    /// [`make_certificates`]).
    #[track_caller]
    pub(crate) fn ask_as(&self, name: &str, request: &Request) -> Response {
        self.ask_with(name, request, &[])
    }

    /// Sends a request to the site through TLS, with the client certificate `name` and more
    /// arguments for `openssl s_client`.
    #[track_caller]
    pub(crate) fn ask_with(&self, name: &str, request: &Request, more: &[&str]) -> Response {
        let [certificate, key] =
            ["pem", "key"].map(|kind| self.file(&format!("grantd/{name}.{kind}")));
        let own = ["-cert", certificate.to_str().unwrap(), "-key", key.to_str().unwrap()];
        self.ask_host("auth.example.com", request, &[&own, more].concat())
    }

    #[track_caller]
    pub(crate) fn ask_host(&self, host: &str, request: &Request, more: &[&str]) -> Response {
        let request = request.clone().without_header("Host").header("Host", host);
        let request = request.header("Connection", "close").to_bytes();
        let mut answers = self.exchange(host, std::str::from_utf8(&request).unwrap(), more);
        let answer = answers.pop().expect("an answer");
        assert!(answers.is_empty(), "more than one answer: {answers:?}");
        answer
    }

    /// Sends exactly this text through TLS and returns all answers up to the end of the connection.
    #[track_caller]
    pub(crate) fn exchange(&self, host: &str, text: &str, more: &[&str]) -> Vec<Response> {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-quiet", "-verify_return_error", "-verify_hostname", host]);
        openssl.args(["-servername", host, "-connect", &format!("127.0.0.1:{}", self.port)]);
        openssl.arg("-CAfile").arg(self.certificate()).args(more);
        let ended = run_with_input(openssl, text);
        let mut rest = ended.stdout.as_bytes();
        let mut answers = Vec::new();
        while !rest.is_empty() {
            answers.push(Response::take_from(&mut rest));
        }
        assert!(!answers.is_empty(), "{ended:?}");
        answers
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.end(Signal::TERM);
    }
}

/// nginx's main configuration file, which includes the site files. `user root` is for tests that
/// root runs: other users cannot read root's temporary directories.
const MAIN: &str = r#"
daemon off; pid nginx.pid; error_log stderr emerg; user root root;
events { }
http {
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    include {root}/conf.d/*.conf;
    server {
        listen unix:{root}/api.sock;
        default_type application/json;
        return 200 '{"method":"$request_method","client":"$http_x_client_id","scope":"$http_x_scope"}';
    }
}
"#;

/// Where nginx forwards requests to.
enum Upstream<'a> {
    /// The server on this socket.
    One(&'a Path),
    Nodes([SocketAddr; 3]),
}

/// The addresses of the nodes in `deploy/cluster`.
pub(crate) const NODES: [&str; 3] = ["10.0.0.11:8080", "10.0.0.12:8080", "10.0.0.13:8080"];

/// Writes the site files. They differ from the shipped files only in paths, ports, the API's
/// address and `edits`.
fn write_site(root: &Path, upstream: &Upstream<'_>, ports: [u16; 2], edits: &[(&str, &str)]) {
    let (path, [port, plain]) = (root.display(), ports);
    let listen = |port: u16| format!("listen 127.0.0.1:{port};");
    let mut moved = vec![
        ("/etc/nginx/", format!("{path}/")),
        ("/var/log/nginx/", format!("{path}/log/")),
        ("/var/www/html", format!("{path}/html")),
        ("listen 443 ssl http2;", format!("listen 127.0.0.1:{port} ssl http2;")),
        ("listen [::]:80;", String::new()),
        ("http://127.0.0.1:9000", format!("http://unix:{path}/api.sock")),
    ];
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let read = |name: &str| fs::read_to_string(deploy.join(name)).unwrap();
    let mut files = FILES
        .map(|(name, place)| (format!("{place}/{name}"), read(&format!("nginx/{name}"))))
        .to_vec();
    match upstream {
        Upstream::One(socket) => {
            moved.push(("/run/grantd/grantd.sock", socket.display().to_string()));
            moved.push(("listen 80;", listen(plain)));
            moved.push(("listen [::]:443 ssl http2;", String::new()));
        }
        Upstream::Nodes(nodes) => {
            moved.push(("listen 80;", format!("listen unix:{path}/closed.sock;")));
            moved.push(("listen [::]:443 ssl http2;", listen(plain)));
            let nodes = NODES.iter().zip(nodes);
            moved.extend(nodes.map(|(node, address)| (*node, address.to_string())));
            files[0].1 = without_upstream(&files[0].1);
            files.push(("conf.d/grantd-nodes.conf".to_owned(), read("cluster/nginx.conf")));
        }
    }
    moved.extend(edits.iter().map(|(from, to)| (*from, (*to).to_owned())));
    for (from, _) in &moved {
        assert!(files.iter().any(|(_, text)| text.contains(from)), "{from} is nowhere");
    }
    for (name, text) in files {
        let text = moved.iter().fold(text, |text, (from, to)| text.replace(from, to));
        fs::write(root.join(name), text).unwrap();
    }
}

/// Returns `grantd.conf` without the block `upstream grantd`.
pub(crate) fn without_upstream(site: &str) -> String {
    let (before, block) = site.split_once("upstream grantd {\n").expect("a block");
    let (_, after) = block.split_once("\n}\n").expect("the end of the block");
    format!("{before}{after}")
}

/// Makes the certificate of nginx, the authority `client-ca`, and four client certificates.
/// `client-ca` signs `client`, and `self-signed` signs `forged`. `self-signed` and `stranger` are
/// self-signed. `client`, `forged` and `stranger` have the same DNS name. `client` and `forged` are
/// not authorities. The other certificates are authorities because of openssl's default extensions.
pub(crate) fn make_certificates(directory: &Path) {
    let make = |name: &str, more: &[&str]| {
        let [certificate, key] = ["pem", "key"].map(|kind| format!("{name}.{kind}"));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-nodes", "-days", "2", "-out", &certificate]);
        openssl.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", &key]);
        openssl.args(["-subj", &format!("/CN={name}")]).args(more);
        succeed(openssl.current_dir(directory));
    };
    let name = ["-addext", "subjectAltName=DNS:client.example"];
    let no_authority = ["-addext", "basicConstraints=critical,CA:false"];
    let leaf = |leaf: &str, authority: &str| {
        let [certificate, key] = ["pem", "key"].map(|kind| format!("{authority}.{kind}"));
        let signed = ["-CA", &*certificate, "-CAkey", &*key];
        make(leaf, &[&name[..], &no_authority, &signed].concat());
    };
    make("certificate", &["-addext", NAMES]);
    make("client-ca", &[]);
    leaf("client", "client-ca");
    make("self-signed", &[]);
    leaf("forged", "self-signed");
    make("stranger", &name);
    fs::rename(directory.join("certificate.key"), directory.join("key.pem")).unwrap();
}
