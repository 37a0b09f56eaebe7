//! The program `fetch`, and servers on this machine to fetch from.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use fashion_knn::fashion;

use crate::room::Room;

/// The four files, where they are on this machine, under the paths by which a server gives them.
pub fn fashion_mnist() -> HashMap<String, Vec<u8>> {
    let folder = fashion::find().expect("Fashion-MNIST is here");
    let files = fs::read_dir(folder).unwrap().map(|file| {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let name = name.trim_end_matches(".gz").to_owned();
        (format!("/{name}.gz"), fs::read(path).unwrap())
    });
    files.filter(|(name, _)| name.contains("-ubyte")).collect()
}

/// A server on this machine; `answer` gets the path and the connection, which is closed after it.
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
                    let path = head.first().and_then(|line| line.split(' ').nth(1));
                    answer(path.unwrap_or_default(), &mut stream);
                });
            }
        });
    });
    format!("http://{address}")
}

/// Sends the whole file.
pub fn send(stream: &mut TcpStream, body: &[u8]) {
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length:";
    // Whoever was killed hangs up.
    let _ = write!(stream, "{head} {}\r\n\r\n", body.len()).and_then(|()| stream.write_all(body));
}

/// `fetch` from this address alone: it finds no apt-get to ask Debian.
pub fn fetch(room: &Room, url: &str) -> Command {
    let mut command = room.command(env!("CARGO_BIN_EXE_fetch"));
    command.env("FASHION_MNIST_URL", url).env("PATH", "");
    command
}
