//! Sockets from a service manager, and the notifications to it.

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;

use crate::support::{Connection, DEMO, ENCODINGS, Encoding, GUARD, Home, Program, Request};

#[test]
fn an_inherited_socket_is_served_and_refuses_no_connection_during_a_restart() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let hand_over = || socket.try_clone().unwrap().into();
    let mut server = Program::start_on(Home::new(), hand_over(), &[]);
    assert_eq!(server.address, address);
    for encoding in ENCODINGS {
        assert_eq!(server.ask(&Request::token(encoding, &DEMO)).status, 200);
    }
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));

    // At this moment no server accepts connections, so this connection waits in the backlog of the
    // socket.
    let request = Request::token(Encoding::Multipart, &DEMO);
    let mut waiting = Connection::open(address);
    waiting.send(&request.to_bytes());
    let next = Program::start_on(server.into_home(), hand_over(), &[]);
    assert_eq!(waiting.read_answer().status, 200);
    assert_eq!(next.ask(&request).status, 200);
}

#[test]
fn the_manager_is_notified_of_ready_watchdog_and_stopping() {
    let home = Home::new();
    let path = home.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(GUARD)).unwrap();
    let told = || {
        let mut message = [0; 100];
        let length = manager.recv(&mut message).expect("a message in time");
        String::from_utf8(message[..length].to_vec()).unwrap().trim().to_owned()
    };
    let path = path.to_str().unwrap();
    let variables = [("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "100000")];
    let mut server = Program::start_with(home, &[], &variables);
    // Skips watchdog messages: the server may send one before `READY=1`.
    let ready = (0..10).map(|_| told()).find(|message| *message != "WATCHDOG=1");
    assert_eq!(ready.as_deref(), Some("READY=1"));
    assert_eq!([told(), told(), told()], ["WATCHDOG=1"; 3]);
    server.terminate();
    let last = (0..100).map(|_| told()).find(|message| *message != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
    assert_eq!(server.wait().code(), Some(0));
}
