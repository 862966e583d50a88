//! A real nginx in front of a server, with a certificate of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use grantd::clock::Clock;
use tempfile::TempDir;

use crate::readme::succeed;
use crate::support::GUARD;

/// A running proxy. It ends with this value.
pub(crate) struct Nginx {
    /// Of its listener, which speaks TLS; `localhost` is its certificate's name.
    pub(crate) port: u16,
    directory: TempDir,
    child: Child,
}

impl Nginx {
    /// Passes everything on to `upstream`.
    pub(crate) fn before(upstream: SocketAddr) -> Self {
        let directory = TempDir::new().unwrap();
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]);
        openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
        openssl.args(["-keyout", "key.pem", "-out", "certificate.pem"]);
        succeed(openssl.current_dir(directory.path()));
        // Free at this moment; nginx says so if it is not any more.
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let configuration = format!(
            "daemon off; pid nginx.pid; error_log stderr warn;
            events {{ }}
            http {{
                access_log off;
                client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
                uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                server {{
                    listen 127.0.0.1:{port} ssl;
                    ssl_certificate certificate.pem;
                    ssl_certificate_key key.pem;
                    location / {{ proxy_pass http://{upstream}; }}
                }}
            }}"
        );
        let file = directory.path().join("nginx.conf");
        fs::write(&file, configuration).unwrap();
        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(directory.path()).arg("-c").arg(&file).args(["-e", "stderr"]);
        let child = nginx.stdin(Stdio::null()).spawn().expect("nginx: tests/run installs it");
        let mut nginx = Self { port, directory, child };
        let started = Clock::instant();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = nginx.child.try_wait().unwrap();
            assert!(
                ended.is_none() && started.elapsed() < GUARD,
                "nginx does not serve: {ended:?}"
            );
            sleep(Duration::from_millis(10));
        }
        nginx
    }

    /// The file with its certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end only if it is asked.
        let asked = Command::new("kill").arg(self.child.id().to_string()).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
