//! More requests than the server gets to: refused early and cheaply, and their connections kept.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::support::{Issuer, Server};

/// Ends a pause of the server, also where the test fails.
struct Paused<'a>(&'a Server);

impl<'a> Paused<'a> {
    fn new(server: &'a Server) -> Self {
        signal(server, "-STOP");
        Self(server)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        signal(self.0, "-CONT");
    }
}

fn signal(server: &Server, signal: &str) {
    let pid = server.pid().to_string();
    let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
    assert!(sent.success());
}

fn address(server: &Server) -> SocketAddr {
    server.url.strip_prefix("http://").unwrap().parse().unwrap()
}

/// Reads one answer: its status, its head in lower case, its body.
fn answer(stream: &mut BufReader<TcpStream>) -> (u16, String, String) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).unwrap(), 0, "cut short: {head}");
    }
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| {
        let value = line.strip_prefix("content-length:")?;
        value.trim().parse::<usize>().ok()
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, String::from_utf8(body).unwrap())
}

#[test]
fn many_connections_at_once_find_room_to_wait_in() {
    let issuer = Issuer::demo();
    let server = issuer.serve();
    let paused = Paused::new(&server);
    // Nobody accepts. Those for whom there is no room would get no answer before a second has
    // passed, and the system would try again by itself.
    let waiting: Vec<_> = (0..1_000)
        .map(|_| TcpStream::connect_timeout(&address(&server), Duration::from_millis(900)))
        .collect();
    drop(paused);
    let refused = waiting.iter().filter(|stream| stream.is_err()).count();
    assert_eq!(refused, 0, "of {}", waiting.len());
    assert_eq!(server.get("/healthz", &[]).status, 200);
}

#[test]
fn what_comes_late_is_refused_and_its_connection_serves_on() {
    let issuer = Issuer::demo();
    let server = issuer.serve_with(&[
        ("FOB_SERVER_WORKERS", "1"),
        ("FOB_SERVER_ROUND_MS_MAX", "1"),
    ]);
    let body = format!("{{\"code_set\":\"{}\"}}", "0".repeat(1_000));
    let request = format!(
        "POST /v1/redemptions HTTP/1.1\r\nHost: fob\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let paused = Paused::new(&server);
    let mut streams: Vec<_> = (0..2_000)
        .map(|_| {
            let mut stream = TcpStream::connect(address(&server)).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(60)))
                .unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            BufReader::new(stream)
        })
        .collect();
    drop(paused);
    let mut busy = 0;
    for stream in &mut streams {
        let (status, head, body) = answer(stream);
        assert!(!head.contains("connection: close"), "{head}");
        match status {
            400 => assert!(body.contains("\"malformed\""), "{body}"),
            503 => {
                assert!(body.contains("\"busy\""), "{body}");
                assert!(head.contains("retry-after: "), "{head}");
                busy += 1;
            }
            _ => panic!("{status}: {body}"),
        }
    }
    assert!(busy > 0, "all of {} were served", streams.len());
    for stream in streams.iter_mut().take(100) {
        let again = b"GET /healthz HTTP/1.1\r\nHost: fob\r\n\r\n";
        stream.get_mut().write_all(again).unwrap();
        assert_eq!(answer(stream).0, 200);
    }
}
