//! Servers on this machine to fetch from, for the programs' tests and those of `fashion::fetch`.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// What comes before a body: the code, and that its length follows.
pub const OK: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length:";

/// A server; `answer` gets the path that is asked for and the connection, which is closed after it.
pub fn server(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let answer = &answer;
        thread::scope(|scope| {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                scope.spawn(move || {
                    let request = BufReader::new(stream.try_clone().unwrap());
                    let lines = request.lines().map_while(Result::ok);
                    let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
                    // "GET /train-images-idx3-ubyte.gz HTTP/1.1"
                    let path = head.first().and_then(|line| line.split(' ').nth(1));
                    answer(path.unwrap_or_default(), &mut stream);
                });
            }
        });
    });
    format!("http://{address}")
}

/// Sends the bytes; whoever was killed, or has read enough, hangs up.
pub fn send(stream: &mut TcpStream, bytes: impl AsRef<[u8]>) {
    let _ = stream.write_all(bytes.as_ref());
}

/// Sends a whole file.
pub fn send_file(stream: &mut TcpStream, body: &[u8]) {
    send(stream, format!("{OK} {}\r\n\r\n", body.len()));
    send(stream, body);
}
