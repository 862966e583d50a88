//! An update of the Deployment under load.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::kubernetes::pod::{Node, token_request};
use crate::support::{Connection, Request, StopOnDrop, Token, wait_until};

/// The Service in front of the pods, and the clients that ask it all the time.
struct Load {
    /// The pods to which new connections go.
    endpoints: Mutex<Vec<SocketAddr>>,
    answers: AtomicUsize,
    is_over: AtomicBool,
}

impl Load {
    fn open(&self, number: usize) -> Connection {
        let endpoints = self.endpoints.lock().unwrap();
        Connection::open(endpoints[number % endpoints.len()])
    }

    /// Sends requests until the load is over, one on a connection that is kept and one on a new
    /// connection in turn. Each must be answered with a token.
    fn ask(&self, client: usize) {
        let _stop = StopOnDrop(&self.is_over);
        let request = token_request();
        let mut kept: Option<Connection> = None;
        for number in client.. {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let mut connection = kept.take().unwrap_or_else(|| self.open(number));
            let answers = [connection.ask(&request), self.open(number).ask(&request)];
            for answer in &answers {
                assert_eq!(answer.status, 200, "{answer:?}");
                self.answers.fetch_add(1, Ordering::Relaxed);
            }
            kept = answers[0].header("connection").is_none().then_some(connection);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for this many further answers.
    fn go_on(&self, answers: usize) {
        let before = self.answers.load(Ordering::Relaxed);
        wait_until(|| {
            assert!(!self.is_over.load(Ordering::Relaxed), "a request has failed");
            self.answers.load(Ordering::Relaxed) >= before + answers
        });
    }
}

/// The new pod starts beside the old one on the same disk. When it is ready, the kubelet sends SIGTERM
/// to the old pod, and other nodes learn only later that the old pod has left the Service.
#[test]
fn a_rolling_update_refuses_no_request() {
    let node = Node::new().with_key();
    // Longer than the test: a second signal ends the delay when the other nodes have learned it.
    let mut old = node.start(&[("GRANTD_SHUTDOWN_DELAY_SECONDS", "3000")]);
    let load = Load {
        endpoints: Mutex::new(vec![old.program.address]),
        answers: AtomicUsize::new(0),
        is_over: AtomicBool::new(false),
    };
    let set_endpoints = |pods: &[SocketAddr]| *load.endpoints.lock().unwrap() = pods.to_vec();
    // Returns the new pod from the scope, so that it runs until the last client has its answer.
    let _new = std::thread::scope(|scope| {
        let stop = StopOnDrop(&load.is_over);
        for client in 0..3 {
            let load = &load;
            scope.spawn(move || load.ask(client));
        }
        load.go_on(30);
        let new = node.start(&[]);
        node.probe(&new, "startupProbe").assert_fine();
        assert_eq!(node.probe(&new, "readinessProbe").assert_fine(), "ok\n");
        set_endpoints(&[old.program.address, new.program.address]);
        load.go_on(30);

        let token = old.program.ask(&token_request());
        old.program.terminate();
        old.program.log.wait_for(|line| {
            line["message"]
                .as_str()
                .is_some_and(|message| message.starts_with("not ready: stopping"))
        });
        assert_eq!(Request::get("/readyz").send(old.program.admin).status, 503);
        node.probe(&old, "readinessProbe").assert_error(1, &["not ready: starting or stopping"]);
        assert_eq!(node.probe(&old, "livenessProbe").assert_fine(), "ok\n");
        let before = old.program.issued();
        load.go_on(60);
        assert!(old.program.issued() > before, "it still accepts requests");
        set_endpoints(&[new.program.address]);
        old.program.terminate();
        assert_eq!(old.program.wait().code(), Some(0));
        let log = old.program.log.to_the_end();
        assert!(log.contains("\"message\":\"stopped\""), "{log}");

        load.go_on(30);
        Token::verified(&token, new.program.address);
        drop(stop);
        new
    });
}
