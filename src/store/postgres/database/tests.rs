//! A server that answers without end.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use super::*;
use crate::config::StoreUrl;
use crate::store::postgres::framing::tests::message;

/// Starts a server whose answer to every statement has rows without end, and returns a
/// connection to it.
fn endless() -> Database {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        assert_ne!(stream.read(&mut request).unwrap(), 0);
        let logged_in = [message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
        stream.write_all(&logged_in).unwrap();
        assert_ne!(stream.read(&mut request).unwrap(), 0);
        // One column of text.
        let column = [&[0, 1, b'c', 0][..], &[0; 6], &[0, 0, 0, 25], &[0; 8]].concat();
        let begin = [message(b'1', b""), message(b'2', b""), message(b'T', &column)].concat();
        let rows = message(b'D', &[0, 1, 0, 0, 0, 1, b'x']).repeat(1000);
        let mut sent = stream.write_all(&begin);
        while sent.is_ok() {
            sent = stream.write_all(&rows);
        }
    });
    let url = format!("postgres://u@{address}/d?target_session_attrs=any");
    let settings =
        StoreSettings { url: Some(StoreUrl::parse(&url).unwrap()), ..StoreSettings::default() };
    Database::new(&settings, &Clock::system()).unwrap()
}

#[test]
fn a_result_without_end_is_an_error() {
    for (most, says) in [
        (Most { rows: 10_000, ..LONG }, "more than 10000 rows"),
        (Most { bytes: 100_000, ..LONG }, "an answer that is too long"),
    ] {
        let mut database = endless();
        database.connected(None).unwrap();
        let mut rows = 0;
        let read = database.run("select", &[], REQUEST_LIMIT, most, &mut |_| {
            rows += 1;
            Ok(())
        });
        let failure = read.unwrap_err();
        assert!(failure.to_string().contains(says), "{failure}");
        assert_eq!(failure.kind, FailureKind::Malformed);
        assert!((1..=10_000).contains(&rows) && database.connection.is_none());
    }
}
